// The tile of attention.inl over INT8 keys and values: the same walk, with products of 16-bit pairs
// (attention_int8.inl). A block of codes is widened once and serves every row of the tile.

struct CodeProduct {
  const int16_t* a;  // [rows, a_row]: pairs along the depth
  int64_t a_row;
  const int32_t* b;  // [depth, ldb] pairs, whole registers
  int64_t ldb;
  float* c;  // [rows, ldc]
  int64_t ldc;
  int64_t depth, columns;      // depth in pairs
  const float* row_scales;     // [rows]
  const float* column_scales;  // [columns] or null
  const float* keep;           // [rows]: c = c · keep + product; null: c is written
};

template <int R, int N>
static inline void code_panel(const CodeProduct& g, int64_t column) {
  VecI sums[R][N] = {};
  const int16_t* a = g.a;
  const int32_t* b = g.b + column;
  for (int64_t p = 0; p < g.depth; ++p) {
    VecI row[N];
#pragma GCC unroll 4
    for (int u = 0; u < N; ++u) row[u] = load(b + u * kWidth);
#pragma GCC unroll 6
    for (int i = 0; i < R; ++i) {
      const VecI pair = pair_at(a + i * g.a_row);
#pragma GCC unroll 4
      for (int u = 0; u < N; ++u) sums[i][u] = dot_pairs(sums[i][u], pair, row[u]);
    }
    a += 2;
    b += g.ldb;
  }
#pragma GCC unroll 6
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int u = 0; u < N; ++u) {
      float* c = g.c + i * g.ldc + column + u * kWidth;
      VecF value = to_float(sums[i][u]) * g.row_scales[i];
      if (g.column_scales != nullptr) value *= load(g.column_scales + column + u * kWidth);
      store(c, g.keep == nullptr ? value : load(c) * g.keep[i] + value);
    }
}

template <int R>
static void code_rows(const CodeProduct& g) {
  int64_t column = 0;
  for (; column + kPanel * kWidth <= g.columns; column += kPanel * kWidth)
    code_panel<R, kPanel>(g, column);
  for (; column + 2 * kWidth <= g.columns; column += 2 * kWidth) code_panel<R, 2>(g, column);
  if (column < g.columns) code_panel<R, 1>(g, column);
}

static void code_product(const CodeProduct& g, int64_t rows) {
  switch (rows) {
    case 6:
      return code_rows<6>(g);
    case 5:
      return code_rows<5>(g);
    case 4:
      return code_rows<4>(g);
    case 3:
      return code_rows<3>(g);
    case 2:
      return code_rows<2>(g);
    default:
      return code_rows<1>(g);
  }
}

// The parts of a tile's scratch.
struct CodeTile {
  float* out;           // [rows, width]
  float* high;          // [rows]
  float* total;         // [rows]
  float* q_scales;      // [rows]
  float* scores;        // [kRows, kKeys]
  float* key_scales;    // [kKeys], zero beyond the block's keys; so are value_scales
  float* value_scales;  // [kKeys]
  int32_t* keys;        // [head_dim / 2, kKeys] pairs
  int32_t* values;      // [kKeys / 2, width] pairs
  int16_t* weights;     // [kRows, kKeys]
  int16_t* q;           // [rows, head_dim]
};

static int64_t code_tile_floats(int64_t rows, int64_t head_dim) {
  const int64_t width = padded(head_dim);
  return rows * width + 3 * rows + kRows * kKeys + 2 * kKeys + head_dim / 2 * kKeys +
         kKeys / 2 * width + kRows * kKeys / 2 + (rows * head_dim + 1) / 2 + kWidth;
}
static CodeTile code_tile(float* scratch, int64_t rows, int64_t head_dim, int64_t width) {
  CodeTile at{};
  at.out = scratch;
  at.high = at.out + rows * width;
  at.total = at.high + rows;
  at.q_scales = at.total + rows;
  at.scores = at.q_scales + rows;
  at.key_scales = at.scores + kRows * kKeys;
  at.value_scales = at.key_scales + kKeys;
  at.keys = reinterpret_cast<int32_t*>(at.value_scales + kKeys);
  at.values = at.keys + head_dim / 2 * kKeys;
  at.weights = reinterpret_cast<int16_t*>(at.values + kKeys / 2 * width);
  at.q = at.weights + kRows * kKeys;
  return at;
}

