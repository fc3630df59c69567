// Attention in tiles. One tile holds the query rows of some consecutive tokens and of every head
// that shares a kv-head:
//
//            keys, kKeys at a time ->
//          +--------------------------+       K block, transposed: [head_dim, kKeys]
//   rows   |  S = Q·Kᵀ   6 rows a time |       V block:             [kKeys, head_dim]
//   (6 at  |  softmax, online          |       both are copied once per tile and stay in the
//   nearest caches while a time)|  O = O·c + P·V            |       all rows of the tile pass over
//   them
//          +--------------------------+
//
// Both products are the same micro-kernel: R <= 6 rows by kPanel registers of columns, held in
// registers over the depth. A row of the tile sees keys [0, first_keys + token); later keys are
// masked with minus infinity.

static constexpr int kRows = 6;
static constexpr int kPanel =
    kWidth == 16 ? 4 : 2;  // registers of columns: 24 of 32 accumulate, or 12 of 16
static constexpr int64_t kKeys = 64;

static inline int64_t padded(int64_t count) {
  return (count + kWidth - 1) / kWidth * kWidth;
}

struct Product {
  const float* a;  // row i, depth p at a[i * a_row + p * a_step]
  int64_t a_row, a_step;
  const float* b;  // [depth, ldb], whole registers
  int64_t ldb;
  float* c;  // [rows, ldc], whole registers
  int64_t ldc;
  int64_t depth, columns;   // columns: a multiple of kWidth
  const float* row_scales;  // null: c is written; else c = c · row_scales[i] + product
};

template <int R, int N>
static inline void product_panel(const Product& g, int64_t column) {
  VecF sums[R][N];
#pragma GCC unroll 6
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int u = 0; u < N; ++u)
      sums[i][u] = g.row_scales == nullptr
                       ? VecF{}
                       : load(g.c + i * g.ldc + column + u * kWidth) * g.row_scales[i];
  const float* a = g.a;
  const float* b = g.b + column;
  for (int64_t p = 0; p < g.depth; ++p) {
    VecF row[N];
#pragma GCC unroll 4
    for (int u = 0; u < N; ++u) row[u] = load(b + u * kWidth);
#pragma GCC unroll 6
    for (int i = 0; i < R; ++i) {
      const VecF value = splat(a[i * g.a_row]);
#pragma GCC unroll 4
      for (int u = 0; u < N; ++u) sums[i][u] += value * row[u];
    }
    a += g.a_step;
    b += g.ldb;
  }
#pragma GCC unroll 6
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int u = 0; u < N; ++u) store(g.c + i * g.ldc + column + u * kWidth, sums[i][u]);
}

template <int R>
static void product_rows(const Product& g) {
  int64_t column = 0;
  for (; column + kPanel * kWidth <= g.columns; column += kPanel * kWidth)
    product_panel<R, kPanel>(g, column);
  for (; column + 2 * kWidth <= g.columns; column += 2 * kWidth) product_panel<R, 2>(g, column);
  if (column < g.columns) product_panel<R, 1>(g, column);
}

static void product(const Product& g, int64_t rows) {
  switch (rows) {
    case 6:
      return product_rows<6>(g);
    case 5:
      return product_rows<5>(g);
    case 4:
      return product_rows<4>(g);
    case 3:
      return product_rows<3>(g);
    case 2:
      return product_rows<2>(g);
    default:
      return product_rows<1>(g);
  }
}

// Any number of rows.
static void product_all(Product g, int64_t rows) {
  for (int64_t i = 0; i < rows; i += kRows) {
    product(g, rows - i < kRows ? rows - i : kRows);
    g.a += kRows * g.a_row;
    g.c += kRows * g.ldc;
    if (g.row_scales != nullptr) g.row_scales += kRows;
  }
}

// Copies `count` rows as floats; the columns up to `width` and the rows up to kKeys become zero.
static void copy_block(const HeadRows& rows, int64_t first, int64_t count, int64_t head_dim,
                       int64_t width, float* out) {
  for (int64_t t = 0; t < kKeys; ++t) {
    float* to = out + t * width;
    int64_t j = 0;
    if (t < count) {
      expand_row(rows, first + t, head_dim, to);
      j = head_dim;
    }
    for (; j < width; ++j) to[j] = 0.0f;
  }
}

// The same with rows as columns; `row`: head_dim floats.
static void transpose_block(const HeadRows& rows, int64_t first, int64_t count, int64_t head_dim,
                            float* row, float* out) {
  for (int64_t t = 0; t < kKeys; ++t) {
    if (t >= count) {
      for (int64_t j = 0; j < head_dim; ++j) out[j * kKeys + t] = 0.0f;
      continue;
    }
    const float* from = row;
    if (rows.type == DType::kF32)
      from = static_cast<const float*>(rows.base) + row_offset(rows, first + t);
    else
      expand_row(rows, first + t, head_dim, row);
    for (int64_t j = 0; j < head_dim; ++j) out[j * kKeys + t] = from[j];
  }
}

