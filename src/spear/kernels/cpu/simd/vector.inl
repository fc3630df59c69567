// Vectors of kWidth floats in the compiler's own vector types, so that one text serves every
// instruction set. Included inside an anonymous namespace of a per-ISA file that defines kWidth;
// nothing here may leave that file.

typedef float VecF __attribute__((vector_size(4 * kWidth)));
typedef int32_t VecI __attribute__((vector_size(4 * kWidth)));
typedef float UnalignedF __attribute__((vector_size(4 * kWidth), aligned(4), may_alias));
typedef int32_t UnalignedI __attribute__((vector_size(4 * kWidth), aligned(4), may_alias));

static inline VecF load(const float* p) {
  return *reinterpret_cast<const UnalignedF*>(p);
}
static inline void store(float* p, VecF v) {
  *reinterpret_cast<UnalignedF*>(p) = v;
}
static inline VecI load(const int32_t* p) {
  return *reinterpret_cast<const UnalignedI*>(p);
}
static inline void store(int32_t* p, VecI v) {
  *reinterpret_cast<UnalignedI*>(p) = v;
}
static inline VecF splat(float v) {
  return v - VecF{};
}
static inline VecI splat(int32_t v) {
  return v - VecI{};
}
static inline VecF to_float(VecI v) {
  return __builtin_convertvector(v, VecF);
}
static inline VecI to_int(VecF v) {
  return __builtin_convertvector(v, VecI);
}
static inline VecF as_float(VecI v) {
  return reinterpret_cast<VecF>(v);
}
static inline VecI as_int(VecF v) {
  return reinterpret_cast<VecI>(v);
}
static inline VecF magnitude_of(VecF v) {
  return as_float(as_int(v) & 0x7fffffff);
}
static inline VecF larger(VecF a, VecF b) {
  return a > b ? a : b;
}
static inline VecF smaller(VecF a, VecF b) {
  return a < b ? a : b;
}

static inline VecI lane_numbers() {
  VecI lanes;
  for (int i = 0; i < kWidth; ++i) lanes[i] = i;
  return lanes;
}

// lane i of the result is lane index[i] mod kWidth of v. clang, with which the fuzz targets are
// built, has no such builtin for indices that vary; it gets the plain meaning.
#if __has_builtin(__builtin_shuffle)
static inline VecF shuffle(VecF v, VecI index) {
  return __builtin_shuffle(v, index);
}
static inline VecI shuffle(VecI v, VecI index) {
  return __builtin_shuffle(v, index);
}
// Lanes of both: index kWidth is lane 0 of b.
static inline VecF shuffle(VecF a, VecF b, VecI index) {
  return __builtin_shuffle(a, b, index);
}
#else
static inline VecI shuffle(VecI v, VecI index) {
  VecI out;
  for (int i = 0; i < kWidth; ++i) out[i] = v[index[i] & (kWidth - 1)];
  return out;
}
static inline VecF shuffle(VecF v, VecI index) {
  return as_float(shuffle(as_int(v), index));
}
static inline VecF shuffle(VecF a, VecF b, VecI index) {
  VecF out;
  for (int i = 0; i < kWidth; ++i) out[i] = index[i] < kWidth ? a[index[i]] : b[index[i] - kWidth];
  return out;
}
#endif

// Up to kWidth - 1 elements at the end of a row; the other lanes hold `fill`.
static inline VecF load_part(const float* p, int64_t count, float fill) {
  float lanes[kWidth];
  for (int64_t i = 0; i < kWidth; ++i) lanes[i] = i < count ? p[i] : fill;
  return load(lanes);
}
static inline void store_part(float* p, VecF v, int64_t count) {
  for (int64_t i = 0; i < count; ++i) p[i] = v[i];
}

static inline float sum_lanes(VecF v) {
  const VecI lanes = lane_numbers();
#pragma GCC unroll 4
  for (int half = kWidth / 2; half > 0; half /= 2) v += shuffle(v, lanes ^ half);
  return v[0];
}
static inline double sum_lanes_double(VecF v) {
  double sum = 0;
  for (int i = 0; i < kWidth; ++i) sum += static_cast<double>(v[i]);
  return sum;
}
static inline float max_lanes(VecF v) {
  const VecI lanes = lane_numbers();
#pragma GCC unroll 4
  for (int half = kWidth / 2; half > 0; half /= 2) v = larger(v, shuffle(v, lanes ^ half));
  return v[0];
}

