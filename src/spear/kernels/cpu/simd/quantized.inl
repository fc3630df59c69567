// Packed codes to floats, and dot products with them in place. 4 and 8 bits have vector code for
// whole registers of columns; every other width, and the ends of rows, go code by code.

static inline float zero_of(const QuantizedView& w, int64_t index) {
  switch (w.zero_kind) {
    case ZeroKind::kNone:
      return static_cast<float>(1 << (w.bits - 1));
    case ZeroKind::kU4:
      return static_cast<float>(static_cast<const uint8_t*>(w.zeros)[index / 2] >> (index % 2 * 4) &
                                15);
    case ZeroKind::kU8:
      return static_cast<float>(static_cast<const uint8_t*>(w.zeros)[index]) / 16.0f;
    case ZeroKind::kF16:
      return float_of_f16(static_cast<const uint16_t*>(w.zeros)[index]);
  }
  return 0.0f;
}

static inline float code_of(const uint8_t* row, int32_t bits, int64_t j) {
  const int64_t first = j * bits;
  uint32_t window = row[first / 8];
  if (first % 8 + bits > 8) window |= static_cast<uint32_t>(row[first / 8 + 1]) << 8;
  return static_cast<float>(window >> (first % 8) & ((1u << bits) - 1u));
}

typedef int64_t VecPairs __attribute__((vector_size(4 * kWidth)));

// kWidth codes from column j, a multiple of kWidth, not yet masked: the code is in the low 4 bits.
static inline VecI four_bit_words(const uint8_t* row, int64_t j) {
  const VecI lanes = lane_numbers();
  VecI words{};
  if constexpr (kWidth == 16) {
    int64_t pair =
        0;  // not copied into a vector in memory: reading it back would wait for the store
    __builtin_memcpy(&pair, row + j / 2, 8);
    words = shuffle(reinterpret_cast<VecI>(VecPairs{pair}), lanes >> 3);
  } else if constexpr (kWidth == 8) {
    int32_t word = 0;
    __builtin_memcpy(&word, row + j / 2, 4);
    words = splat(word);
  } else {
    uint16_t word = 0;
    __builtin_memcpy(&word, row + j / 2, 2);
    words = splat(static_cast<int32_t>(word));
  }
  return words >> ((lanes * 4) & 31);
}

// table[code] for the 16 codes; AVX-512 looks all 16 up in one instruction and needs no mask.
static inline VecF look_up(VecF table, VecI words) {
  if constexpr (kWidth == 16) return shuffle(table, words);
  return to_float(words & 15);
}

typedef uint8_t VecBytes __attribute__((vector_size(kWidth)));
static inline VecF eight_bit_codes(const uint8_t* row, int64_t j) {
  VecBytes bytes;
  __builtin_memcpy(&bytes, row + j, kWidth);
  return to_float(__builtin_convertvector(bytes, VecI));
}

template <int Bits>
static inline VecF codes_of(const uint8_t* row, int64_t j) {
  if constexpr (Bits == 4) return to_float(four_bit_words(row, j) & 15);
  return eight_bit_codes(row, j);
}

// Vector code needs groups (and rows) that begin at a register's first column.
static inline bool vectorises(const QuantizedView& w) {
  return (w.bits == 4 || w.bits == 8) && (w.groups() == 1 || w.group % kWidth == 0);
}

template <int Bits>
static void dequantize_group(const uint8_t* codes, int64_t begin, int64_t end, float zero,
                             float scale, float* out) {
  int64_t j = begin;
  if constexpr (Bits != 0) {
    for (; j + kWidth <= end; j += kWidth)
      store(out + j, (codes_of<Bits>(codes, j) - zero) * scale);
    for (; j < end; ++j) out[j] = (code_of(codes, Bits, j) - zero) * scale;
  }
}

