// Narrow types of a KV cache by AVX-512: GCC 12 makes these conversions lane by lane from generic
// vectors. The masked forms name no undefined register, which the plain ones are warned about.

static constexpr __mmask16 kAll16 = 0xffff;
static constexpr __mmask32 kAll32 = 0xffffffff;

static inline VecF load_halves(const uint16_t* p) {
  return _mm512_maskz_cvtph_ps(kAll16, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline void store_halves(uint16_t* p, VecF v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_maskz_cvtps_ph(kAll16, v, _MM_FROUND_TO_NEAREST_INT));
}
// 2 · kWidth codes as pairs of 16 bits, one pair a lane.
static inline VecI load_pairs(const int8_t* p) {
  return reinterpret_cast<VecI>(
      _mm512_maskz_cvtepi8_epi16(kAll32, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
}
// The low 16 bits of each lane, one after another.
static inline void store_shorts(int16_t* p, VecI v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_maskz_cvtepi32_epi16(kAll16, reinterpret_cast<__m512i>(v)));
}
// sum + a.low · b.low + a.high · b.high in each lane.
static inline VecI dot_pairs(VecI sum, VecI a, VecI b) {
  return reinterpret_cast<VecI>(_mm512_dpwssd_epi32(
      reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}
// sum + the four products of unsigned bytes of a with signed ones of b, in each lane.
static inline VecI dot_quads(VecI sum, VecI a, VecI b) {
  return reinterpret_cast<VecI>(_mm512_dpbusd_epi32(
      reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}
