// A panel against a tile of tokens: integer sums by the instruction set's own code (sums_of), then
// scales, zero points, the compensator's B, bias and the epilogue. Vectors are the compiler's.

static constexpr int kVectors = kPanelRows / kWidth;   // of a panel
static constexpr int kHalf = kPanelRows / 2 / kWidth;  // of one of its halves

// What a panel holds beside its codes, unpacked once for all tokens.
struct PanelEnd {
  VecF scale[kVectors], zero[kVectors];  // zero: multiplied by the scale
  alignas(64) int16_t b[2 * 16 * kLargestPackedRank];
  const float* bias;
  int64_t valid;  // output rows of the panel that exist
  bool waiting;   // for PanelWork::ready
};

static inline void load_scales(const PackedPart& part, const uint8_t* tail, VecF* scale,
                               VecF* zero) {
  const auto* halves = reinterpret_cast<const uint16_t*>(tail);
  const float shift = part.bits == 8 ? kCodeShift8 : 0.0f;
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) {
    scale[i] = halves_to_floats(halves + i * kWidth);
    zero[i] = (halves_to_floats(halves + kPanelRows + i * kWidth) - shift) * scale[i];
  }
}

static inline void prepare_end(const PackedPart& part, const uint8_t* panel, int64_t index,
                               PanelEnd& end) {
  if (part.per_channel) load_scales(part, panel + part.group_code_bytes, end.scale, end.zero);
  const auto* b = reinterpret_cast<const int8_t*>(panel + part.factor_offset);
  const int32_t count = 16 * (part.ranks[0] + part.ranks[1]);
  for (int32_t i = 0; i < count; ++i) end.b[i] = b[i];
  end.bias = part.bias ? reinterpret_cast<const float*>(panel + part.bias_offset) : nullptr;
  const int64_t per = part.rows_per_panel;
  const int64_t left = part.n - index * per;
  end.valid = left < per ? left : per;
}

static inline VecF silu_of(VecF x) {
  return x / (1.0f + exp_of(-x));
}

static inline void put(float* y, VecF value, int64_t count, bool add) {
  if (count >= kWidth) {
    store(y, add ? load(y) + value : value);
    return;
  }
  for (int64_t i = 0; i < count; ++i) y[i] = add ? y[i] + value[i] : value[i];
}

// α B (γ(u) ⊙ u) of N tokens, to `added` [N, 32]; false where the panel has no compensator. Tokens
// share the reading of B, which is as much as the products themselves.
template <int N>
static inline bool rank_products(const PanelWork& w, const PanelEnd& end, int64_t token,
                                 float* added) {
  if (w.part.ranks[0] + w.part.ranks[1] == 0) return false;
  constexpr int kGroup = N % 4 == 0 ? 4 : (N % 2 == 0 ? 2 : 1);
  const int16_t* b = end.b;
  for (int half = 0; half < 2; ++half) {
    const int32_t rank = w.part.ranks[half];
    for (int first = 0; first < N; first += kGroup) {
      const int16_t* z =
          w.tokens.ranks + (token + first) * w.tokens.rank_stride + w.rank_offset[half];
      VecI c[kGroup][kHalf] = {};
      for (int32_t r = 0; r < rank; r += 2) {
#pragma GCC unroll 4
        for (int t = 0; t < kGroup; ++t) {
          int32_t pair;
          __builtin_memcpy(&pair, z + t * w.tokens.rank_stride + r, 4);
#pragma GCC unroll 4
          for (int i = 0; i < kHalf; ++i)
            c[t][i] = add_pairs(c[t][i], b + 16 * r + 2 * i * kWidth, pair);
        }
      }
#pragma GCC unroll 4
      for (int t = 0; t < kGroup; ++t) {
        const int64_t of = (token + first + t) * w.tokens.modules + w.module[half];
        const float scale = rank == 0 ? 0.0f : w.tokens.rank_scales[of];
#pragma GCC unroll 4
        for (int i = 0; i < kHalf; ++i)
          store(added + (first + t) * kPanelRows + (half * kHalf + i) * kWidth,
                to_float(c[t][i]) * scale);
      }
    }
    b += 16 * rank;
  }
  return true;
}

// Everything after the sums of one token: `values` are Σ x q per row, scaled where weights have
// groups; `added`: what the compensator adds, or null.
template <bool GROUPED>
static inline void finish_token(const PanelWork& w, const PanelEnd& end, int64_t panel,
                                int64_t token, const float* values, const float* added) {
  VecF v[kVectors];
  const float total = w.tokens.totals[token];
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) {
    const VecF sum = load(values + i * kWidth);
    v[i] = GROUPED ? sum : sum * end.scale[i] - end.zero[i] * total;
  }
  if (added != nullptr)
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) v[i] += load(added + i * kWidth);
  if (end.bias != nullptr)
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) v[i] += load(end.bias + i * kWidth);

  float* y = w.y + token * w.y_stride + panel * w.part.rows_per_panel;
  if (w.epilogue == Epilogue::kSiluMul) {
#pragma GCC unroll 4
    for (int i = 0; i < kHalf; ++i)
      put(y + i * kWidth, silu_of(v[i]) * v[kHalf + i], end.valid - i * kWidth, false);
    return;
  }
  const bool add = w.epilogue == Epilogue::kAdd;
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) put(y + i * kWidth, v[i], end.valid - i * kWidth, add);
}