static void dequantize_row(const QuantizedView& w, int64_t row, float* out) {
  const uint8_t* codes = w.codes + static_cast<size_t>(row) * w.row_bytes();
  const int64_t groups = w.groups();
  const int64_t group = w.k / groups;
  const bool vector = vectorises(w);
  for (int64_t g = 0; g < groups; ++g) {
    const float zero = zero_of(w, row * groups + g);
    const float scale = float_of_f16(w.scales[row * groups + g]);
    const int64_t begin = g * group;
    const int64_t end = begin + group;
    if (vector && w.bits == 4) {
      dequantize_group<4>(codes, begin, end, zero, scale, out);
    } else if (vector) {
      dequantize_group<8>(codes, begin, end, zero, scale, out);
    } else {
      for (int64_t j = begin; j < end; ++j) out[j] = (code_of(codes, w.bits, j) - zero) * scale;
    }
  }
}

static void dequantize_range(const QuantizedView& w, int64_t begin, int64_t end, float* out) {
  for (int64_t row = begin; row < end; ++row) dequantize_row(w, row, out + (row - begin) * w.k);
}

static void to_bf16_range(const float* x, uint16_t* y, int64_t count) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    const VecHalf half = __builtin_convertvector(bf16_of(load(x + i)), VecHalf);
    __builtin_memcpy(y + i, &half, sizeof(half));
  }
  for (; i < count; ++i) y[i] = bf16_of(x[i]);
}

// Where one instruction looks up 16 codes, a group's 16 values are rounded once and the codes pick
// among them.
static void dequantize_row_by_table(const QuantizedView& w, int64_t row, uint16_t* out) {
  const uint8_t* codes = w.codes + static_cast<size_t>(row) * w.row_bytes();
  const int64_t groups = w.groups();
  const int64_t group = w.k / groups;
  for (int64_t g = 0; g < groups; ++g) {
    const float zero = zero_of(w, row * groups + g);
    const float scale = float_of_f16(w.scales[row * groups + g]);
    const VecI table = bf16_of((to_float(lane_numbers()) - zero) * scale);
    int64_t j = g * group;
    const int64_t end = j + group;
    for (; j + kWidth <= end; j += kWidth) {
      const VecI picked = shuffle(table, four_bit_words(codes, j));
      const VecHalf half = __builtin_convertvector(picked, VecHalf);
      __builtin_memcpy(out + j, &half, sizeof(half));
    }
    for (; j < end; ++j) out[j] = bf16_of((code_of(codes, 4, j) - zero) * scale);
  }
}

static void dequantize_bf16_range(const QuantizedView& w, int64_t begin, int64_t end, uint16_t* out,
                                  float* scratch) {
  for (int64_t row = begin; row < end; ++row) {
    uint16_t* to = out + (row - begin) * w.k;
    if (kWidth == 16 && w.bits == 4 && vectorises(w)) {
      dequantize_row_by_table(w, row, to);
      continue;
    }
    dequantize_row(w, row, scratch);
    to_bf16_range(scratch, to, w.k);
  }
}

// --- A few tokens -------------------------------------------------------------------------------
// 4-bit codes come in blocks of 8 · kWidth columns: lane L of a register of code words holds
// columns 8 L .. 8 L + 7, and a shift by 4 s brings column 8 L + s to the low bits of every lane.
// The tokens' x is laid out to match, once a call:
//   block b, step s, lane L:  x[b · 8 · kWidth + 8 L + s],  zero beyond k.
// The zero points come in at the end, from the sums of x: Σ s (q − z) x = s (Σ q x − z Σ x).

static constexpr int64_t kBlockColumns = 8 * kWidth;

static int64_t packed_columns(const QuantizedView& w) {
  return (w.k + kBlockColumns - 1) / kBlockColumns * kBlockColumns;
}

// Whether the block kernel can run: a group is whole blocks, or whole lanes of a block.
static bool blocks_fit(const QuantizedView& w) {
  if (w.bits != 4) return false;
  if (w.groups() == 1) return true;
  return w.group % kBlockColumns == 0 || (w.group % 8 == 0 && kBlockColumns % w.group == 0);
}

static void pack_tokens(const QuantizedView& w, int64_t m, const float* x, float* packed) {
  const int64_t columns = packed_columns(w);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t in_block = j % kBlockColumns;
      const int64_t column = j - in_block + in_block % kWidth * 8 + in_block / kWidth;
      packed[i * columns + j] = column < w.k ? x[i * w.k + column] : 0.0f;
    }
  }
}

// Chains of additions a token: enough to hide an addition's latency.
template <int M>
constexpr int kChains = M == 1   ? 4
                        : M <= 3 ? 2
                                 : 1;

