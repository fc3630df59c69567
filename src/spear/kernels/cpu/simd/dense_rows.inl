// Dot products of up to four rows x with rows of a dense matrix, in floats or BF16: each row of the
// matrix is read once.

static inline VecF widened(const float* p) {
  return load(p);
}
static inline VecF widened(const uint16_t* p) {
  VecHalf half;
  __builtin_memcpy(&half, p, sizeof(half));
  return as_float(__builtin_convertvector(half, VecI) << 16);
}
static inline float widened_one(const float* p) {
  return *p;
}
static inline float widened_one(const uint16_t* p) {
  const uint32_t bits = static_cast<uint32_t>(*p) << 16;
  float value = 0;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

template <int M, class T>
static void dense_rows_for(const DenseRows& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T* w = static_cast<const T*>(a.w) + row * a.stride;
    VecF sums[M][kChains<M>] = {};
    int64_t j = 0;
    for (; j + kChains<M> * kWidth <= a.k; j += kChains<M> * kWidth) {
#pragma GCC unroll 4
      for (int c = 0; c < kChains<M>; ++c) {
        const VecF value = widened(w + j + c * kWidth);
#pragma GCC unroll 4
        for (int i = 0; i < M; ++i) sums[i][c] += value * load(a.x + i * a.k + j + c * kWidth);
      }
    }
    for (; j + kWidth <= a.k; j += kWidth) {
      const VecF value = widened(w + j);
#pragma GCC unroll 4
      for (int i = 0; i < M; ++i) sums[i][0] += value * load(a.x + i * a.k + j);
    }
    for (int i = 0; i < M; ++i) {
      float sum = sum_lanes(chains_total<M>(sums, i));
      for (int64_t p = j; p < a.k; ++p) sum += widened_one(w + p) * a.x[i * a.k + p];
      float& y = a.y[i * a.y_stride + row];
      y = a.beta == 0.0f ? a.alpha * sum : a.alpha * sum + a.beta * y;
    }
  }
}

template <class T>
static void dense_rows_of(const DenseRows& a, int64_t begin, int64_t end) {
  switch (a.m) {
    case 1:
      return dense_rows_for<1, T>(a, begin, end);
    case 2:
      return dense_rows_for<2, T>(a, begin, end);
    case 3:
      return dense_rows_for<3, T>(a, begin, end);
    default:
      return dense_rows_for<4, T>(a, begin, end);
  }
}

static void dense_rows_range(const DenseRows& a, int64_t begin, int64_t end) {
  if (a.bf16) return dense_rows_of<uint16_t>(a, begin, end);
  dense_rows_of<float>(a, begin, end);
}
