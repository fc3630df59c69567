// Attention of a few query rows over a run of keys that may be long: keys and values are read where
// they lie, once for every query that shares them, and nothing is transposed.
//
//   scores: 4 keys × up to kQueries queries, each pair one register of partial sums over head_dim;
//           a small tree of shuffles then makes 4 sums of every query
//   values: up to kValueQueries queries × kValueColumns registers of columns, held over all keys
//
// A chunk is self-contained (its own maximum and sum), so that a result depends on where chunks end
// and on nothing else; merge_chunks() folds them in order.

static constexpr int kQueries = kWidth == 16 ? 4 : 2;

// Within each 128 bits: [a0 + a1, a2 + a3, b0 + b1, b2 + b3].
static inline VecF add_neighbours(VecF a, VecF b) {
  VecI even;
  for (int i = 0; i < kWidth; ++i) even[i] = i / 4 * 4 + i % 2 * 2 + (i % 4 >= 2 ? kWidth : 0);
  return shuffle(a, b, even) + shuffle(a, b, even + 1);
}

// Sums of 4 registers as 4 lanes, still apart in each 128 bits.
static inline VecF fold_keys(const VecF* sums) {
  return add_neighbours(add_neighbours(sums[0], sums[1]), add_neighbours(sums[2], sums[3]));
}

// Adds the upper half of each register to its lower half: [a, b].
static inline VecF fold_halves(VecF a, VecF b) {
  VecI low;
  for (int i = 0; i < kWidth; ++i) low[i] = i % (kWidth / 2) + (i < kWidth / 2 ? 0 : kWidth);
  return shuffle(a, b, low) + shuffle(a, b, low + kWidth / 2);
}
// The same with the odd and even 128 bits of each register: 16 lanes only.
static inline VecF fold_quarters(VecF a, VecF b) {
  VecI even;
  for (int i = 0; i < kWidth; ++i) even[i] = i % 4 + i / 4 % 2 * 8 + (i < kWidth / 2 ? 0 : kWidth);
  return shuffle(a, b, even) + shuffle(a, b, even + 4);
}

// scores[i, 0 .. 3] of 4 keys, head_dim apart. q: [Q, width], zero beyond head_dim.
template <int Q, class T>
static inline void score_four(const T* keys, int64_t head_dim, const float* q, int64_t width,
                              float* scores, int64_t stride) {
  VecF sums[Q][4] = {};
  const auto step = [&](int64_t j, auto take) __attribute__((always_inline)) {
    VecF key[4];
#pragma GCC unroll 4
    for (int t = 0; t < 4; ++t) key[t] = take(keys + t * head_dim + j);
#pragma GCC unroll 4
    for (int i = 0; i < Q; ++i) {
      const VecF query = load(q + i * width + j);
#pragma GCC unroll 4
      for (int t = 0; t < 4; ++t) sums[i][t] += query * key[t];
    }
  };
  int64_t j = 0;
  for (; j + kWidth <= head_dim; j += kWidth) step(j, [](const T* p) { return load_kv(p); });
  if (j < head_dim) step(j, [&](const T* p) { return load_kv_part(p, head_dim - j); });
  VecF folded[4] = {};
#pragma GCC unroll 4
  for (int i = 0; i < Q; ++i) folded[i] = fold_keys(sums[i]);
  float lanes[4 * kWidth];
  if constexpr (kWidth == 16) {
    store(lanes,
          fold_quarters(fold_halves(folded[0], folded[1]), fold_halves(folded[2], folded[3])));
  } else if constexpr (kWidth == 8) {
    store(lanes, fold_halves(folded[0], folded[1]));
  } else {
    for (int i = 0; i < Q; ++i) store(lanes + 4 * i, folded[i]);
  }
  for (int i = 0; i < Q; ++i) __builtin_memcpy(scores + i * stride, lanes + 4 * i, 16);
}

template <class T>
static inline float score_one(const T* key, int64_t head_dim, const float* q) {
  VecF sum{};
  int64_t j = 0;
  for (; j + kWidth <= head_dim; j += kWidth) sum += load(q + j) * load_kv(key + j);
  if (j < head_dim) sum += load(q + j) * load_kv_part(key + j, head_dim - j);
  return sum_lanes(sum);
}

// Asks for rows [row, row + rows) of a run that begins at `p`, or nowhere.
static inline void ask_for(const char* p, int64_t row_bytes, int64_t row, int64_t rows) {
  if (p == nullptr) return;
  for (int64_t at = row * row_bytes; at < (row + rows) * row_bytes; at += 64)
    __builtin_prefetch(p + at, 0, 2);
}

