#include "spear/kernels/loss.h"

#include <algorithm>
#include <cmath>

namespace spear::ref {
namespace {

// log Σ exp(x / temperature)
double log_sum(const float* x, int64_t count, double temperature) {
  const double highest = *std::max_element(x, x + count) / temperature;
  double sum = 0;
  for (int64_t j = 0; j < count; ++j) sum += std::exp(x[j] / temperature - highest);
  return highest + std::log(sum);
}

}  // namespace

void log_sum_exp(const LogSumExpArgs& a) {
  for (int64_t i = 0; i < a.m; ++i) {
    const float* x = a.logits + i * a.vocab;
    if (a.log_sum != nullptr) a.log_sum[i] = static_cast<float>(log_sum(x, a.vocab, 1.0));
    if (a.argmax != nullptr)
      a.argmax[i] = static_cast<int32_t>(std::max_element(x, x + a.vocab) - x);
    if (a.targets != nullptr) a.target_logits[i] = x[a.targets[i]];
  }
}

void kl_divergence(const KlArgs& a) {
  const double temperature = a.temperature;
  for (int64_t i = 0; i < a.m; ++i) {
    const float* teacher = a.teacher + i * a.vocab;
    float* student = a.student + i * a.vocab;
    const double teacher_sum = log_sum(teacher, a.vocab, temperature);
    const double student_sum = log_sum(student, a.vocab, temperature);
    double kl = 0;
    for (int64_t j = 0; j < a.vocab; ++j) {
      const double log_p = teacher[j] / temperature - teacher_sum;
      const double log_q = student[j] / temperature - student_sum;
      kl += std::exp(log_p) * (log_p - log_q);
      if (a.gradient_scale != 0)
        student[j] = static_cast<float>(a.gradient_scale * temperature *
                                        (std::exp(log_q) - std::exp(log_p)));
    }
    a.kl[i] = static_cast<float>(kl);
  }
}

}  // namespace spear::ref
