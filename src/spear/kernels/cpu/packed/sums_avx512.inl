// Integer sums with AVX-512 VNNI: 32 rows are two registers, a token's four columns are broadcast.

static constexpr float kCodeShift8 = 0.0f;  // 8-bit codes enter as they are
static constexpr int kMostRows = 12;        // 24 accumulators of 32 registers
static constexpr int64_t kAhead = 1536;     // bytes asked for before they are needed, into the L2

template <int I>
struct Index {
  static constexpr int value = I;
};
// f(Index<0>) ... f(Index<N - 1>): unrolled before the optimiser sees it, else GCC 12 keeps arrays
// of accumulators in memory.
template <int N, int I = 0, class F>
__attribute__((always_inline)) static inline void each(F f) {
  if constexpr (I < N) {
    f(Index<I>{});
    each<N, I + 1>(f);
  }
}

// acc += four products a lane, u8 by s8. As an instruction of its own: with the intrinsic GCC 12
// copies accumulators.
__attribute__((always_inline)) static inline void dot(__m512i& acc, __m512i codes, __m512i x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(codes), "v"(x));
}
__attribute__((always_inline)) static inline __m512i four_columns(const int8_t* x) {
  int32_t word;
  __builtin_memcpy(&word, x, 4);
  return _mm512_set1_epi32(word);
}
static inline __m512i load_codes(const uint8_t* p) {
  return _mm512_loadu_si512(p);
}
typedef uint16_t Words __attribute__((vector_size(64)));
static inline __m512i shifted(
    __m512i codes) {  // the high codes of bytes, with bits of their neighbours
  return reinterpret_cast<__m512i>(reinterpret_cast<Words>(codes) >> 4);
}
static inline void ask_ahead(const uint8_t* p, int64_t count) {
  for (int64_t i = 0; i < count; i += 64) __builtin_prefetch(p + kAhead + i, 0, 2);
}

// Few tokens: the high codes stay where they are, 16 times too large, and are put right once.
template <int T>
static inline void sums4_few(const uint8_t* w, const int8_t* x, int64_t stride, int64_t columns,
                             bool first, int32_t* out) {
  __m512i low[T][2], high[T][2];
  const __m512i mask = _mm512_set1_epi8(15);
  each<T>([&](auto t) __attribute__((always_inline)) {
    low[t.value][0] = low[t.value][1] = high[t.value][0] = high[t.value][1] =
        _mm512_setzero_si512();
  });
  const int64_t ahead = first ? kAhead : 0;
  for (int64_t i = 0; i < columns; i += 8, w += 128) {
    __builtin_prefetch(w + ahead, 0, 2);
    __builtin_prefetch(w + ahead + 64, 0, 2);
    const __m512i v0 = load_codes(w);
    const __m512i v1 = load_codes(w + 64);
    const __m512i l0 = v0 & mask;
    const __m512i l1 = v1 & mask;
    const __m512i h0 = v0 & ~mask;
    const __m512i h1 = v1 & ~mask;
    each<T>([&](auto t) __attribute__((always_inline)) {
      const __m512i a = four_columns(x + t.value * stride + i);
      const __m512i b = four_columns(x + t.value * stride + i + 4);
      dot(low[t.value][0], l0, a);
      dot(low[t.value][1], l1, a);
      dot(high[t.value][0], h0, b);
      dot(high[t.value][1], h1, b);
    });
  }
  each<T>([&](auto t) __attribute__((always_inline)) {
    for (int h = 0; h < 2; ++h)
      _mm512_storeu_si512(
          out + t.value * kPanelRows + h * 16,
          reinterpret_cast<__m512i>(reinterpret_cast<VecI>(low[t.value][h]) +
                                    (reinterpret_cast<VecI>(high[t.value][h]) >> 4)));
  });
}

template <int T>
static inline void sums4_many(const uint8_t* w, const int8_t* x, int64_t stride, int64_t columns,
                              bool first, int32_t* out) {
  __m512i acc[T][2];
  const __m512i mask = _mm512_set1_epi8(15);
  each<T>([&](auto t) __attribute__((always_inline)) {
    acc[t.value][0] = acc[t.value][1] = _mm512_setzero_si512();
  });
  const int64_t ahead = first ? kAhead : 0;
  for (int64_t i = 0; i < columns; i += 8, w += 128) {
    __builtin_prefetch(w + ahead, 0, 3);
    __builtin_prefetch(w + ahead + 64, 0, 3);
    const __m512i v0 = load_codes(w);
    const __m512i v1 = load_codes(w + 64);
    const __m512i l0 = v0 & mask;
    const __m512i l1 = v1 & mask;
    const __m512i h0 = shifted(v0) & mask;
    const __m512i h1 = shifted(v1) & mask;
    each<T>([&](auto t) __attribute__((always_inline)) {
      const __m512i a = four_columns(x + t.value * stride + i);
      dot(acc[t.value][0], l0, a);
      dot(acc[t.value][1], l1, a);
    });
    each<T>([&](auto t) __attribute__((always_inline)) {
      const __m512i b = four_columns(x + t.value * stride + i + 4);
      dot(acc[t.value][0], h0, b);
      dot(acc[t.value][1], h1, b);
    });
  }
  each<T>([&](auto t) __attribute__((always_inline)) {
    for (int h = 0; h < 2; ++h)
      _mm512_storeu_si512(out + t.value * kPanelRows + h * 16, acc[t.value][h]);
  });
}

