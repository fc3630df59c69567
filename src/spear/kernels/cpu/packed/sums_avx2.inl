// Integer sums with AVX2: 32 rows are four registers; products of bytes are added in 16 bits as
// long as they fit. 8-bit codes enter as code - 128, since two products of unsigned bytes do not
// fit.

static constexpr float kCodeShift8 = 128.0f;
static constexpr int kMostRows = 4;
static constexpr int64_t kAhead = 1536;

static inline __m256i four_columns(const int8_t* x) {
  int32_t word;
  __builtin_memcpy(&word, x, 4);
  return _mm256_set1_epi32(word);
}
static inline __m256i load_codes(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
static inline void keep(int32_t* p, __m256i v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
}
static inline void ask_ahead(const uint8_t* p, int64_t count) {
  for (int64_t i = 0; i < count; i += 64) __builtin_prefetch(p + kAhead + i, 0, 2);
}

// Eight columns of 8 rows: at most 2 · 15 · 127 a lane.
static inline __m256i eight_columns(__m256i codes, __m256i low_x, __m256i high_x) {
  const __m256i mask = _mm256_set1_epi8(15);
  const __m256i low = _mm256_maddubs_epi16(_mm256_and_si256(codes, mask), low_x);
  const __m256i high =
      _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(codes, 4), mask), high_x);
  return _mm256_add_epi16(low, high);
}

static inline void sums4_one(const uint8_t* w, const int8_t* x, int64_t columns, bool first,
                             int32_t* out) {
  __m256i a0 = _mm256_setzero_si256(), a1 = a0, a2 = a0, a3 = a0;
  const __m256i one = _mm256_set1_epi16(1);
  const int64_t ahead = first ? kAhead : 0;
  for (int64_t i = 0; i < columns; i += 32) {  // four times eight columns fit 16 bits
    __m256i s0 = _mm256_setzero_si256(), s1 = s0, s2 = s0, s3 = s0;
    for (int u = 0; u < 4; ++u, w += 128, x += 8) {
      __builtin_prefetch(w + ahead, 0, 2);
      __builtin_prefetch(w + ahead + 64, 0, 2);
      const __m256i low = four_columns(x);
      const __m256i high = four_columns(x + 4);
      s0 = _mm256_add_epi16(s0, eight_columns(load_codes(w), low, high));
      s1 = _mm256_add_epi16(s1, eight_columns(load_codes(w + 32), low, high));
      s2 = _mm256_add_epi16(s2, eight_columns(load_codes(w + 64), low, high));
      s3 = _mm256_add_epi16(s3, eight_columns(load_codes(w + 96), low, high));
    }
    a0 = _mm256_add_epi32(a0, _mm256_madd_epi16(s0, one));
    a1 = _mm256_add_epi32(a1, _mm256_madd_epi16(s1, one));
    a2 = _mm256_add_epi32(a2, _mm256_madd_epi16(s2, one));
    a3 = _mm256_add_epi32(a3, _mm256_madd_epi16(s3, one));
  }
  keep(out, a0);
  keep(out + 8, a1);
  keep(out + 16, a2);
  keep(out + 24, a3);
}

// T tokens, one register of rows after the other.
template <int T>
static inline void sums4(const uint8_t* w, const int8_t* x, int64_t stride, int64_t columns,
                         bool first, int32_t* out) {
  const __m256i mask = _mm256_set1_epi8(15);
  const __m256i one = _mm256_set1_epi16(1);
  for (int j = 0; j < 4; ++j) {
    __m256i acc[T];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) acc[t] = _mm256_setzero_si256();
    const uint8_t* p = w + 32 * j;
    const int64_t ahead = first && j == 0 ? kAhead : 0;
    for (int64_t i = 0; i < columns; i += 32, p += 512) {
      __m256i s[T];
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) s[t] = _mm256_setzero_si256();
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) {
        __builtin_prefetch(p + ahead + 128 * u, 0, 2);
        __builtin_prefetch(p + ahead + 128 * u + 64, 0, 2);
        const __m256i codes = load_codes(p + 128 * u);
        const __m256i low = _mm256_and_si256(codes, mask);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(codes, 4), mask);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
          const int8_t* at = x + t * stride + i + 8 * u;
          s[t] = _mm256_add_epi16(s[t], _mm256_maddubs_epi16(low, four_columns(at)));
          s[t] = _mm256_add_epi16(s[t], _mm256_maddubs_epi16(high, four_columns(at + 4)));
        }
      }
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) acc[t] = _mm256_add_epi32(acc[t], _mm256_madd_epi16(s[t], one));
    }
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) keep(out + t * kPanelRows + 8 * j, acc[t]);
  }
}