// What to ask for while a run of keys is read: its values, and keys kAheadRows further on, which
// may lie in the next run. A page's rows of one head are too short for the processor to find out.
struct Ahead {
  const char* values = nullptr;
  const char* next_keys = nullptr;
};
static constexpr int64_t kAheadRows = 16;

// scores[queries, count] of a run of keys that lie one after another.
template <class T>
static void score_run(const T* keys, int64_t count, int64_t head_dim, const float* q,
                      int64_t queries, int64_t width, float* scores, int64_t stride, Ahead ahead) {
  const auto row_bytes = head_dim * static_cast<int64_t>(sizeof(T));
  int64_t t = 0;
  for (; t + 4 <= count; t += 4) {
    const T* four = keys + t * head_dim;
    ask_for(ahead.values, row_bytes, t, 4);
    const int64_t later = t + kAheadRows;
    if (later < count)
      ask_for(reinterpret_cast<const char*>(keys), row_bytes, later, 4);
    else
      ask_for(ahead.next_keys, row_bytes, later - count, 4);
    int64_t i = 0;
    for (; i + kQueries <= queries; i += kQueries)
      score_four<kQueries>(four, head_dim, q + i * width, width, scores + i * stride + t, stride);
    if constexpr (kQueries == 4) {
      if (queries - i == 3)
        score_four<3>(four, head_dim, q + i * width, width, scores + i * stride + t, stride);
      if (queries - i == 2)
        score_four<2>(four, head_dim, q + i * width, width, scores + i * stride + t, stride);
    }
    if (queries - i == 1)
      score_four<1>(four, head_dim, q + i * width, width, scores + i * stride + t, stride);
  }
  for (; t < count; ++t)
    for (int64_t i = 0; i < queries; ++i)
      scores[i * stride + t] = score_one(keys + t * head_dim, head_dim, q + i * width);
}

// out[Q, N registers at column j] += weights[Q, count] · values[count, head_dim].
template <int Q, int N, bool kPart, class T>
static void weigh_panel(const T* values, int64_t count, int64_t head_dim, int64_t j,
                        const float* weights, int64_t stride, float* out, int64_t width) {
  VecF sums[Q][N];
#pragma GCC unroll 8
  for (int i = 0; i < Q; ++i)
#pragma GCC unroll 4
    for (int u = 0; u < N; ++u) sums[i][u] = load(out + i * width + j + u * kWidth);
  const T* row = values + j;
  for (int64_t t = 0; t < count; ++t) {
    VecF value[N];
#pragma GCC unroll 4
    for (int u = 0; u < N; ++u)
      value[u] = kPart ? load_kv_part(row, head_dim - j) : load_kv(row + u * kWidth);
#pragma GCC unroll 8
    for (int i = 0; i < Q; ++i) {
      const VecF weight = splat(weights[i * stride + t]);
#pragma GCC unroll 4
      for (int u = 0; u < N; ++u) sums[i][u] += weight * value[u];
    }
    row += head_dim;
  }
#pragma GCC unroll 8
  for (int i = 0; i < Q; ++i)
#pragma GCC unroll 4
    for (int u = 0; u < N; ++u) store(out + i * width + j + u * kWidth, sums[i][u]);
}

template <int Q, class T>
static void weigh_columns(const T* values, int64_t count, int64_t head_dim, const float* weights,
                          int64_t stride, float* out, int64_t width) {
  constexpr int kColumns = Q > 4 ? 2 : kWidth == 16 ? 4 : Q > 2 ? 2 : 4;
  int64_t j = 0;
  for (; j + kColumns * kWidth <= head_dim; j += kColumns * kWidth)
    weigh_panel<Q, kColumns, false>(values, count, head_dim, j, weights, stride, out, width);
  for (; j + kWidth <= head_dim; j += kWidth)
    weigh_panel<Q, 1, false>(values, count, head_dim, j, weights, stride, out, width);
  if (j < head_dim)
    weigh_panel<Q, 1, true>(values, count, head_dim, j, weights, stride, out, width);
}

