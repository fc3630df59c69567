// Norm, rotary embedding, SiLU, structured rotation: rows of a few hundred to a few thousand
// floats.

static void rms_norm_rows(const RmsNormArgs& a, int64_t begin, int64_t end) {
  const int64_t whole = a.n / kWidth * kWidth;
  for (int64_t i = begin; i < end; ++i) {
    const float* x = a.x + i * a.n;
    float* y = a.y + i * a.n;
    VecF squares[2] = {};
    int64_t j = 0;
    for (; j + 2 * kWidth <= a.n; j += 2 * kWidth) {
      squares[0] += load(x + j) * load(x + j);
      squares[1] += load(x + j + kWidth) * load(x + j + kWidth);
    }
    for (; j < whole; j += kWidth) squares[0] += load(x + j) * load(x + j);
    double sum = sum_lanes_double(squares[0] + squares[1]);
    for (; j < a.n; ++j) sum += static_cast<double>(x[j]) * x[j];
    const auto inverse = static_cast<float>(
        1.0 / __builtin_sqrt(sum / static_cast<double>(a.n) + static_cast<double>(a.eps)));
    if (a.inverse_rms != nullptr) a.inverse_rms[i] = inverse;
    const float* weight = a.weight;
    for (j = 0; j < whole; j += kWidth) {
      const VecF scaled = load(x + j) * inverse;
      store(y + j, weight == nullptr ? scaled : scaled * load(weight + j));
    }
    for (; j < a.n; ++j) y[j] = x[j] * inverse * (weight == nullptr ? 1.0f : weight[j]);
  }
}

// sin and cos of angle >= 0, in float, by quadrants of a double reduction: right for positions
// beyond a million.
static inline void sine_cosine(double angle, float& sine, float& cosine) {
  const auto quadrant = static_cast<int32_t>(angle * 0.63661977236758134 + 0.5);
  const double turns = quadrant;
  const double reduced = angle - turns * 1.5707963267341256 - turns * 6.0771005065061922e-11;
  const auto r = static_cast<float>(reduced);  // |r| <= pi / 4
  const float r2 = r * r;
  float s = r2 * (1.0f / 362880.0f) - (1.0f / 5040.0f);
  s = s * r2 + (1.0f / 120.0f);
  s = s * r2 - (1.0f / 6.0f);
  s = s * r2 * r + r;
  float c = r2 * (-1.0f / 3628800.0f) + (1.0f / 40320.0f);
  c = c * r2 - (1.0f / 720.0f);
  c = c * r2 + (1.0f / 24.0f);
  c = c * r2 - 0.5f;
  c = c * r2 + 1.0f;
  const bool swap = (quadrant & 1) != 0;
  const float sine_sign = (quadrant & 2) != 0 ? -1.0f : 1.0f;
  const float cosine_sign = ((quadrant + 1) & 2) != 0 ? -1.0f : 1.0f;
  sine = (swap ? c : s) * sine_sign;
  cosine = (swap ? s : c) * cosine_sign;
}

// Cosines and sines, half each, of one token's angles.
static inline void fill_angles(int64_t half, const float* inverse_frequencies, int32_t position,
                               float* table) {
  for (int64_t j = 0; j < half; ++j)
    sine_cosine(static_cast<double>(position) * static_cast<double>(inverse_frequencies[j]),
                table[half + j], table[j]);
}

static void rope_table_rows(int64_t head_dim, const float* inverse_frequencies,
                            const int32_t* positions, int64_t begin, int64_t end, float* table) {
  for (int64_t i = begin; i < end; ++i)
    fill_angles(head_dim / 2, inverse_frequencies, positions[i], table + i * head_dim);
}

static inline void rotate_head(int64_t half, const float* cosines, const float* sines, float* x) {
  float* low = x;
  float* high = x + half;
  int64_t j = 0;
  for (; j + kWidth <= half; j += kWidth) {
    const VecF a = load(low + j);
    const VecF b = load(high + j);
    store(low + j, a * load(cosines + j) - b * load(sines + j));
    store(high + j, b * load(cosines + j) + a * load(sines + j));
  }
  for (; j < half; ++j) {
    const float a = low[j];
    const float b = high[j];
    low[j] = a * cosines[j] - b * sines[j];
    high[j] = b * cosines[j] + a * sines[j];
  }
}

static void rope_rows(const RopeArgs& a, int64_t begin, int64_t end, float* table) {
  const int64_t half = a.head_dim / 2;
  for (int64_t i = begin; i < end; ++i) {
    fill_angles(half, a.inverse_frequencies, a.positions[i], table);
    if (a.inverse)
      for (int64_t j = 0; j < half; ++j) table[half + j] = -table[half + j];
    for (int64_t h = 0; h < a.heads; ++h)
      rotate_head(half, table, table + half, a.x + i * a.row_stride + h * a.head_dim);
  }
}

static inline VecF sigmoid(VecF x) {
  return 1.0f / (1.0f + exp_of(-x));
}

static void silu_mul_range(const SiluMulArgs& a, int64_t begin, int64_t end) {
  int64_t i = begin;
  for (; i + kWidth <= end; i += kWidth) {
    const VecF gate = load(a.gate + i);
    store(a.y + i, gate * sigmoid(gate) * load(a.up + i));
  }
  if (i == end) return;
  const VecF gate = load_part(a.gate + i, end - i, 0.0f);
  store_part(a.y + i, gate * sigmoid(gate) * load_part(a.up + i, end - i, 0.0f), end - i);
}

