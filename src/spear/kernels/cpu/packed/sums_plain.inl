// Integer sums in plain C++: what the others are compared with, and what runs on processors without
// either set.

static constexpr float kCodeShift8 = 0.0f;
static constexpr int kMostRows = 4;

static inline void ask_ahead(const uint8_t*, int64_t) {}

// out[t][32] = Σ code · x over `columns` columns (a multiple of 32) of T rows of x.
template <int BITS, int T>
static inline void sums_of(const uint8_t* w, const int8_t* x, int64_t stride, int64_t columns, bool,
                           int32_t* out) {
  for (int i = 0; i < T * kPanelRows; ++i) out[i] = 0;
  constexpr int kStep = 32 / BITS;  // columns in 128 bytes
  for (int64_t j = 0; j < columns; j += kStep, w += 128)
    for (int t = 0; t < T; ++t) {
      const int8_t* at = x + t * stride + j;
      for (int i = 0; i < kPanelRows; ++i)
        for (int u = 0; u < 4; ++u) {
          const int code = w[4 * i + u];
          out[t * kPanelRows + i] +=
              BITS == 8 ? code * at[u] : (code & 15) * at[u] + (code >> 4) * at[4 + u];
        }
    }
}

// out[t][16] = Σ code · x for the panel of 16 rows of 8 bits that widen_ranks makes.
template <int T>
static inline void half_sums(const uint8_t* w, const int8_t* x, int64_t stride, int64_t columns,
                             int32_t* out) {
  for (int i = 0; i < T * 16; ++i) out[i] = 0;
  for (int64_t j = 0; j < columns; j += 4, w += 64)
    for (int t = 0; t < T; ++t)
      for (int i = 0; i < 16; ++i)
        for (int u = 0; u < 4; ++u) out[t * 16 + i] += w[4 * i + u] * x[t * stride + j + u];
}

// Sums of (a + 128) x for R rows that take turns every 64 columns.
template <int R>
static inline void rank_sums(const uint8_t* packed, const int8_t* x, int64_t columns,
                             int32_t* sums) {
  for (int r = 0; r < R; ++r) sums[r] = 0;
  for (int64_t j = 0; j < columns; j += 64)
    for (int r = 0; r < R; ++r, packed += 64)
      for (int i = 0; i < 64; ++i) sums[r] += packed[i] * x[j + i];
}

// sum += b[row][0] z[0] + b[row][1] z[1] for kWidth rows; `pair` holds both z.
static inline VecI add_pairs(VecI sum, const int16_t* b, int32_t pair) {
  int16_t z[2];
  __builtin_memcpy(z, &pair, 4);
  for (int i = 0; i < kWidth; ++i) sum[i] += b[2 * i] * z[0] + b[2 * i + 1] * z[1];
  return sum;
}

static double dot_chain(int64_t rounds, int32_t* sink) {
  int32_t acc[16] = {};
  for (int64_t i = 0; i < rounds; ++i)
    for (int t = 0; t < 16; ++t) acc[t] += static_cast<int32_t>(i & 15) * (t - 8);
  for (int t = 0; t < 12; ++t) sink[t] = acc[t];
  return 16.0 * static_cast<double>(rounds);
}

static uint64_t read_through(const uint8_t* bytes, int64_t count) {
  uint64_t any[4] = {};
  for (int64_t i = 0; i + 32 <= count; i += 32) {
    uint64_t words[4];
    __builtin_memcpy(words, bytes + i, 32);
    for (int u = 0; u < 4; ++u) any[u] |= words[u];
  }
  return any[0] | any[1] | any[2] | any[3];
}