// e^x to within 2 units in the last place for x in [-87, 88]; 0 below, e^88 above. x = n ln 2 + r,
// |r| <= ln 2 / 2: e^r by its series to r^7, whose remainder is below 2^-27.
static inline VecF exp_of(VecF x) {
  const VecF clamped = smaller(larger(x, splat(-87.0f)), splat(88.0f));
  const VecI n =
      to_int(clamped * 1.44269504f + 128.5f) - 128;  // positive before the cut: it rounds down
  const VecF count = to_float(n);
  VecF r = clamped - count * 0.693145752f;  // the upper 15 bits of ln 2: exact products
  r = r - count * 1.42860677e-6f;           // ln 2 minus the above
  VecF p = r * (1.0f / 5040.0f) + (1.0f / 720.0f);
  p = p * r + (1.0f / 120.0f);
  p = p * r + (1.0f / 24.0f);
  p = p * r + (1.0f / 6.0f);
  p = p * r + 0.5f;
  p = p * (r * r) + r + 1.0f;
  const VecF power = as_float((n + 127) << 23);
  return x < splat(-87.0f) ? VecF{} : p * power;
}
static inline float exp_of(float x) {
  return exp_of(splat(x))[0];
}

static constexpr float kMostFloat = 3.4028235e38f;
// 1.5 · 2^23: adding it leaves the nearest integer in the low bits, up to 2^22 either way.
static constexpr float kRoundToInteger = 12582912.0f;

static inline uint32_t bits_of(float v) {
  uint32_t bits;
  __builtin_memcpy(&bits, &v, 4);
  return bits;
}
// Round to nearest even; NaN stays NaN.
static inline uint16_t bf16_of(float v) {
  const uint32_t bits = bits_of(v);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t nan = (bits >> 16) | 0x40u;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}
// The same of kWidth floats, in the low halves of their lanes.
typedef uint32_t VecU __attribute__((vector_size(4 * kWidth)));
static inline VecI bf16_of(VecF v) {
  const VecU bits = reinterpret_cast<VecU>(v);
  const VecU rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const VecU nan = (bits >> 16) | 0x40u;
  return reinterpret_cast<VecI>(v == v ? rounded : nan);
}
// IEEE binary16, nearest even; as f16_from_float() of base/dtype.h.
static inline uint16_t f16_of(float v) {
  const uint32_t bits = bits_of(v);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    const float aligned = __builtin_fabsf(v) + 0.5f;  // the rounding position is now bit 0
    return static_cast<uint16_t>(sign | (bits_of(aligned) - 0x3f000000u));
  }
  const uint32_t odd = magnitude >> 13 & 1u;
  return static_cast<uint16_t>(sign | (magnitude - 0x38000000u + 0xfffu + odd) >> 13);
}
static inline float float_of_f16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = half >> 10 & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  uint32_t bits = sign | ((exponent + 112u) << 23) | (mantissa << 13);
  if (exponent == 0x1fu) bits = sign | 0x7f800000u | (mantissa << 13);
  float value;
  __builtin_memcpy(&value, &bits, 4);
  if (exponent != 0) return value;
  const float subnormal = static_cast<float>(mantissa) * 0x1p-24f;
  return sign != 0 ? -subnormal : subnormal;
}

// kWidth halves to floats, exactly; infinities and NaN stay what they are.
typedef uint16_t VecHalf __attribute__((vector_size(2 * kWidth)));
static inline VecF halves_to_floats(const uint16_t* p) {
  VecHalf half;
  __builtin_memcpy(&half, p, sizeof(half));
  const VecI bits = __builtin_convertvector(half, VecI);
  const VecF magnitude = as_float((bits & 0x7fff) << 13) * 0x1p112f;  // moves the exponent's bias
  const VecI special = (bits & 0x7c00) == 0x7c00 ? splat(0x7f800000) : VecI{};
  return as_float(as_int(magnitude) | special | (bits & 0x8000) << 16);
}
