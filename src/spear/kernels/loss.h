// Contract of what is computed over the vocabulary: log-probabilities, KL divergence and its
// gradient, per row. Logits come in chunks of rows, so that [tokens, vocab] never exists whole.
// FP32 with double accumulation of sums.
#pragma once

#include <cstdint>

namespace spear {

class ThreadPool;

// Per row: log-sum-exp, the argmax (lowest index wins) and the logit of a target.
struct LogSumExpArgs {
  int64_t m = 0, vocab = 0;
  const float* logits = nullptr;     // [m, vocab]
  float* log_sum = nullptr;          // [m] or null
  int32_t* argmax = nullptr;         // [m] or null
  const int32_t* targets = nullptr;  // [m], below vocab, or null
  float* target_logits = nullptr;    // [m]; with targets
};

// Per row: KL(softmax(teacher / T) || softmax(student / T)) in nats.
struct KlArgs {
  int64_t m = 0, vocab = 0;
  const float* teacher = nullptr;  // [m, vocab] logits
  float* student =
      nullptr;  // [m, vocab] logits; overwritten by the gradient when `gradient_scale` is not 0
  float temperature = 1.0f;
  float gradient_scale =
      0.0f;  // gradient = scale · T · (softmax(student/T) − softmax(teacher/T)): that of T²·KL
  float* kl = nullptr;  // [m]
};

namespace ref {
void log_sum_exp(const LogSumExpArgs& args);
void kl_divergence(const KlArgs& args);
}  // namespace ref

namespace cpu {
void log_sum_exp(const LogSumExpArgs& args, ThreadPool& pool);
void kl_divergence(const KlArgs& args, ThreadPool& pool);
}  // namespace cpu

}  // namespace spear
