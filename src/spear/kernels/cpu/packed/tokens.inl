// The loops around panels: rounding of activations, A x, the gate.

// Nearest integer of |v| < 2^22, ties to even.
static inline VecI nearest(VecF v) {
  const VecF magic = splat(12582912.0f);  // 1.5 · 2^23
  return as_int(v + magic) - as_int(magic);
}

static inline VecF absolute(VecF v) {
  return as_float(as_int(v) & 0x7fffffff);
}

static inline VecF input_at(const QuantizeArgs& a, const float* x, int32_t j) {
  if (j + kWidth <= a.shape.k) {
    const VecF v = load(x + j);
    return a.weight == nullptr ? v : v * load(a.weight + j);
  }
  const int64_t left = a.shape.k > j ? a.shape.k - j : 0;
  const VecF v = load_part(x + j, left, 0.0f);
  return a.weight == nullptr ? v : v * load_part(a.weight + j, left, 0.0f);
}

// 1 / rms of a token, and NaN where an element is not finite, so that a broken input shows.
static float input_scale(const QuantizeArgs& a, const float* x) {
  VecF squares{}, broken{};
  int32_t j = 0;
  for (; j + kWidth <= a.shape.k; j += kWidth) {
    const VecF v = load(x + j);
    squares += v * v;
    broken += v * 0.0f;
  }
  double sum = sum_lanes_double(squares);
  float bad = sum_lanes(broken);
  for (; j < a.shape.k; ++j) {
    sum += static_cast<double>(x[j]) * x[j];
    bad += x[j] * 0.0f;
  }
  if (!a.normalize) return 1.0f + bad;
  return bad + static_cast<float>(1.0 / __builtin_sqrt(sum / static_cast<double>(a.shape.k) +
                                                       static_cast<double>(a.eps)));
}

// Columns [from, to) of a token, which share a scale; returns the sums of both digits.
template <int D>
static void quantize_block(const QuantizeArgs& a, const float* x, int32_t from, int32_t to,
                           float factor, int8_t* codes, float* scales, int32_t* counts,
                           float* segments) {
  const InputShape& in = a.shape;
  VecF largest{};
  for (int32_t j = from; j < to; j += kWidth)
    largest = larger(largest, absolute(input_at(a, x, j)));
  const float high = max_lanes(largest);
  const float scale = high * factor * (1.0f / 127.0f);
  const float inverse = high > 0x1p-110f ? 127.0f / high : 0.0f;
  const int32_t blocks = pieces(in.columns, in.block);
  scales[0] = scale;
  if (D == 2) scales[blocks] = scale * (1.0f / 254.0f);
  const int32_t step = in.segment == 0 ? to - from : in.segment;
  int32_t total[2] = {0, 0};
  for (int32_t s = from; s < to; s += step, ++segments) {
    const int32_t end = s + step < to ? s + step : to;
    VecI high_sum{}, low_sum{};
    for (int32_t j = s; j < end; j += kWidth) {
      const VecF v = input_at(a, x, j) * inverse;
      const VecI code = nearest(v);
      store_bytes(codes + j, code);
      high_sum += code;
      if (D == 2) {
        const VecI low = nearest((v - to_float(code)) * 254.0f);
        store_bytes(codes + in.columns + j, low);
        low_sum += low;
      }
    }
    const int32_t first = sum_ints(high_sum);
    const int32_t second = D == 2 ? sum_ints(low_sum) : 0;
    total[0] += first;
    total[1] += second;
    *segments = static_cast<float>(first) * scale +
                (D == 2 ? static_cast<float>(second) * (scale * (1.0f / 254.0f)) : 0.0f);
  }
  counts[0] = total[0];
  if (D == 2) counts[blocks] = total[1];
}