template <int M>
static inline __attribute__((always_inline)) void add_block(VecI words, const float* x,
                                                            int64_t stride,
                                                            VecF (&sums)[M][kChains<M>]) {
  const VecF table = to_float(lane_numbers());
#pragma GCC unroll 8
  for (int s = 0; s < 8; ++s) {
    const VecF code = look_up(table, words >> (4 * s));
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) sums[i][s % kChains<M>] += code * load(x + i * stride + s * kWidth);
  }
}

// Words of the block at `block`; of the last one only what the row has.
static inline VecI block_words(const QuantizedView& w, const uint8_t* codes, int64_t block) {
  const int64_t left = static_cast<int64_t>(w.row_bytes()) - block * 4 * kWidth;
  VecI words{};
  if (left >= 4 * kWidth) {
    __builtin_memcpy(&words, codes + block * 4 * kWidth, 4 * kWidth);
  } else {
    __builtin_memcpy(&words, codes + block * 4 * kWidth, static_cast<size_t>(left));
  }
  return words;
}

template <int M>
static inline __attribute__((always_inline)) VecF chains_total(const VecF (&sums)[M][kChains<M>],
                                                               int i) {
  VecF total = sums[i][0];
#pragma GCC unroll 4
  for (int c = 1; c < kChains<M>; ++c) total += sums[i][c];
  return total;
}

// The scales of up to kGroupsAtOnce groups of a row; entries beyond are zero.
static constexpr int64_t kGroupsAtOnce = 64;
static inline void expand_scales(const uint16_t* halves, int64_t count, float* scales) {
  if (count == 1) {
    scales[0] = float_of_f16(halves[0]);
    return;
  }
  int64_t g = 0;
  for (; g + kWidth <= count; g += kWidth) store(scales + g, halves_to_floats(halves + g));
  uint16_t rest[kWidth] = {};
  for (int64_t i = g; i < count; ++i) rest[i - g] = halves[i];
  store(scales + g, halves_to_floats(rest));
}

// Adds scale · Σ q x of the groups [first, first + count) of a row to the lanes of `totals`.
template <int M>
static inline __attribute__((always_inline)) void add_groups(const QuantizedRows& a,
                                                             const uint8_t* codes, int64_t first,
                                                             int64_t count, const float* scales,
                                                             VecF (&totals)[M]) {
  const QuantizedView& w = a.w;
  const int64_t columns = packed_columns(w);
  if (w.groups() == 1 || w.group >= kBlockColumns) {
    const int64_t blocks = w.groups() == 1 ? columns / kBlockColumns : w.group / kBlockColumns;
    for (int64_t g = 0; g < count; ++g) {
      VecF sums[M][kChains<M>] = {};
      for (int64_t b = (first + g) * blocks; b < (first + g + 1) * blocks; ++b)
        add_block<M>(block_words(w, codes, b), a.packed + b * kBlockColumns, columns, sums);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) totals[i] += chains_total<M>(sums, i) * scales[g];
    }
    return;
  }
  // Several groups share a block: each lane has the scale of its own.
  const int32_t lanes_each = w.group / 8;
  const int64_t groups_a_block = kWidth / lanes_each;
  const VecI pick = lane_numbers() / splat(lanes_each);
  for (int64_t g = 0; g < count; g += groups_a_block) {
    const int64_t b = (first + g) / groups_a_block;
    VecF sums[M][kChains<M>] = {};
    add_block<M>(block_words(w, codes, b), a.packed + b * kBlockColumns, columns, sums);
    const VecF lanes = shuffle(load(scales + g), pick);
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) totals[i] += chains_total<M>(sums, i) * lanes;
  }
}

