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

// kWidth codes from column j, a multiple of kWidth.
static inline VecF four_bit_codes(const uint8_t* row, int64_t j) {
  VecI words;
  if constexpr (kWidth == 16) {
    int32_t pair[2];
    __builtin_memcpy(pair, row + j / 2, 8);
    for (int i = 0; i < kWidth; ++i) words[i] = pair[i / 8];
  } else if constexpr (kWidth == 8) {
    int32_t word;
    __builtin_memcpy(&word, row + j / 2, 4);
    words = splat(word);
  } else {
    uint16_t word;
    __builtin_memcpy(&word, row + j / 2, 2);
    words = splat(static_cast<int32_t>(word));
  }
  return to_float(words >> (lane_numbers() * 4 & 31) & 15);
}

typedef uint8_t VecBytes __attribute__((vector_size(kWidth)));
static inline VecF eight_bit_codes(const uint8_t* row, int64_t j) {
  VecBytes bytes;
  __builtin_memcpy(&bytes, row + j, kWidth);
  return to_float(__builtin_convertvector(bytes, VecI));
}

template <int Bits>
static inline VecF codes_of(const uint8_t* row, int64_t j) {
  if constexpr (Bits == 4) return four_bit_codes(row, j);
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
  for (int64_t i = 0; i < count; ++i) y[i] = bf16_of(x[i]);
}

static void dequantize_bf16_range(const QuantizedView& w, int64_t begin, int64_t end, uint16_t* out,
                                  float* scratch) {
  for (int64_t row = begin; row < end; ++row) {
    dequantize_row(w, row, scratch);
    to_bf16_range(scratch, out + (row - begin) * w.k, w.k);
  }
}

// Σ code · x over columns [begin, end) for M tokens that lie `stride` apart.
template <int Bits, int M>
static inline void dot_group(const uint8_t* codes, int64_t begin, int64_t end, const float* x,
                             int64_t stride, float* dots) {
  VecF sums[M] = {};
  int64_t j = begin;
  for (; j + kWidth <= end; j += kWidth) {
    const VecF code = codes_of<Bits>(codes, j);
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) sums[i] += code * load(x + i * stride + j);
  }
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) dots[i] = sum_lanes(sums[i]);
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

static void quantized_rows_range(const QuantizedRows& a, int64_t begin, int64_t end) {
  switch (a.m) {
    case 1:
      return quantized_rows_for<1>(a, begin, end);
    case 2:
      return quantized_rows_for<2>(a, begin, end);
    case 3:
      return quantized_rows_for<3>(a, begin, end);
    case 4:
      return quantized_rows_for<4>(a, begin, end);
    case 5:
      return quantized_rows_for<5>(a, begin, end);
    case 6:
      return quantized_rows_for<6>(a, begin, end);
    case 7:
      return quantized_rows_for<7>(a, begin, end);
    default:
      return quantized_rows_for<8>(a, begin, end);
  }
}
