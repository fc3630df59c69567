// Narrow types of a KV cache without instructions of their own.

static inline VecF load_halves(const uint16_t* p) {
  return halves_to_floats(p);
}
static inline void store_halves(uint16_t* p, VecF v) {
  for (int i = 0; i < kWidth; ++i) p[i] = f16_of(v[i]);
}
// 2 · kWidth codes as pairs of 16 bits, one pair a lane.
static inline VecI load_pairs(const int8_t* p) {
  VecI lanes;
  for (int i = 0; i < kWidth; ++i) lanes[i] = (p[2 * i] & 0xffff) | p[2 * i + 1] * 65536;
  return lanes;
}
// The low 16 bits of each lane, one after another.
static inline void store_shorts(int16_t* p, VecI v) {
  for (int i = 0; i < kWidth; ++i) p[i] = static_cast<int16_t>(v[i]);
}
// sum + a.low · b.low + a.high · b.high in each lane.
static inline VecI dot_pairs(VecI sum, VecI a, VecI b) {
  return sum + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
}
// sum + the four products of unsigned bytes of a with signed ones of b, in each lane.
static inline VecI dot_quads(VecI sum, VecI a, VecI b) {
  for (int shift = 0; shift < 32; shift += 8)
    sum += (a >> shift & 0xff) * (b << (24 - shift) >> 24);
  return sum;
}
