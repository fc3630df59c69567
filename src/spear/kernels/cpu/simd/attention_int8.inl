// Attention over INT8 keys and values in integers: queries and weights become 16 bits (one scale a
// row, and a chunk or block), and one instruction multiplies pairs: of head_dim for scores, of
// tokens for values. Codes are stored so that a register holds such pairs of consecutive tokens
// (or columns) and nothing is transposed or summed across lanes. Sums are exact: at most 512
// products of 15 by 7 bits.

static constexpr int64_t kKeyBlock = 16;  // tokens whose keys are interleaved
static constexpr float kShortMost = 32767.0f;

// Codes of a row and its scale, largest / 32767.
static float to_shorts(const float* x, int64_t count, int16_t* out) {
  VecF most{};
  int64_t j = 0;
  for (; j + kWidth <= count; j += kWidth) most = larger(magnitude_of(load(x + j)), most);
  float largest = max_lanes(most);
  for (; j < count; ++j) {
    const float magnitude = __builtin_fabsf(x[j]);
    largest = magnitude > largest ? magnitude : largest;
  }
  const float inverse = largest > 0.0f && largest <= kMostFloat ? kShortMost / largest : 0.0f;
  const VecF round = splat(kRoundToInteger);
  for (j = 0; j + kWidth <= count; j += kWidth)
    store_shorts(out + j, as_int(load(x + j) * inverse + round) - as_int(round));
  if (j < count) {
    const VecF x_end = load_part(x + j, count - j, 0.0f);
    const VecI codes = as_int(x_end * inverse + round) - as_int(round);
    for (int64_t i = 0; j + i < count; ++i) out[j + i] = static_cast<int16_t>(codes[i]);
  }
  return largest / kShortMost;
}

// The same of a query, spread as keys are.
static float query_to_shorts(const float* q, int64_t head_dim, int16_t* out) {
  float spread[kMostCodeColumns];
  __builtin_memcpy(spread, q, static_cast<size_t>(head_dim) * sizeof(float));
  spread_columns(spread, head_dim);
  return to_shorts(spread, head_dim, out);
}

static inline VecI pair_at(const int16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof(pair));
  return splat(pair);
}

