// Narrow types of a KV cache by AVX2 and F16C: GCC 12 makes these conversions lane by lane from
// generic vectors.

static inline VecF load_halves(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline void store_halves(uint16_t* p, VecF v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
// 2 · kWidth codes as pairs of 16 bits, one pair a lane.
static inline VecI load_pairs(const int8_t* p) {
  return reinterpret_cast<VecI>(
      _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
// The low 16 bits of each lane, one after another. They hold values of 16 bits: saturating is
// exact.
static inline void store_shorts(int16_t* p, VecI v) {
  const auto lanes = reinterpret_cast<__m256i>(v);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi32(lanes, lanes), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
// sum + a.low · b.low + a.high · b.high in each lane.
static inline VecI dot_pairs(VecI sum, VecI a, VecI b) {
  return sum + reinterpret_cast<VecI>(
                   _mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}
// sum + the four products of unsigned bytes of a with signed ones of b, in each lane; for codes
// whose pairs fit 16 bits.
static inline VecI dot_quads(VecI sum, VecI a, VecI b) {
  const __m256i pairs =
      _mm256_maddubs_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b));
  return sum + reinterpret_cast<VecI>(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