// acc + (codes - 128) x, four columns a lane. |codes - 128| takes the unsigned side, x its sign.
static inline __m256i add_signed(__m256i acc, __m256i signed_codes, __m256i sizes, __m256i x) {
  const __m256i pairs = _mm256_maddubs_epi16(sizes, _mm256_sign_epi8(x, signed_codes));
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

template <int T>
static inline void sums8(const uint8_t* w, const int8_t* x, int64_t stride, int64_t columns,
                         bool first, int32_t* out) {
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(-128));
  const int64_t ahead = first ? kAhead : 0;
  __m256i acc[T][4];
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) acc[t][j] = _mm256_setzero_si256();
  for (int64_t i = 0; i < columns; i += 4, w += 128) {
    __builtin_prefetch(w + ahead, 0, 2);
    __builtin_prefetch(w + ahead + 64, 0, 2);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m256i v = _mm256_xor_si256(load_codes(w + 32 * j), flip);
      const __m256i sizes = _mm256_abs_epi8(v);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t)
        acc[t][j] = add_signed(acc[t][j], v, sizes, four_columns(x + t * stride + i));
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) keep(out + t * kPanelRows + 8 * j, acc[t][j]);
}

// out[t][32] = Σ code · x over `columns` columns (a multiple of 32) of T rows of x.
template <int BITS, int T>
static inline void sums_of(const uint8_t* w, const int8_t* x, int64_t stride, int64_t columns,
                           bool first, int32_t* out) {
  if constexpr (BITS == 8)
    sums8<T>(w, x, stride, columns, first, out);
  else if constexpr (T == 1)
    sums4_one(w, x, columns, first, out);
  else
    sums4<T>(w, x, stride, columns, first, out);
}

// out[t][16] = Σ code · x for the panel of 16 rows of 8 bits that widen_ranks makes.
template <int T>
static inline void half_sums(const uint8_t* w, const int8_t* x, int64_t stride, int64_t columns,
                             int32_t* out) {
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(-128));
  const __m256i ones = _mm256_set1_epi8(1);
  __m256i acc[T][2], count[T];
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) acc[t][0] = acc[t][1] = count[t] = _mm256_setzero_si256();
  for (int64_t i = 0; i < columns; i += 4, w += 64) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      const __m256i four = four_columns(x + t * stride + i);
      count[t] = _mm256_add_epi32(
          count[t], _mm256_madd_epi16(_mm256_maddubs_epi16(ones, four), _mm256_set1_epi16(1)));
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        const __m256i v = _mm256_xor_si256(load_codes(w + 32 * j), flip);
        acc[t][j] = add_signed(acc[t][j], v, _mm256_abs_epi8(v), four);
      }
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j)
      keep(out + t * 16 + 8 * j, _mm256_add_epi32(acc[t][j], _mm256_slli_epi32(count[t], 7)));
}

// Sums of (a + 128) x for R rows that take turns every 64 columns.
template <int R>
static inline void rank_sums(const uint8_t* packed, const int8_t* x, int64_t columns,
                             int32_t* sums) {
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(-128));
  const __m256i ones = _mm256_set1_epi8(1);
  __m256i acc[R], count = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) acc[r] = _mm256_setzero_si256();
  for (int64_t j = 0; j < columns; j += 64)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r, packed += 64) {
      __builtin_prefetch(packed + kAhead, 0, 2);
#pragma GCC unroll 2
      for (int h = 0; h < 64; h += 32) {
        const __m256i v = load_codes(x + j + h);
        const __m256i a = _mm256_xor_si256(load_codes(packed + h), flip);
        acc[r] = add_signed(acc[r], a, _mm256_abs_epi8(a), v);
        if (r == 0)
          count = _mm256_add_epi32(
              count, _mm256_madd_epi16(_mm256_maddubs_epi16(ones, v), _mm256_set1_epi16(1)));
      }
    }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
    sums[r] =
        sum_ints(reinterpret_cast<VecI>(_mm256_add_epi32(acc[r], _mm256_slli_epi32(count, 7))));
}

// sum += b[row][0] z[0] + b[row][1] z[1] for 8 rows; `pair` holds both z.
static inline VecI add_pairs(VecI sum, const int16_t* b, int32_t pair) {
  return sum + reinterpret_cast<VecI>(_mm256_madd_epi16(load_codes(b), _mm256_set1_epi32(pair)));
}

static double dot_chain(int64_t rounds, int32_t* sink) {
  __m256i acc[8];
  const __m256i codes = _mm256_set1_epi8(3);
#pragma GCC unroll 8
  for (int t = 0; t < 8; ++t) acc[t] = _mm256_set1_epi8(static_cast<char>(t));
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 8
    for (int t = 0; t < 8; ++t)
      asm volatile("vpmaddubsw %1, %1, %%ymm15\n\tvpaddw %%ymm15, %0, %0"
                   : "+x"(acc[t])
                   : "x"(codes)
                   : "xmm15");
#pragma GCC unroll 8
  for (int t = 0; t < 8; ++t) sink[t] = sum_ints(reinterpret_cast<VecI>(acc[t]));
  return 8.0 * 32.0 * static_cast<double>(rounds);
}

static uint64_t read_through(const uint8_t* bytes, int64_t count) {
  __m256i any[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                    _mm256_setzero_si256()};
  for (int64_t i = 0; i + 128 <= count; i += 128)
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) any[u] = _mm256_or_si256(any[u], load_codes(bytes + i + 32 * u));
  return static_cast<uint32_t>(sum_ints(reinterpret_cast<VecI>(
      _mm256_or_si256(_mm256_or_si256(any[0], any[1]), _mm256_or_si256(any[2], any[3])))));
}