// scores[Q, B · kWidth] of tokens [t, t + B · kWidth) of a run; q: [Q, head_dim] codes.
template <int Q, int B>
static inline void score_tokens(const int8_t* keys, int64_t t, int64_t head_dim, const int16_t* q,
                                const float* q_scales, float* scores, int64_t stride) {
  const int8_t* from[B];
  VecI sums[Q][B] = {};
#pragma GCC unroll 2
  for (int u = 0; u < B; ++u) {
    const int64_t token = t + u * kWidth;
    from[u] = keys + token / kKeyBlock * kKeyBlock * head_dim + token % kKeyBlock * 2;
  }
  for (int64_t j = 0; j < head_dim; j += 2) {
    VecI key[B];
#pragma GCC unroll 2
    for (int u = 0; u < B; ++u) key[u] = load_pairs(from[u] + j * kKeyBlock);
#pragma GCC unroll 8
    for (int i = 0; i < Q; ++i) {
      const VecI query = pair_at(q + i * head_dim + j);
#pragma GCC unroll 2
      for (int u = 0; u < B; ++u) sums[i][u] = dot_pairs(sums[i][u], query, key[u]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < Q; ++i)
#pragma GCC unroll 2
    for (int u = 0; u < B; ++u)
      store(scores + i * stride + t + u * kWidth, to_float(sums[i][u]) * q_scales[i]);
}

// Scores of a run that begins at a block of keys; whole registers are written.
template <int Q>
static void score_codes(const int8_t* keys, int64_t count, int64_t head_dim, const int16_t* q,
                        const float* q_scales, float* scores, int64_t stride, const Ahead& ahead) {
  int64_t t = 0;
  for (; t + kWidth < count; t += 2 * kWidth) {
    ask_for(ahead.values, head_dim, t, 2 * kWidth);
    const int64_t later = t + 2 * kKeyBlock;
    if (later < count)
      ask_for(reinterpret_cast<const char*>(keys), head_dim, later, 2 * kWidth);
    else
      ask_for(ahead.next_keys, head_dim, later - count, 2 * kWidth);
    score_tokens<Q, 2>(keys, t, head_dim, q, q_scales, scores, stride);
  }
  if (t < count) score_tokens<Q, 1>(keys, t, head_dim, q, q_scales, scores, stride);
}

// sums[Q, N registers at column j] += weights[Q, count] · values; weights come in pairs.
template <int Q, int N, bool kPart>
static void weigh_codes_panel(const int8_t* values, int64_t count, int64_t head_dim, int64_t j,
                              const int16_t* weights, int64_t stride, int32_t* out, int64_t width) {
  VecI sums[Q][N];
#pragma GCC unroll 8
  for (int i = 0; i < Q; ++i)
#pragma GCC unroll 4
    for (int u = 0; u < N; ++u) sums[i][u] = load(out + i * width + j + u * kWidth);
  const int8_t* row = values + 2 * j;
  for (int64_t t = 0; t < count; t += 2) {
    VecI value[N];
#pragma GCC unroll 4
    for (int u = 0; u < N; ++u) {
      if constexpr (kPart) {
        int8_t lanes[2 * kWidth] = {};
        __builtin_memcpy(lanes, row, static_cast<size_t>(2 * (head_dim - j)));
        value[u] = load_pairs(lanes);
      } else {
        value[u] = load_pairs(row + 2 * u * kWidth);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < Q; ++i) {
      const VecI weight = pair_at(weights + i * stride + t);
#pragma GCC unroll 4
      for (int u = 0; u < N; ++u) sums[i][u] = dot_pairs(sums[i][u], weight, value[u]);
    }
    row += 2 * head_dim;
  }
#pragma GCC unroll 8
  for (int i = 0; i < Q; ++i)
#pragma GCC unroll 4
    for (int u = 0; u < N; ++u) store(out + i * width + j + u * kWidth, sums[i][u]);
}

template <int Q>
static void weigh_codes(const int8_t* values, int64_t count, int64_t head_dim,
                        const int16_t* weights, int64_t stride, int32_t* out, int64_t width) {
  constexpr int kColumns = Q > 4 ? 2 : kWidth == 16 ? 4 : Q > 2 ? 2 : 4;
  int64_t j = 0;
  for (; j + kColumns * kWidth <= head_dim; j += kColumns * kWidth)
    weigh_codes_panel<Q, kColumns, false>(values, count, head_dim, j, weights, stride, out, width);
  for (; j + kWidth <= head_dim; j += kWidth)
    weigh_codes_panel<Q, 1, false>(values, count, head_dim, j, weights, stride, out, width);
  if (j < head_dim)
    weigh_codes_panel<Q, 1, true>(values, count, head_dim, j, weights, stride, out, width);
}

// Calls body(std-like constant Q, first query) for all queries, as many at once as registers hold.
template <int Q>
struct Queries {
  static constexpr int kCount = Q;
};
template <class Body>
static inline void each_queries(int64_t queries, Body body) {
  constexpr int kMost = kWidth == 16 ? 8 : 4;
  for (int64_t i = 0; i < queries; i += kMost) {
    const int64_t rest = queries - i;
    if (rest == 1)
      body(Queries<1>{}, i);
    else if (rest == 2)
      body(Queries<2>{}, i);
    else if (rest == 3)
      body(Queries<3>{}, i);
    else if (rest == 4 || kMost == 4)
      body(Queries<4>{}, i);
    else if (rest == 5)
      body(Queries<5>{}, i);
    else if (rest == 6)
      body(Queries<6>{}, i);
    else if (rest == 7)
      body(Queries<7>{}, i);
    else
      body(Queries<8>{}, i);
  }
}

// The parts of a chunk's scratch, in floats' units.
struct CodeMemory {
  float* scores;     // [queries, columns]
  float* scales;     // [queries] of q, then of the weights
  int32_t* sums;     // [queries, width]
  int16_t* q;        // [queries, head_dim]
  int16_t* weights;  // [queries, columns]
};
static int64_t code_chunk_floats(int64_t queries, int64_t head_dim) {
  return queries * (kMostChunkKeys + kKeyBlock + 1 + padded(head_dim) + (head_dim + 1) / 2 +
                    (kMostChunkKeys + kKeyBlock) / 2) +
         kWidth;
}
static CodeMemory code_memory(float* scratch, int64_t queries, int64_t head_dim, int64_t columns) {
  CodeMemory at{};
  at.scores = scratch;
  at.scales = at.scores + queries * columns;
  at.sums = reinterpret_cast<int32_t*>(at.scales + queries);
  at.q = reinterpret_cast<int16_t*>(at.sums + queries * padded(head_dim));
  at.weights = at.q + queries * head_dim;
  return at;
}

static void attend_code_chunk(const AttentionChunk& a) {
  const int64_t d = a.head_dim;
  const int64_t width = padded(d);
  const int64_t queries = a.rows * a.group;
  const int64_t columns = (a.count + kKeyBlock - 1) / kKeyBlock * kKeyBlock;
  const CodeMemory at = code_memory(a.scratch, queries, d, columns);
  for (int64_t i = 0; i < queries; ++i)
    at.scales[i] = a.scale * query_to_shorts(a.q + i / a.group * a.token_stride + i % a.group * d,
                                             d, at.q + i * d);
  const auto* keys = static_cast<const int8_t*>(a.keys.base);
  const auto* values = static_cast<const int8_t*>(a.values.base);
  // Of the run that holds token t: blocks begin at multiples of 16 of a page.
  const auto run_at = [&](const int8_t* base, const HeadRows& rows, int64_t t) {
    return base + row_offset(rows, t);
  };
  each_run(a.keys, a.first, a.count, [&](int64_t t, int64_t run) {
    const bool last = t + run == a.count;
    const Ahead ahead{
        .values = reinterpret_cast<const char*>(run_at(values, a.values, a.first + t)),
        .next_keys = last ? nullptr
                          : reinterpret_cast<const char*>(run_at(keys, a.keys, a.first + t + run))};
    each_queries(queries, [&](auto count, int64_t i) {
      score_codes<decltype(count)::kCount>(run_at(keys, a.keys, a.first + t), run, d, at.q + i * d,
                                           at.scales + i, at.scores + i * columns + t, columns,
                                           ahead);
    });
    multiply_scales(a.keys, a.first + t, run, queries, at.scores + t, columns);
  });
  const int64_t stride = partial_floats(d);
  for (int64_t i = 0; i < queries; ++i) {
    float* row = at.scores + i * columns;
    float* out = a.partial + i * stride;
    float high = -__builtin_inff();
    float total = 0.0f;
    const int64_t limit = a.context + i / a.group + 1 - a.first;
    const int64_t seen = limit < 0 ? 0 : limit < a.count ? limit : a.count;
    if (seen > 0)
      (void)soften(row, seen, columns, high, total);
    else
      for (int64_t t = 0; t < columns; ++t) row[t] = 0.0f;
    out[width] = high;
    out[width + 1] = total;
    for (int64_t j = 0; j < width; ++j) at.sums[i * width + j] = 0;
  }
  each_run(a.values, a.first, a.count, [&](int64_t t, int64_t run) {
    multiply_scales(a.values, a.first + t, run, queries, at.scores + t, columns);
  });
  for (int64_t i = 0; i < queries; ++i)
    at.scales[i] = to_shorts(at.scores + i * columns, columns, at.weights + i * columns);
  ask_for(static_cast<const char*>(a.next), d, 0, 2 * kKeyBlock);
  each_run(a.values, a.first, a.count, [&](int64_t t, int64_t run) {
    each_queries(queries, [&](auto count, int64_t i) {
      weigh_codes<decltype(count)::kCount>(run_at(values, a.values, a.first + t), run, d,
                                           at.weights + i * columns + t, columns,
                                           at.sums + i * width, width);
    });
  });
  for (int64_t i = 0; i < queries; ++i)
    for (int64_t j = 0; j < width; j += kWidth)
      store(a.partial + i * stride + j, to_float(load(at.sums + i * width + j)) * at.scales[i]);
}
