// Softmax statistics over the vocabulary. Two passes over a row (its largest value, then the sums):
// the second reads from the cache. Sums run in floats over kBlock elements and in doubles beyond,
// so the length of a row costs no accuracy.

static constexpr int64_t kBlock = 64 * kWidth;

static float largest(const float* x, int64_t count) {
  VecF best[4];
  for (VecF& b : best) b = splat(-__builtin_inff());
  int64_t j = 0;
  for (; j + 4 * kWidth <= count; j += 4 * kWidth)
    for (int u = 0; u < 4; ++u) best[u] = larger(load(x + j + u * kWidth), best[u]);
  float result = max_lanes(larger(larger(best[0], best[1]), larger(best[2], best[3])));
  for (; j < count; ++j) result = x[j] > result ? x[j] : result;
  return result;
}

// The first index of a value that is there; the last index where it is not (a row of NaN).
static int32_t first_of(const float* x, int64_t count, float value) {
  int64_t at = 0;
  for (; at + kBlock < count; at += kBlock) {
    VecI found{};
    for (int64_t j = at; j < at + kBlock; j += kWidth) found |= load(x + j) == value;
    if (max_lanes(to_float(-found)) > 0.0f) break;
  }
  while (at + 1 < count && !(x[at] == value)) ++at;
  return static_cast<int32_t>(at);
}

static inline VecF load_up_to(const float* p, int64_t count, float fill) {
  return count >= kWidth ? load(p) : load_part(p, count, fill);
}

static double sum_of_exponentials(const float* x, int64_t count, float highest) {
  double sum = 0;
  for (int64_t block = 0; block < count; block += kBlock) {
    const int64_t end = block + kBlock < count ? block + kBlock : count;
    VecF sums{};
    for (int64_t j = block; j < end; j += kWidth)
      sums += exp_of(load_up_to(x + j, end - j, -__builtin_inff()) - highest);
    sum += sum_lanes_double(sums);
  }
  return sum;
}

static void log_sum_exp_rows(const LogSumExpArgs& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* x = a.logits + i * a.vocab;
    const float highest = largest(x, a.vocab);
    if (a.argmax != nullptr) {
      a.argmax[i] = first_of(x, a.vocab, highest);
    }
    if (a.targets != nullptr) a.target_logits[i] = x[a.targets[i]];
    if (a.log_sum != nullptr)
      a.log_sum[i] = static_cast<float>(static_cast<double>(highest) +
                                        __builtin_log(sum_of_exponentials(x, a.vocab, highest)));
  }
}

// Σ e^{t}, Σ e^{s}, Σ e^{t} (t − s) of one row, t and s divided by the temperature and shifted by
// their largest.
struct KlSums {
  double teacher = 0, student = 0, cross = 0;
};

static KlSums kl_sums(const float* teacher, const float* student, int64_t count, float inverse,
                      float teacher_high, float student_high) {
  KlSums total;
  for (int64_t block = 0; block < count; block += kBlock) {
    const int64_t end = block + kBlock < count ? block + kBlock : count;
    VecF teacher_sum{};
    VecF student_sum{};
    VecF cross{};
    for (int64_t j = block; j < end; j += kWidth) {
      // Lanes beyond the row: e^t = e^s = 0, and t − s is finite, so they add nothing.
      const VecF t = (load_up_to(teacher + j, end - j, -1e30f) - teacher_high) * inverse;
      const VecF s = (load_up_to(student + j, end - j, -1e30f) - student_high) * inverse;
      const VecF p = exp_of(t);
      teacher_sum += p;
      student_sum += exp_of(s);
      cross += p * (t - s);
    }
    total.teacher += sum_lanes_double(teacher_sum);
    total.student += sum_lanes_double(student_sum);
    total.cross += sum_lanes_double(cross);
  }
  return total;
}

static void kl_gradient(const float* teacher, float* student, int64_t count, float inverse,
                        float teacher_high, float student_high, float teacher_scale,
                        float student_scale) {
  for (int64_t j = 0; j < count; j += kWidth) {
    const int64_t left = count - j;
    const VecF t = exp_of((load_up_to(teacher + j, left, 0.0f) - teacher_high) * inverse);
    const VecF s = exp_of((load_up_to(student + j, left, 0.0f) - student_high) * inverse);
    const VecF gradient = s * student_scale - t * teacher_scale;
    if (left >= kWidth) {
      store(student + j, gradient);
    } else {
      store_part(student + j, gradient, left);
    }
  }
}

static void kl_divergence_rows(const KlArgs& a, int64_t begin, int64_t end) {
  const float inverse = 1.0f / a.temperature;
  for (int64_t i = begin; i < end; ++i) {
    const float* teacher = a.teacher + i * a.vocab;
    float* student = a.student + i * a.vocab;
    const float teacher_high = largest(teacher, a.vocab);
    const float student_high = largest(student, a.vocab);
    const KlSums sums = kl_sums(teacher, student, a.vocab, inverse, teacher_high, student_high);
    a.kl[i] =
        static_cast<float>(sums.cross / sums.teacher + __builtin_log(sums.student / sums.teacher));
    if (a.gradient_scale == 0.0f) continue;
    const double scale = static_cast<double>(a.gradient_scale) * static_cast<double>(a.temperature);
    kl_gradient(teacher, student, a.vocab, inverse, teacher_high, student_high,
                static_cast<float>(scale / sums.teacher), static_cast<float>(scale / sums.student));
  }
}