// A token with elements that are not finite: no codes, and scales that make everything NaN.
static void spoil_token(const QuantizeArgs& a, int64_t token, float nan) {
  const InputShape& in = a.shape;
  const int64_t rows = in.digits;
  const int64_t blocks = pieces(in.columns, in.block);
  const int64_t segments = pieces(in.columns, in.segment);
  __builtin_memset(a.to.codes + token * rows * in.columns, 0,
                   static_cast<size_t>(rows * in.columns));
  for (int64_t i = token * rows * blocks; i < (token + 1) * rows * blocks; ++i) {
    a.to.scales[i] = nan;
    a.to.counts[i] = 0;
  }
  for (int64_t i = token * segments; i < (token + 1) * segments; ++i) a.to.sums[i] = nan;
  a.to.totals[token] = nan;
}

template <int D>
static void quantize_token(const QuantizeArgs& a, int64_t token) {
  const InputShape& in = a.shape;
  const float* x = a.x + token * a.x_stride;
  const float factor = input_scale(a, x);
  if (factor != factor) return spoil_token(a, token, factor);
  const int32_t blocks = pieces(in.columns, in.block);
  const int32_t segments = pieces(in.columns, in.segment);
  float alone[1];
  float total = 0;
  for (int32_t b = 0; b < blocks; ++b) {
    const int32_t from = b * in.block;
    const int32_t to = blocks == 1 || from + in.block > in.columns ? in.columns : from + in.block;
    float* sums = in.segment == 0 ? alone : a.to.sums + token * segments + from / in.segment;
    quantize_block<D>(a, x, from, to, factor, a.to.codes + token * D * in.columns,
                      a.to.scales + token * D * blocks + b, a.to.counts + token * D * blocks + b,
                      sums);
    const int32_t own = in.segment == 0 ? 1 : pieces(to - from, in.segment);
    for (int32_t s = 0; s < own; ++s) total += sums[s];
  }
  a.to.totals[token] = total;
}

static void quantize_tokens(const QuantizeArgs& a, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token)
    a.shape.digits == 2 ? quantize_token<2>(a, token) : quantize_token<1>(a, token);
}

// `R` <= 4 rows of A that take turns; adds each row's product with a token. The order of the sums,
// digits within blocks, is that of project_tile.
template <int R>
static inline void project_rows(const InputShape& in, const QuantizedTokens& tokens, int64_t token,
                                const uint8_t* packed, float* u) {
  const int32_t blocks = pieces(in.columns, in.block);
  for (int32_t b = 0; b < blocks; ++b) {
    const int32_t from = blocks == 1 ? 0 : b * in.block;
    const int32_t to = blocks == 1 || from + in.block > in.columns ? in.columns : from + in.block;
    for (int64_t row = token * in.digits; row < (token + 1) * in.digits; ++row) {
      int32_t sums[R];
      rank_sums<R>(packed, tokens.codes + row * in.columns + from, to - from, sums);
      const float scale = tokens.scales[row * blocks + b];
      const int32_t count = tokens.counts[row * blocks + b];
      for (int r = 0; r < R; ++r) u[r] += static_cast<float>(sums[r] - 128 * count) * scale;
    }
    packed += R * (to - from);
  }
}

static void project_token(const InputShape& in, const QuantizedTokens& tokens, int64_t token,
                          const uint8_t* packed, int64_t rows, float* u) {
  const auto* scales = reinterpret_cast<const float*>(packed + rows * in.columns);
  for (int64_t r = 0; r < rows; ++r) u[r] = 0.0f;
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) project_rows<4>(in, tokens, token, packed + r * in.columns, u + r);
  if (rows - r == 3) project_rows<3>(in, tokens, token, packed + r * in.columns, u + r);
  if (rows - r == 2) project_rows<2>(in, tokens, token, packed + r * in.columns, u + r);
  if (rows - r == 1) project_rows<1>(in, tokens, token, packed + r * in.columns, u + r);
  for (r = 0; r < rows; ++r) u[r] *= scales[r];
}