// The parts of a tile's scratch.
struct TileMemory {
  float* q;       // [rows, width], scaled
  float* out;     // [rows, width]
  float* keys;    // [head_dim, kKeys]
  float* values;  // [kKeys, width]
  float* scores;  // [kRows, kKeys]
  float* high;    // [rows] largest score so far
  float* total;   // [rows] sum of exponentials so far
};

static int64_t float_tile_floats(int64_t rows, int64_t head_dim) {
  return 2 * rows * padded(head_dim) + head_dim * kKeys + kKeys * padded(head_dim) + kRows * kKeys +
         2 * rows;
}

static TileMemory tile_memory(const AttentionTile& tile, int64_t rows, int64_t width) {
  TileMemory at{};
  at.q = tile.scratch;
  at.out = at.q + rows * width;
  at.keys = at.out + rows * width;
  at.values = at.keys + tile.head_dim * kKeys;
  at.scores = at.values + kKeys * width;
  at.high = at.scores + kRows * kKeys;
  at.total = at.high + rows;
  return at;
}

// Turns one row of scores into weights e^(s − high); returns what the earlier sums must be
// multiplied by.
static inline float soften(float* scores, int64_t seen, int64_t columns, float& high,
                           float& total) {
  for (int64_t t = seen; t < columns; ++t) scores[t] = -__builtin_inff();
  VecF best = load(scores);
  for (int64_t t = kWidth; t < columns; t += kWidth) best = larger(best, load(scores + t));
  const float block = max_lanes(best);
  const float next = block > high ? block : high;
  VecF sums{};
  for (int64_t t = 0; t < columns; t += kWidth) {
    const VecF weight = exp_of(load(scores + t) - next);
    store(scores + t, weight);
    sums += weight;
  }
  const float keep = high == next ? 1.0f : exp_of(high - next);
  high = next;
  total = total * keep + sum_lanes(sums);
  return keep;
}

// Rows [row, row + count) of the tile against keys [first, first + kKeys).
static void attend_rows(const AttentionTile& tile, const TileMemory& at, int64_t row, int64_t count,
                        int64_t first, int64_t width) {
  const int64_t visible = tile.first_keys + (row + count - 1) / tile.group - first;
  if (visible <= 0) return;
  const int64_t columns = padded(visible < kKeys ? visible : kKeys);
  product({.a = at.q + row * width,
           .a_row = width,
           .a_step = 1,
           .b = at.keys,
           .ldb = kKeys,
           .c = at.scores,
           .ldc = kKeys,
           .depth = tile.head_dim,
           .columns = columns,
           .row_scales = nullptr},
          count);
  float keep[kRows];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t limit = tile.first_keys + (row + i) / tile.group - first;
    const int64_t seen = limit < 0 ? 0 : limit < columns ? limit : columns;
    if (seen == 0) {
      for (int64_t t = 0; t < columns; ++t) at.scores[i * kKeys + t] = 0.0f;
      keep[i] = 1.0f;
      continue;
    }
    keep[i] = soften(at.scores + i * kKeys, seen, columns, at.high[row + i], at.total[row + i]);
  }
  product({.a = at.scores,
           .a_row = kKeys,
           .a_step = 1,
           .b = at.values,
           .ldb = width,
           .c = at.out + row * width,
           .ldc = width,
           .depth = visible < kKeys ? visible : kKeys,
           .columns = width,
           .row_scales = keep},
          count);
}

static void attention_float_tile(const AttentionTile& tile) {
  const int64_t d = tile.head_dim;
  const int64_t rows = tile.tokens * tile.group;
  const int64_t width = padded(d);
  const TileMemory at = tile_memory(tile, rows, width);
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = tile.q + r / tile.group * tile.token_stride + r % tile.group * d;
    for (int64_t j = 0; j < width; ++j) {
      at.q[r * width + j] = j < d ? from[j] * tile.scale : 0.0f;
      at.out[r * width + j] = 0.0f;
    }
    at.high[r] = -__builtin_inff();
    at.total[r] = 0.0f;
  }
  const int64_t keys = tile.first_keys + tile.tokens - 1;
  for (int64_t first = 0; first < keys; first += kKeys) {
    const int64_t count = keys - first < kKeys ? keys - first : kKeys;
    transpose_block(tile.keys, first, count, d, at.values, at.keys);
    copy_block(tile.values, first, count, d, width, at.values);
    for (int64_t row = 0; row < rows; row += kRows)
      attend_rows(tile, at, row, rows - row < kRows ? rows - row : kRows, first, width);
  }
  for (int64_t r = 0; r < rows; ++r) {
    float* to = tile.y + r / tile.group * tile.token_stride + r % tile.group * d;
    for (int64_t j = 0; j < d; ++j) to[j] = at.out[r * width + j] / at.total[r];
    if (tile.log_sum != nullptr)
      tile.log_sum[r % tile.group * tile.log_sum_stride + r / tile.group] = static_cast<float>(
          static_cast<double>(at.high[r]) + __builtin_log(static_cast<double>(at.total[r])));
  }
}