// Keys [first, first + count) of a block, widened, with their scales.
static void widen_keys(const HeadRows& rows, int64_t first, int64_t count, int64_t head_dim,
                       const CodeTile& at) {
  for (int64_t t = 0; t < kKeys; t += kKeyBlock) {
    const int8_t* from =
        t < count ? static_cast<const int8_t*>(rows.base) + row_offset(rows, first + t) : nullptr;
    for (int64_t p = 0; p < head_dim / 2; ++p)
      for (int64_t u = 0; u < kKeyBlock; u += kWidth)
        store(at.keys + p * kKeys + t + u,
              from == nullptr ? VecI{} : load_pairs(from + 2 * (p * kKeyBlock + u)));
  }
  for (int64_t t = 0; t < kKeys; ++t)
    at.key_scales[t] = t < count ? *run_scales(rows, first + t) : 0.0f;
}

static void widen_values(const HeadRows& rows, int64_t first, int64_t count, int64_t head_dim,
                         int64_t width, const CodeTile& at) {
  for (int64_t t = 0; t < count; t += 2) {
    const int8_t* from = static_cast<const int8_t*>(rows.base) + row_offset(rows, first + t);
    int32_t* to = at.values + t / 2 * width;
    int64_t j = 0;
    for (; j + kWidth <= head_dim; j += kWidth) store(to + j, load_pairs(from + 2 * j));
    if (j == head_dim) continue;
    int8_t lanes[2 * kWidth] = {};
    __builtin_memcpy(lanes, from + 2 * j, static_cast<size_t>(2 * (head_dim - j)));
    store(to + j, load_pairs(lanes));
  }
  for (int64_t t = 0; t < kKeys; ++t)
    at.value_scales[t] = t < count ? *run_scales(rows, first + t) : 0.0f;
}

// Rows [row, row + count) of the tile against keys [first, first + kKeys).
static void attend_code_rows(const AttentionTile& tile, const CodeTile& at, int64_t row,
                             int64_t count, int64_t first, int64_t width) {
  const int64_t visible = tile.first_keys + (row + count - 1) / tile.group - first;
  if (visible <= 0) return;
  const int64_t columns = padded(visible < kKeys ? visible : kKeys);
  code_product({.a = at.q + row * tile.head_dim,
                .a_row = tile.head_dim,
                .b = at.keys,
                .ldb = kKeys,
                .c = at.scores,
                .ldc = kKeys,
                .depth = tile.head_dim / 2,
                .columns = columns,
                .row_scales = at.q_scales + row,
                .column_scales = at.key_scales,
                .keep = nullptr},
               count);
  float keep[kRows];
  float scales[kRows];
  for (int64_t i = 0; i < count; ++i) {
    float* scores = at.scores + i * kKeys;
    const int64_t limit = tile.first_keys + (row + i) / tile.group - first;
    const int64_t seen = limit < 0 ? 0 : limit < columns ? limit : columns;
    keep[i] = 1.0f;
    if (seen == 0)
      for (int64_t t = 0; t < columns; ++t) scores[t] = 0.0f;
    else
      keep[i] = soften(scores, seen, columns, at.high[row + i], at.total[row + i]);
    for (int64_t t = 0; t < columns; t += kWidth)
      store(scores + t, load(scores + t) * load(at.value_scales + t));
    scales[i] = to_shorts(scores, columns, at.weights + i * kKeys);
  }
  code_product({.a = at.weights,
                .a_row = kKeys,
                .b = at.values,
                .ldb = width,
                .c = at.out + row * width,
                .ldc = width,
                .depth = ((visible < kKeys ? visible : kKeys) + 1) / 2,
                .columns = width,
                .row_scales = scales,
                .column_scales = nullptr,
                .keep = keep},
               count);
}

static void attention_code_tile(const AttentionTile& tile) {
  const int64_t d = tile.head_dim;
  const int64_t rows = tile.tokens * tile.group;
  const int64_t width = padded(d);
  const CodeTile at = code_tile(tile.scratch, rows, d, width);
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = tile.q + r / tile.group * tile.token_stride + r % tile.group * d;
    at.q_scales[r] = tile.scale * query_to_shorts(from, d, at.q + r * d);
    for (int64_t j = 0; j < width; ++j) at.out[r * width + j] = 0.0f;
    at.high[r] = -__builtin_inff();
    at.total[r] = 0.0f;
  }
  const int64_t keys = tile.first_keys + tile.tokens - 1;
  for (int64_t first = 0; first < keys; first += kKeys) {
    const int64_t count = keys - first < kKeys ? keys - first : kKeys;
    widen_keys(tile.keys, first, count, d, at);
    widen_values(tile.values, first, count, d, width, at);
    for (int64_t row = 0; row < rows; row += kRows)
      attend_code_rows(tile, at, row, rows - row < kRows ? rows - row : kRows, first, width);
  }
  for (int64_t r = 0; r < rows; ++r) {
    float* to = tile.y + r / tile.group * tile.token_stride + r % tile.group * d;
    for (int64_t j = 0; j < d; ++j) to[j] = at.out[r * width + j] / at.total[r];
  }
}
