// Rows of keys and values in each type of a cache: reading them as floats, storing them, and RoPE
// with the storing behind it. load_halves() and store_halves() are the instruction set's own.

typedef int8_t VecByte __attribute__((vector_size(kWidth)));

static inline VecF load_kv(const float* p) {
  return load(p);
}
static inline VecF load_kv(const uint16_t* p) {
  return load_halves(p);
}
static inline VecF load_kv(const int8_t* p) {
  VecByte bytes;
  __builtin_memcpy(&bytes, p, sizeof(bytes));
  return to_float(__builtin_convertvector(bytes, VecI));
}
static inline float kv_element(float x) {
  return x;
}
static inline float kv_element(uint16_t x) {
  return float_of_f16(x);
}
static inline float kv_element(int8_t x) {
  return static_cast<float>(x);
}
// The last, partial register of a row; the other lanes are zero.
template <class T>
static inline VecF load_kv_part(const T* p, int64_t count) {
  float lanes[kWidth];
  for (int64_t i = 0; i < kWidth; ++i) lanes[i] = i < count ? kv_element(p[i]) : 0.0f;
  return load(lanes);
}

static inline int64_t row_offset(const HeadRows& rows, int64_t t) {
  if (rows.pages == nullptr) return t * rows.row_stride;
  return rows.pages[t / rows.page_size] * rows.page_stride + t % rows.page_size * rows.row_stride;
}
static inline float row_scale(const HeadRows& rows, int64_t t) {
  if (rows.scales == nullptr) return 1.0f;
  return rows.scales[rows.pages[t / rows.page_size] * rows.scale_stride + t % rows.page_size];
}

template <class T>
static inline void expand_typed(const T* from, float scale, int64_t head_dim, float* to) {
  int64_t j = 0;
  for (; j + kWidth <= head_dim; j += kWidth) store(to + j, load_kv(from + j) * scale);
  for (; j < head_dim; ++j) to[j] = kv_element(from[j]) * scale;
}

// Row t as floats, scale applied.
static void expand_row(const HeadRows& rows, int64_t t, int64_t head_dim, float* to) {
  const int64_t at = row_offset(rows, t);
  switch (rows.type) {
    case DType::kF16:
      return expand_typed(static_cast<const uint16_t*>(rows.base) + at, 1.0f, head_dim, to);
    case DType::kI8:
      return expand_typed(static_cast<const int8_t*>(rows.base) + at, row_scale(rows, t), head_dim,
                          to);
    default:
      return expand_typed(static_cast<const float*>(rows.base) + at, 1.0f, head_dim, to);
  }
}

static void store_half_row(const float* from, int64_t head_dim, uint16_t* to) {
  int64_t j = 0;
  for (; j + kWidth <= head_dim; j += kWidth) store_halves(to + j, load(from + j));
  for (; j < head_dim; ++j) to[j] = f16_of(from[j]);
}

static inline VecF magnitude_of(VecF v) {
  return as_float(as_int(v) & 0x7fffffff);
}

// Codes x · 127 / largest, and the scale largest / 127. A row with an infinite maximum keeps it as
// its scale and has no codes: what is made of it is not finite either.
static void store_int8_row(const float* from, int64_t head_dim, int8_t* to, float* scale) {
  VecF most{};
  int64_t j = 0;
  for (; j + kWidth <= head_dim; j += kWidth) most = larger(magnitude_of(load(from + j)), most);
  if (j < head_dim) most = larger(magnitude_of(load_part(from + j, head_dim - j, 0.0f)), most);
  const float largest = max_lanes(most);
  *scale = largest / 127.0f;
  const float inverse = largest > 0.0f && largest <= 3.4028235e38f ? 127.0f / largest : 0.0f;
  const VecF round = splat(12582912.0f);  // 1.5 · 2^23: adding it leaves the nearest integer
  for (j = 0; j < head_dim; j += kWidth) {
    const int64_t count = head_dim - j < kWidth ? head_dim - j : kWidth;
    const VecF x = count == kWidth ? load(from + j) : load_part(from + j, count, 0.0f);
    const VecI codes = as_int(x * inverse + round) - as_int(round);
    const VecByte bytes = __builtin_convertvector(codes, VecByte);
    __builtin_memcpy(to + j, &bytes, static_cast<size_t>(count));
  }
}

// Row `row` of keys or values.
static void store_kv_row(DType type, const float* from, int64_t head_dim, int64_t row, void* data,
                         float* scales) {
  const int64_t at = row * head_dim;
  switch (type) {
    case DType::kF16:
      return store_half_row(from, head_dim, static_cast<uint16_t*>(data) + at);
    case DType::kI8:
      return store_int8_row(from, head_dim, static_cast<int8_t*>(data) + at, scales + row);
    default:
      __builtin_memcpy(static_cast<float*>(data) + at, from,
                       static_cast<size_t>(head_dim) * sizeof(float));
  }
}

static void rope_append_rows(const RopeAppendArgs& a, int64_t begin, int64_t end) {
  const int64_t d = a.head_dim;
  const KvLayerView& c = a.cache;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t page = a.slots[i] / c.page_size;
    const int64_t place = a.slots[i] % c.page_size;
    if (a.table != nullptr) {
      const float* cosines = a.table + i * d;
      for (int64_t h = 0; h < a.heads; ++h)
        rotate_head(d / 2, cosines, cosines + d / 2, a.q + i * a.q_stride + h * d);
      for (int64_t h = 0; h < a.kv_heads; ++h)
        rotate_head(d / 2, cosines, cosines + d / 2, a.k + i * a.kv_stride + h * d);
    }
    for (int64_t h = 0; h < a.kv_heads; ++h) {
      const int64_t row = (page * a.kv_heads + h) * c.page_size + place;
      store_kv_row(c.type, a.k + i * a.kv_stride + h * d, d, row, c.keys, c.key_scales);
      store_kv_row(c.type, a.v + i * a.kv_stride + h * d, d, row, c.values, c.value_scales);
    }
  }
}