static void silu_mul_backward_range(const SiluMulBackwardArgs& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += kWidth) {
    const int64_t count = end - i < kWidth ? end - i : kWidth;
    const bool part = count < kWidth;
    const VecF gate = part ? load_part(a.gate + i, count, 0.0f) : load(a.gate + i);
    const VecF up = part ? load_part(a.up + i, count, 0.0f) : load(a.up + i);
    const VecF dy = part ? load_part(a.dy + i, count, 0.0f) : load(a.dy + i);
    const VecF s = sigmoid(gate);
    const VecF dup = dy * gate * s;
    const VecF dgate = dy * up * s * (1.0f + gate * (1.0f - s));
    if (part) {
      store_part(a.dup + i, dup, count);
      store_part(a.dgate + i, dgate, count);
    } else {
      store(a.dup + i, dup);
      store(a.dgate + i, dgate);
    }
  }
}

static void rms_norm_backward_rows(const RmsNormBackwardArgs& a, int64_t begin, int64_t end,
                                   float* dweight) {
  const int64_t whole = a.n / kWidth * kWidth;
  for (int64_t i = begin; i < end; ++i) {
    const float* x = a.x + i * a.n;
    const float* dy = a.dy + i * a.n;
    float* dx = a.dx + i * a.n;
    const float r = a.inverse_rms[i];
    VecF dots{};
    int64_t j = 0;
    for (; j < whole; j += kWidth) {
      const VecF product = load(dy + j) * load(x + j);
      dots += a.weight == nullptr ? product : product * load(a.weight + j);
      if (dweight != nullptr) store(dweight + j, load(dweight + j) + product * r);
    }
    double dot = sum_lanes_double(dots);
    for (; j < a.n; ++j) {
      const float product = dy[j] * x[j];
      dot += static_cast<double>(a.weight == nullptr ? product : product * a.weight[j]);
      if (dweight != nullptr) dweight[j] += product * r;
    }
    const auto pull =
        static_cast<float>(static_cast<double>(r) * r * dot / static_cast<double>(a.n));
    for (j = 0; j < whole; j += kWidth) {
      const VecF g = a.weight == nullptr ? load(dy + j) : load(dy + j) * load(a.weight + j);
      store(dx + j, load(dx + j) + r * (g - load(x + j) * pull));
    }
    for (; j < a.n; ++j) {
      const float g = a.weight == nullptr ? dy[j] : dy[j] * a.weight[j];
      dx[j] += r * (g - x[j] * pull);
    }
  }
}

static void multiply_signs(float* x, const float* signs, float scale, int64_t n) {
  int64_t j = 0;
  if (signs == nullptr) {
    for (; j < n; ++j) x[j] *= scale;
    return;
  }
  for (; j + kWidth <= n; j += kWidth) store(x + j, load(x + j) * load(signs + j) * scale);
  for (; j < n; ++j) x[j] *= signs[j] * scale;
}

// out[i'] = Σ_i F[i, i'] x[i] over rows of h floats, or with Fᵀ.
static void multiply_factor(const RotationView& r, bool transposed, const float* x, float* out) {
  for (int64_t to = 0; to < r.p; ++to) {
    float* y = out + to * r.h;
    for (int64_t j = 0; j < r.h; ++j) y[j] = 0.0f;
    for (int64_t from = 0; from < r.p; ++from) {
      const float f = transposed ? r.factor[to * r.p + from] : r.factor[from * r.p + to];
      const float* row = x + from * r.h;
      int64_t j = 0;
      for (; j + kWidth <= r.h; j += kWidth) store(y + j, load(y + j) + f * load(row + j));
      for (; j < r.h; ++j) y[j] += f * row[j];
    }
  }
}

static void walsh_hadamard(float* x, int64_t n, int64_t h) {
  for (int64_t width = 1; width < h; width *= 2) {
    for (int64_t base = 0; base < n; base += 2 * width) {
      float* low = x + base;
      float* high = low + width;
      int64_t j = 0;
      for (; j + kWidth <= width; j += kWidth) {
        const VecF a = load(low + j);
        const VecF b = load(high + j);
        store(low + j, a + b);
        store(high + j, a - b);
      }
      for (; j < width; ++j) {
        const float a = low[j];
        const float b = high[j];
        low[j] = a + b;
        high[j] = a - b;
      }
    }
  }
}

static void rotate_rows(const RotateArgs& a, int64_t begin, int64_t end, float* scratch) {
  const RotationView& r = a.rotation;
  const float* first = a.inverse ? r.signs_out : r.signs_in;
  const float* last = a.inverse ? r.signs_in : r.signs_out;
  const auto norm = static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(r.h)));
  const bool factor = r.factor != nullptr && r.p > 1;
  for (int64_t i = begin; i < end; ++i) {
    float* x = a.x + i * r.n;
    multiply_signs(x, first, 1.0f, r.n);
    float* work = x;
    if (factor) {
      multiply_factor(r, a.inverse, x, scratch);
      work = scratch;
    }
    walsh_hadamard(work, r.n, r.h);
    multiply_signs(work, last, norm, r.n);
    if (factor) __builtin_memcpy(x, work, static_cast<size_t>(r.n) * sizeof(float));
  }
}