template <int T>
static inline void sums8(const uint8_t* w, const int8_t* x, int64_t stride, int64_t columns,
                         bool first, int32_t* out) {
  __m512i acc[T][2];
  each<T>([&](auto t) __attribute__((always_inline)) {
    acc[t.value][0] = acc[t.value][1] = _mm512_setzero_si512();
  });
  const int64_t ahead = first ? kAhead : 0;
  for (int64_t i = 0; i < columns; i += 4, w += 128) {
    __builtin_prefetch(w + ahead, 0, 2);
    __builtin_prefetch(w + ahead + 64, 0, 2);
    const __m512i v0 = load_codes(w);
    const __m512i v1 = load_codes(w + 64);
    each<T>([&](auto t) __attribute__((always_inline)) {
      const __m512i a = four_columns(x + t.value * stride + i);
      dot(acc[t.value][0], v0, a);
      dot(acc[t.value][1], v1, a);
    });
  }
  each<T>([&](auto t) __attribute__((always_inline)) {
    for (int h = 0; h < 2; ++h)
      _mm512_storeu_si512(out + t.value * kPanelRows + h * 16, acc[t.value][h]);
  });
}

// out[t][32] = Σ code · x over `columns` columns (a multiple of 32) of T rows of x.
template <int BITS, int T>
static inline void sums_of(const uint8_t* w, const int8_t* x, int64_t stride, int64_t columns,
                           bool first, int32_t* out) {
  if constexpr (BITS == 8)
    sums8<T>(w, x, stride, columns, first, out);
  else if constexpr (T <= 4)
    sums4_few<T>(w, x, stride, columns, first, out);
  else
    sums4_many<T>(w, x, stride, columns, first, out);
}

// out[t][16] = Σ code · x for the panel of 16 rows of 8 bits that widen_ranks makes.
template <int T>
static inline void half_sums(const uint8_t* w, const int8_t* x, int64_t stride, int64_t columns,
                             int32_t* out) {
  __m512i acc[T];
  each<T>([&](auto t) __attribute__((always_inline)) { acc[t.value] = _mm512_setzero_si512(); });
  for (int64_t i = 0; i < columns; i += 4, w += 64) {
    const __m512i v = load_codes(w);
    each<T>([&](auto t) __attribute__((always_inline)) {
      dot(acc[t.value], v, four_columns(x + t.value * stride + i));
    });
  }
  each<T>([&](auto t) __attribute__((always_inline)) {
    _mm512_storeu_si512(out + t.value * 16, acc[t.value]);
  });
}

// Sums of (a + 128) x for R rows that take turns every 64 columns.
template <int R>
static inline void rank_sums(const uint8_t* packed, const int8_t* x, int64_t columns,
                             int32_t* sums) {
  __m512i acc[R];
  each<R>([&](auto r) __attribute__((always_inline)) { acc[r.value] = _mm512_setzero_si512(); });
  for (int64_t j = 0; j < columns; j += 64) {
    const __m512i v = _mm512_loadu_si512(x + j);
    each<R>([&](auto r) __attribute__((always_inline)) {
      __builtin_prefetch(packed + kAhead, 0, 2);
      dot(acc[r.value], load_codes(packed), v);
      packed += 64;
    });
  }
  each<R>([&](auto r) __attribute__((always_inline)) {
    sums[r.value] = sum_ints(reinterpret_cast<VecI>(acc[r.value]));
  });
}

// sum += b[row][0] z[0] + b[row][1] z[1] for 16 rows; `pair` holds both z.
static inline VecI add_pairs(VecI sum, const int16_t* b, int32_t pair) {
  return reinterpret_cast<VecI>(_mm512_dpwssd_epi32(
      reinterpret_cast<__m512i>(sum), _mm512_loadu_si512(b), _mm512_set1_epi32(pair)));
}

static double dot_chain(int64_t rounds, int32_t* sink) {
  __m512i acc[12];
  const __m512i codes = _mm512_set1_epi8(3);
  const __m512i x = _mm512_set1_epi8(2);
  each<12>([&](auto t) __attribute__((always_inline)) { acc[t.value] = _mm512_setzero_si512(); });
  for (int64_t i = 0; i < rounds; ++i)
    each<12>([&](auto t) __attribute__((always_inline)) {
      asm volatile("vpdpbusd %2, %1, %0" : "+v"(acc[t.value]) : "v"(codes), "v"(x));
    });
  each<12>([&](auto t) __attribute__((always_inline)) {
    sink[t.value] = sum_ints(reinterpret_cast<VecI>(acc[t.value]));
  });
  return 12.0 * 64.0 * static_cast<double>(rounds);
}

static uint64_t read_through(const uint8_t* bytes, int64_t count) {
  __m512i any[4] = {};
  for (int64_t i = 0; i + 256 <= count; i += 256)
    each<4>([&](auto u) __attribute__((always_inline)) {
      any[u.value] = any[u.value] | load_codes(bytes + i + 64 * u.value);
    });
  return static_cast<uint32_t>(
      sum_ints(reinterpret_cast<VecI>((any[0] | any[1]) | (any[2] | any[3]))));
}