template <class T>
static void weigh_run(const T* values, int64_t count, int64_t head_dim, const float* weights,
                      int64_t stride, int64_t queries, float* out, int64_t width) {
  constexpr int kMost = kWidth == 16 ? 8 : 4;
  for (int64_t i = 0; i < queries; i += kMost) {
    const float* w = weights + i * stride;
    float* o = out + i * width;
    switch (queries - i < kMost ? queries - i : kMost) {
      case 1:
        weigh_columns<1>(values, count, head_dim, w, stride, o, width);
        break;
      case 2:
        weigh_columns<2>(values, count, head_dim, w, stride, o, width);
        break;
      case 3:
        weigh_columns<3>(values, count, head_dim, w, stride, o, width);
        break;
      case 4:
        weigh_columns<4>(values, count, head_dim, w, stride, o, width);
        break;
      default:
        if constexpr (kMost == 8) {
          if (queries - i == 5) weigh_columns<5>(values, count, head_dim, w, stride, o, width);
          if (queries - i == 6) weigh_columns<6>(values, count, head_dim, w, stride, o, width);
          if (queries - i == 7) weigh_columns<7>(values, count, head_dim, w, stride, o, width);
          if (queries - i >= 8) weigh_columns<8>(values, count, head_dim, w, stride, o, width);
        }
    }
  }
}

// Keys [first, first + count) of a sequence in runs that lie one after another in memory.
template <class Body>
static inline void each_run(const HeadRows& rows, int64_t first, int64_t count, Body body) {
  for (int64_t t = 0; t < count;) {
    const int64_t in_page = rows.page_size - (first + t) % rows.page_size;
    const int64_t run = count - t < in_page ? count - t : in_page;
    body(t, run);
    t += run;
  }
}

static inline const float* run_scales(const HeadRows& rows, int64_t t) {
  return rows.scales + rows.pages[t / rows.page_size] * rows.scale_stride + t % rows.page_size;
}
static void multiply_scales(const HeadRows& rows, int64_t first, int64_t run, int64_t queries,
                            float* scores, int64_t stride) {
  const float* scales = run_scales(rows, first);
  for (int64_t i = 0; i < queries; ++i) {
    float* row = scores + i * stride;
    int64_t t = 0;
    for (; t + kWidth <= run; t += kWidth) store(row + t, load(row + t) * load(scales + t));
    for (; t < run; ++t) row[t] *= scales[t];
  }
}

// A partial result of a query: [width] weighted values, then the maximum and the sum.
static inline int64_t partial_floats(int64_t head_dim) {
  return padded(head_dim) + kWidth;
}

static int64_t float_chunk_floats(int64_t queries, int64_t head_dim) {
  return queries * (padded(head_dim) + kMostChunkKeys + kWidth);
}

template <class T>
static void attend_chunk(const AttentionChunk& a) {
  const int64_t d = a.head_dim;
  const int64_t width = padded(d);
  const int64_t queries = a.rows * a.group;
  const int64_t columns = padded(a.count);
  float* q = a.scratch;
  float* scores = q + queries * width;
  for (int64_t i = 0; i < queries; ++i) {
    const float* from = a.q + i / a.group * a.token_stride + i % a.group * d;
    for (int64_t j = 0; j < width; ++j) q[i * width + j] = j < d ? from[j] * a.scale : 0.0f;
  }
  const auto* keys = static_cast<const T*>(a.keys.base);
  const auto* values = static_cast<const T*>(a.values.base);
  const auto at = [](const T* base, const HeadRows& rows, int64_t t) {
    return reinterpret_cast<const char*>(base + row_offset(rows, t));
  };
  each_run(a.keys, a.first, a.count, [&](int64_t t, int64_t run) {
    const bool last = t + run == a.count;
    score_run(keys + row_offset(a.keys, a.first + t), run, d, q, queries, width, scores + t,
              columns,
              {.values = at(values, a.values, a.first + t),
               .next_keys = last ? nullptr : at(keys, a.keys, a.first + t + run)});
  });
  const int64_t stride = partial_floats(d);
  for (int64_t i = 0; i < queries; ++i) {
    float* out = a.partial + i * stride;
    for (int64_t j = 0; j < width; ++j) out[j] = 0.0f;
    float high = -__builtin_inff();
    float total = 0.0f;
    const int64_t limit = a.context + i / a.group + 1 - a.first;
    const int64_t seen = limit < 0 ? 0 : limit < a.count ? limit : a.count;
    if (seen > 0)
      (void)soften(scores + i * columns, seen, columns, high, total);
    else
      for (int64_t t = 0; t < columns; ++t) scores[i * columns + t] = 0.0f;
    out[width] = high;
    out[width + 1] = total;
  }
  ask_for(static_cast<const char*>(a.next), d * static_cast<int64_t>(sizeof(T)), 0, kAheadRows);
  each_run(a.values, a.first, a.count, [&](int64_t t, int64_t run) {
    weigh_run(values + row_offset(a.values, a.first + t), run, d, scores + t, columns, queries,
              a.partial, stride);
  });
}
