// Vectors of kWidth 32-bit integers: what vector.inl has no need of.

typedef int8_t VecB __attribute__((vector_size(kWidth)));

static inline VecI load_ints(const int32_t* p) {
  return *reinterpret_cast<const UnalignedI*>(p);
}
static inline void store_bytes(int8_t* p, VecI v) {
  const VecB bytes = __builtin_convertvector(v, VecB);
  __builtin_memcpy(p, &bytes, sizeof(bytes));
}
static inline int32_t sum_ints(VecI v) {
  const VecI lanes = lane_numbers();
#pragma GCC unroll 4
  for (int half = kWidth / 2; half > 0; half /= 2) v += shuffle(v, lanes ^ half);
  return v[0];
}