template <int M>
static void block_rows_for(const QuantizedRows& a, int64_t begin, int64_t end) {
  const QuantizedView& w = a.w;
  const int64_t groups = w.groups();
  for (int64_t row = begin; row < end; ++row) {
    const uint8_t* codes = w.codes + static_cast<size_t>(row) * w.row_bytes();
    VecF totals[M] = {};
    float zeros[M] = {};
    for (int64_t first = 0; first < groups; first += kGroupsAtOnce) {
      const int64_t count = groups - first < kGroupsAtOnce ? groups - first : kGroupsAtOnce;
      float scales[kGroupsAtOnce + kWidth];
      expand_scales(w.scales + row * groups + first, count, scales);
      add_groups<M>(a, codes, first, count, scales, totals);
      for (int64_t g = 0; g < count; ++g) {
        const float product = zero_of(w, row * groups + first + g) * scales[g];
        for (int i = 0; i < M; ++i) zeros[i] += product * a.sums[i * groups + first + g];
      }
    }
    for (int i = 0; i < M; ++i) a.y[i * w.n + row] = sum_lanes(totals[i]) - zeros[i];
  }
}

// Σ code · x over columns [begin, end) for M tokens that lie `stride` apart.
template <int Bits, int M>
static inline void dot_group(const uint8_t* codes, int64_t begin, int64_t end, const float* x,
                             int64_t stride, float* dots) {
  VecF sums[M][kChains<M>] = {};
  int64_t j = begin;
  for (; j + kChains<M> * kWidth <= end; j += kChains<M> * kWidth) {
#pragma GCC unroll 4
    for (int c = 0; c < kChains<M>; ++c) {
      const VecF code = codes_of<Bits>(codes, j + c * kWidth);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) sums[i][c] += code * load(x + i * stride + j + c * kWidth);
    }
  }
  for (; j + kWidth <= end; j += kWidth) {
    const VecF code = codes_of<Bits>(codes, j);
#pragma GCC unroll 4
    for (int i = 0; i < M; ++i) sums[i][0] += code * load(x + i * stride + j);
  }
#pragma GCC unroll 4
  for (int i = 0; i < M; ++i) dots[i] = sum_lanes(chains_total<M>(sums, i));
  for (; j < end; ++j) {
    const float code = code_of(codes, Bits, j);
    for (int i = 0; i < M; ++i) dots[i] += code * x[i * stride + j];
  }
}

static void dot_group_any(const uint8_t* codes, int32_t bits, int64_t begin, int64_t end,
                          const float* x, int64_t stride, int64_t m, float* dots) {
  for (int64_t i = 0; i < m; ++i) dots[i] = 0.0f;
  for (int64_t j = begin; j < end; ++j) {
    const float code = code_of(codes, bits, j);
    for (int64_t i = 0; i < m; ++i) dots[i] += code * x[i * stride + j];
  }
}

template <int M>
static void quantized_rows_for(const QuantizedRows& a, int64_t begin, int64_t end) {
  const QuantizedView& w = a.w;
  const int64_t groups = w.groups();
  const int64_t group = w.k / groups;
  const bool vector = vectorises(w);
  for (int64_t row = begin; row < end; ++row) {
    const uint8_t* codes = w.codes + static_cast<size_t>(row) * w.row_bytes();
    float sums[M] = {};
    for (int64_t g = 0; g < groups; ++g) {
      float dots[M];
      const int64_t first = g * group;
      if (vector && w.bits == 4) {
        dot_group<4, M>(codes, first, first + group, a.x, w.k, dots);
      } else if (vector) {
        dot_group<8, M>(codes, first, first + group, a.x, w.k, dots);
      } else {
        dot_group_any(codes, w.bits, first, first + group, a.x, w.k, M, dots);
      }
      const float zero = zero_of(w, row * groups + g);
      const float scale = float_of_f16(w.scales[row * groups + g]);
      for (int i = 0; i < M; ++i) sums[i] += scale * (dots[i] - zero * a.sums[i * groups + g]);
    }
    for (int i = 0; i < M; ++i) a.y[i * w.n + row] = sums[i];
  }
}

template <int M>
static void few_rows_for(const QuantizedRows& a, int64_t begin, int64_t end) {
  if (blocks_fit(a.w)) return block_rows_for<M>(a, begin, end);
  quantized_rows_for<M>(a, begin, end);
}

static void quantized_rows_range(const QuantizedRows& a, int64_t begin, int64_t end) {
  switch (a.m) {
    case 1:
      return few_rows_for<1>(a, begin, end);
    case 2:
      return few_rows_for<2>(a, begin, end);
    case 3:
      return few_rows_for<3>(a, begin, end);
    default:
      return few_rows_for<4>(a, begin, end);
  }
}
