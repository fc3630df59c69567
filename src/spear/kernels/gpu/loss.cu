// What is computed over the vocabulary: one block a row, FP32 with the maximum taken out first.
#include <cmath>

#include "spear/kernels/gpu/check.h"
#include "spear/kernels/gpu/gpu_kernels.h"
#include "spear/kernels/gpu/reduce.cuh"

namespace spear::gpu {
namespace {

constexpr int kBlock = 512;

__device__ float row_log_sum(const float* row, int64_t vocab, float inverse_temperature,
                             float* slots) {
  float top = -INFINITY;
  for (int64_t v = threadIdx.x; v < vocab; v += blockDim.x)
    top = fmaxf(top, row[v] * inverse_temperature);
  top = block_reduce(top, -INFINITY, Largest{}, slots);
  float sum = 0;
  for (int64_t v = threadIdx.x; v < vocab; v += blockDim.x)
    sum += expf(row[v] * inverse_temperature - top);
  sum = block_reduce(sum, 0.0f, Plus{}, slots);
  return top + logf(sum);
}

__global__ void log_sum_exp_kernel(const LogSumExpArgs a) {
  __shared__ float slots[32];
  const float* row = a.logits + static_cast<int64_t>(blockIdx.x) * a.vocab;
  const float log_sum = row_log_sum(row, a.vocab, 1.0f, slots);
  if (a.log_sum != nullptr && threadIdx.x == 0) a.log_sum[blockIdx.x] = log_sum;
  if (a.targets != nullptr && threadIdx.x == 0)
    a.target_logits[blockIdx.x] = row[a.targets[blockIdx.x]];
  if (a.argmax == nullptr) return;
  float top = -INFINITY;
  for (int64_t v = threadIdx.x; v < a.vocab; v += blockDim.x) top = fmaxf(top, row[v]);
  top = block_reduce(top, -INFINITY, Largest{}, slots);
  __shared__ int first;
  if (threadIdx.x == 0) first = static_cast<int>(a.vocab);
  __syncthreads();
  for (int64_t v = threadIdx.x; v < a.vocab; v += blockDim.x)
    if (row[v] == top) {
      atomicMin(&first, static_cast<int>(v));
      break;
    }
  __syncthreads();
  if (threadIdx.x == 0) a.argmax[blockIdx.x] = first;
}

__global__ void kl_kernel(const KlArgs a) {
  __shared__ float slots[32];
  const int64_t row = blockIdx.x;
  const float* teacher = a.teacher + row * a.vocab;
  float* student = a.student + row * a.vocab;
  const float inverse = 1.0f / a.temperature;
  const float teacher_sum = row_log_sum(teacher, a.vocab, inverse, slots);
  const float student_sum = row_log_sum(student, a.vocab, inverse, slots);
  float kl = 0;
  for (int64_t v = threadIdx.x; v < a.vocab; v += blockDim.x) {
    const float log_p = teacher[v] * inverse - teacher_sum;
    const float log_q = student[v] * inverse - student_sum;
    const float p = expf(log_p);
    kl += p * (log_p - log_q);
    if (a.gradient_scale != 0.0f) student[v] = a.gradient_scale * a.temperature * (expf(log_q) - p);
  }
  kl = block_reduce(kl, 0.0f, Plus{}, slots);
  if (threadIdx.x == 0) a.kl[row] = kl;
}

}  // namespace

void log_sum_exp(const LogSumExpArgs& args, Stream stream) {
  if (args.m == 0) return;
  log_sum_exp_kernel<<<static_cast<unsigned>(args.m), kBlock, 0, stream>>>(args);
  check_launch();
}

void kl_divergence(const KlArgs& args, Stream stream) {
  if (args.m == 0) return;
  kl_kernel<<<static_cast<unsigned>(args.m), kBlock, 0, stream>>>(args);
  check_launch();
}

}  // namespace spear::gpu