// T rows of codes are T / D tokens. Sums run over pieces of columns: those that share an activation
// scale, and with groups those that share a weight's scale as well.
template <int BITS, bool GROUPED, int D, int T>
static void panel_tile(const PanelWork& w, const uint8_t* panel, int64_t index, int64_t token,
                       bool first, PanelEnd& end) {
  const InputShape& in = w.input;
  const PackedPart& part = w.part;
  constexpr int kTokens = T / D;
  alignas(64) int32_t sums[T * kPanelRows];
  alignas(64) float values[kTokens * kPanelRows] = {};
  const int32_t blocks = pieces(in.columns, in.block);
  const int32_t piece = GROUPED ? in.segment : (blocks == 1 ? part.columns : in.block);
  const int8_t* x = w.tokens.codes + token * D * in.columns;
  const float* scales = w.tokens.scales + token * D * blocks;
  int32_t from = 0;
  int32_t s = 0;
  do {
    const int32_t count = part.columns - from < piece ? part.columns - from : piece;
    const int32_t group = GROUPED ? from / part.group : 0;
    const uint8_t* codes =
        panel + group * part.group_bytes + (from - group * part.group) * (4 * BITS);
    sums_of<BITS, T>(codes, x + from, in.columns, count, first, sums);
    const float* scale = scales + (blocks == 1 ? 0 : from / in.block);
    VecF weight[kVectors], zero[kVectors];
    if (GROUPED)
      load_scales(part, panel + group * part.group_bytes + part.group_code_bytes, weight, zero);
    for (int t = 0; t < kTokens; ++t) {
      const float sum =
          GROUPED ? w.tokens.sums[(token + t) * pieces(in.columns, in.segment) + s] : 0.0f;
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i) {
        float* value = values + t * kPanelRows + i * kWidth;
        VecF v =
            to_float(load_ints(sums + t * D * kPanelRows + i * kWidth)) * scale[t * D * blocks];
        if (D == 2)
          v += to_float(load_ints(sums + (t * D + 1) * kPanelRows + i * kWidth)) *
               scale[(t * D + 1) * blocks];
        if (GROUPED) v = v * weight[i] - zero[i] * sum;
        store(value, v + load(value));
      }
    }
    from += piece;
    ++s;
  } while (from < part.columns);
  if (first) {
    if (end.waiting) w.ready(w.context);
    end.waiting = false;
    const int64_t tail = part.per_channel ? part.group_code_bytes : part.factor_offset;
    ask_ahead(panel + tail, part.panel_bytes - tail);
    prepare_end(part, panel, index, end);
  }
  alignas(64) float added[kTokens * kPanelRows];
  const bool compensated = rank_products<kTokens>(w, end, token, added);
  for (int t = 0; t < kTokens; ++t)
    finish_token<GROUPED>(w, end, index, token + t, values + t * kPanelRows,
                          compensated ? added + t * kPanelRows : nullptr);
}

template <int BITS, bool GROUPED, int D, int T>
static inline void tiles(const PanelWork& w, const uint8_t* panel, int64_t index, int64_t end_token,
                         int64_t& token, bool& first, PanelEnd& end) {
  if constexpr (T <= kMostRows && T % D == 0) {
    for (; token + T / D <= end_token; token += T / D, first = false)
      panel_tile<BITS, GROUPED, D, T>(w, panel, index, token, first, end);
  }
}

template <int BITS, bool GROUPED, int D>
static void panels_of(const PanelWork& w, const uint8_t* stream, int64_t first_panel, int64_t count,
                      int64_t begin, int64_t end_token) {
  PanelEnd end;
  end.waiting = w.ready != nullptr;
  for (int64_t index = first_panel; index < first_panel + count; ++index) {
    bool first = true;
    int64_t token = begin;
    tiles<BITS, GROUPED, D, 12>(w, stream, index, end_token, token, first, end);
    tiles<BITS, GROUPED, D, 8>(w, stream, index, end_token, token, first, end);
    tiles<BITS, GROUPED, D, 4>(w, stream, index, end_token, token, first, end);
    tiles<BITS, GROUPED, D, 2>(w, stream, index, end_token, token, first, end);
    tiles<BITS, GROUPED, D, 1>(w, stream, index, end_token, token, first, end);
    stream += w.part.panel_bytes;
  }
}

static void run_panels(const PanelWork& w, const uint8_t* stream, int64_t first, int64_t count,
                       int64_t begin, int64_t end) {
  const bool grouped = !w.part.per_channel;
  const bool two = w.input.digits == 2;
  const auto choose = [&](auto one_digit, auto two_digits) { return two ? two_digits : one_digit; };
  auto* const run = w.part.bits == 4
                        ? (grouped ? choose(panels_of<4, true, 1>, panels_of<4, true, 2>)
                                   : choose(panels_of<4, false, 1>, panels_of<4, false, 2>))
                        : (grouped ? choose(panels_of<8, true, 1>, panels_of<8, true, 2>)
                                   : choose(panels_of<8, false, 1>, panels_of<8, false, 2>));
  run(w, stream, first, count, begin, end);
}
