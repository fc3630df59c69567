// Rows of keys and values in each type of a cache: reading them as floats, storing them, and RoPE
// with the storing behind it.

static inline VecF load_kv(const float* p) {
  return load(p);
}
static inline VecF load_kv(const uint16_t* p) {
  return load_halves(p);
}
static inline float kv_element(float x) {
  return x;
}
static inline float kv_element(uint16_t x) {
  return float_of_f16(x);
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
template <class T>
static inline void expand_typed(const T* from, int64_t head_dim, float* to) {
  int64_t j = 0;
  for (; j + kWidth <= head_dim; j += kWidth) store(to + j, load_kv(from + j));
  for (; j < head_dim; ++j) to[j] = kv_element(from[j]);
}

// Row t as floats; not of INT8, whose rows are interleaved.
static void expand_row(const HeadRows& rows, int64_t t, int64_t head_dim, float* to) {
  const int64_t at = row_offset(rows, t);
  if (rows.type == DType::kF16)
    expand_typed(static_cast<const uint16_t*>(rows.base) + at, head_dim, to);
  else
    expand_typed(static_cast<const float*>(rows.base) + at, head_dim, to);
}

static void store_half_row(const float* from, int64_t head_dim, uint16_t* to) {
  int64_t j = 0;
  for (; j + kWidth <= head_dim; j += kWidth) store_halves(to + j, load(from + j));
  for (; j < head_dim; ++j) to[j] = f16_of(from[j]);
}

// Codes x · 127 / largest at to[j · step of j], and the scale largest / 127. A row with an infinite
// maximum keeps it as its scale and has no codes: what is made of it is not finite either. Keys
// (kPairs) lie in pairs, `step` bytes apart; values one by one.
template <bool kPairs>
static void store_int8_row(const float* from, int64_t head_dim, int8_t* to, int64_t step,
                           float* scale) {
  VecF most{};
  int64_t j = 0;
  for (; j + kWidth <= head_dim; j += kWidth) most = larger(magnitude_of(load(from + j)), most);
  if (j < head_dim) most = larger(magnitude_of(load_part(from + j, head_dim - j, 0.0f)), most);
  const float largest = max_lanes(most);
  *scale = largest / 127.0f;
  const float inverse = largest > 0.0f && largest <= kMostFloat ? 127.0f / largest : 0.0f;
  const VecF round = splat(kRoundToInteger);
  for (j = 0; j < head_dim; j += kWidth) {
    const int64_t count = head_dim - j < kWidth ? head_dim - j : kWidth;
    const VecF x = count == kWidth ? load(from + j) : load_part(from + j, count, 0.0f);
    int32_t codes[kWidth];
    store(codes, as_int(x * inverse + round) - as_int(round));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = kPairs ? (j + i) / 2 * step + (j + i) % 2 : (j + i) * step;
      to[at] = static_cast<int8_t>(codes[i]);
    }
  }
}

// Where one token of one kv-head stands.
struct KvPlace {
  int64_t page_head = 0;  // page · kv_heads + kv_head
  int64_t place = 0;      // in the page
  int64_t page_size = 0;
};

static void store_kv_row(bool is_key, DType type, const float* from, int64_t head_dim,
                         const KvPlace& at, void* data, float* scales) {
  const int64_t row = at.page_head * at.page_size + at.place;
  switch (type) {
    case DType::kF16:
      return store_half_row(from, head_dim, static_cast<uint16_t*>(data) + row * head_dim);
    case DType::kI8: {
      auto* page = static_cast<int8_t*>(data) + at.page_head * at.page_size * head_dim;
      if (is_key)
        return store_int8_row<true>(from, head_dim,
                                    page + at.place / 16 * 16 * head_dim + at.place % 16 * 2, 32,
                                    scales + row);
      return store_int8_row<false>(
          from, head_dim, page + at.place / 2 * 2 * head_dim + at.place % 2, 2, scales + row);
    }
    default:
      __builtin_memcpy(static_cast<float*>(data) + row * head_dim, from,
                       static_cast<size_t>(head_dim) * sizeof(float));
  }
}

// In place; see KvLayerView. The same operations in the same order as the plain twin's.
static void spread_columns(float* x, int64_t head_dim) {
  const int64_t block = head_dim & -head_dim;
  if (block < kWidth) {
    walsh_hadamard(x, head_dim, block);
  } else {
    const VecI lanes = lane_numbers();
    for (int width = 1; width < kWidth; width *= 2) {
      const VecF sign = (lanes & width) == 0 ? splat(1.0f) : splat(-1.0f);
      for (int64_t j = 0; j < head_dim; j += kWidth) {
        const VecF v = load(x + j);
        store(x + j, shuffle(v, lanes ^ width) + v * sign);
      }
    }
    for (int64_t width = kWidth; width < block; width *= 2)
      for (int64_t base = 0; base < head_dim; base += 2 * width)
        for (int64_t j = base; j < base + width; j += kWidth) {
          const VecF a = load(x + j);
          const VecF b = load(x + j + width);
          store(x + j, a + b);
          store(x + j + width, a - b);
        }
  }
  const auto norm = static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(block)));
  for (int64_t j = 0; j < head_dim; ++j) x[j] *= norm;
}

static constexpr int64_t kMostCodeColumns = 512;

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
      const KvPlace at{page * a.kv_heads + h, place, c.page_size};
      const float* key = a.k + i * a.kv_stride + h * d;
      float spread[kMostCodeColumns];
      if (c.type == DType::kI8) {
        __builtin_memcpy(spread, key, static_cast<size_t>(d) * sizeof(float));
        spread_columns(spread, d);
        key = spread;
      }
      store_kv_row(true, c.type, key, d, at, c.keys, c.key_scales);
      store_kv_row(false, c.type, a.v + i * a.kv_stride + h * d, d, at, c.values, c.value_scales);
    }
  }
}