// The gates of T tokens, whose u stand kLargestPackedRank apart: weights are read once for all. A
// token's sums do not depend on T.
template <int T>
static void apply_gate(const GateWeights& g, float* u) {
  alignas(64) float hidden[T * kLargestPackedGate];
  const int32_t width = padded_gate(g.hidden);
  const int32_t rank = padded_gate(g.rank);
  for (int32_t i = 0; i < width; i += kWidth) {
    VecF sums[T];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) sums[t] = load(g.b1 + i);
    for (int32_t r = 0; r < g.rank; ++r) {
      const VecF w = load(g.w1 + r * width + i);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) sums[t] += w * u[t * kLargestPackedRank + r];
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) store(hidden + t * kLargestPackedGate + i, larger(sums[t], VecF{}));
  }
  for (int32_t r = 0; r < rank; r += kWidth) {
    VecF even[T], odd[T];  // two sums each: one alone would wait for itself
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      even[t] = load(g.b2 + r);
      odd[t] = VecF{};
    }
    const float* w2 = g.w2 + r;
    for (int32_t i = 0; i < g.hidden; i += 2, w2 += 2 * rank) {
      const VecF first = load(w2);
      // Without a partner, the hidden unit after the last one is 0.
      const VecF second = i + 1 < g.hidden ? load(w2 + rank) : VecF{};
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        const float* h = hidden + t * kLargestPackedGate + i;
        even[t] += first * h[0];
        odd[t] += second * h[1];
      }
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      // 1 + tanh(s) = 2 / (1 + exp(-2 s))
      const VecF opened = 2.0f / (1.0f + exp_of((even[t] + odd[t]) * -2.0f));
      float* gated = u + t * kLargestPackedRank + r;
      store(gated, load(gated) * opened);
    }
  }
}

typedef int16_t VecS __attribute__((vector_size(2 * kWidth)));

// One token's u, gated, through B's scales to int16; `width` elements, a multiple of kWidth.
static void round_ranks(const float* u, const float* b_scales, int32_t rank, int32_t width,
                        int16_t* out, float* scale) {
  alignas(64) int16_t codes[kLargestPackedRank];
  VecF largest{}, broken{};
  for (int32_t r = 0; r < width; r += kWidth) {
    const VecF v = load(u + r) * load(b_scales + r);
    broken += v * 0.0f;
    largest = larger(largest, absolute(v));
  }
  const float high = max_lanes(largest);
  const float inverse = high > 0x1p-110f ? 32767.0f / high : 0.0f;
  for (int32_t r = 0; r < width; r += kWidth) {
    const VecI code = nearest(load(u + r) * load(b_scales + r) * inverse);
    const VecS narrow = __builtin_convertvector(code, VecS);
    __builtin_memcpy(codes + r, &narrow, sizeof(narrow));
  }
  __builtin_memcpy(out, codes, static_cast<size_t>((rank + 1) / 2 * 4));
  *scale = high * (1.0f / 32767.0f) + sum_lanes(broken);
}

template <int T>
static void finish_tokens_ranks(const RankFinish& f, int64_t token) {
  alignas(64) float u[T * kLargestPackedRank];
  const int32_t width = padded_gate(f.rank);
  for (int t = 0; t < T; ++t) {
    const float* from = f.u + (token + t) * f.u_stride;
    float* to = u + t * kLargestPackedRank;
    for (int32_t r = 0; r < f.rank; ++r) to[r] = from[r];
    for (int32_t r = f.rank; r < width; ++r) to[r] = 0.0f;
  }
  if (f.gate.w1 != nullptr) apply_gate<T>(f.gate, u);
  for (int t = 0; t < T; ++t)
    round_ranks(u + t * kLargestPackedRank, f.b_scales, f.rank, width,
                f.out + (token + t) * f.out_stride, f.scales + (token + t) * f.scale_stride);
}

static void finish_ranks(const RankFinish& f, int64_t begin, int64_t end) {
  int64_t token = begin;
  for (; token + 4 <= end; token += 4) finish_tokens_ranks<4>(f, token);
  for (; token < end; ++token) finish_tokens_ranks<1>(f, token);
}
