// RMS norm and its reverse, one block a row. The weight's gradient is summed over strips of rows,
// then over strips, in a fixed order.
#include <algorithm>

#include "spear/kernels/gpu/check.h"
#include "spear/kernels/gpu/gpu_kernels.h"
#include "spear/kernels/gpu/reduce.cuh"

namespace spear::gpu {
namespace {

constexpr int kBlock = 256;
constexpr int64_t kStrip = 64;  // rows whose weight gradients one block sums

__global__ void rms_norm_kernel(const RmsNormArgs a) {
  __shared__ float slots[32];
  const int64_t row = blockIdx.x;
  const float* x = a.x + row * a.n;
  float squares = 0;
  for (int64_t j = threadIdx.x; j < a.n; j += blockDim.x) squares += x[j] * x[j];
  squares = block_reduce(squares, 0.0f, Plus{}, slots);
  const float inverse = rsqrtf(squares / static_cast<float>(a.n) + a.eps);
  if (a.inverse_rms != nullptr && threadIdx.x == 0) a.inverse_rms[row] = inverse;
  float* y = a.y + row * a.n;
  for (int64_t j = threadIdx.x; j < a.n; j += blockDim.x)
    y[j] = x[j] * inverse * (a.weight != nullptr ? a.weight[j] : 1.0f);
}

// With g = dy ⊙ w and h = x · r:  dx += r (g − h · mean(g ⊙ h))
__global__ void backward_kernel(const RmsNormBackwardArgs a) {
  __shared__ float slots[32];
  const int64_t row = blockIdx.x;
  const float* x = a.x + row * a.n;
  const float* dy = a.dy + row * a.n;
  const float r = a.inverse_rms[row];
  float dot = 0;
  for (int64_t j = threadIdx.x; j < a.n; j += blockDim.x)
    dot += dy[j] * (a.weight != nullptr ? a.weight[j] : 1.0f) * x[j] * r;
  dot = block_reduce(dot, 0.0f, Plus{}, slots) / static_cast<float>(a.n);
  float* dx = a.dx + row * a.n;
  for (int64_t j = threadIdx.x; j < a.n; j += blockDim.x)
    dx[j] += r * (dy[j] * (a.weight != nullptr ? a.weight[j] : 1.0f) - x[j] * r * dot);
}

// partials[strip, j] = Σ of dy · x · r over the strip's rows
__global__ void weight_strips_kernel(const RmsNormBackwardArgs a, float* partials) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j >= a.n) return;
  const int64_t begin = static_cast<int64_t>(blockIdx.y) * kStrip;
  const int64_t end = begin + kStrip < a.m ? begin + kStrip : a.m;
  float sum = 0;
  for (int64_t row = begin; row < end; ++row)
    sum += a.dy[row * a.n + j] * a.x[row * a.n + j] * a.inverse_rms[row];
  partials[static_cast<int64_t>(blockIdx.y) * a.n + j] = sum;
}

__global__ void weight_sum_kernel(int64_t n, int64_t strips, const float* partials,
                                  float* dweight) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j >= n) return;
  float sum = 0;
  for (int64_t s = 0; s < strips; ++s) sum += partials[s * n + j];
  dweight[j] += sum;
}

}  // namespace

int64_t norm_partial_rows(int64_t m) {
  return (m + kStrip - 1) / kStrip;
}

void rms_norm(const RmsNormArgs& args, Stream stream) {
  if (args.m == 0) return;
  rms_norm_kernel<<<static_cast<unsigned>(args.m), kBlock, 0, stream>>>(args);
  check_launch();
}

void rms_norm_backward(const RmsNormBackwardArgs& args, float* partials, Stream stream) {
  if (args.m == 0) return;
  if (args.dweight != nullptr) {
    const int64_t strips = norm_partial_rows(args.m);
    const auto columns = static_cast<unsigned>((args.n + kBlock - 1) / kBlock);
    weight_strips_kernel<<<dim3(columns, static_cast<unsigned>(strips)), kBlock, 0, stream>>>(
        args, partials);
    check_launch();
    weight_sum_kernel<<<columns, kBlock, 0, stream>>>(args.n, strips, partials, args.dweight);
    check_launch();
  }
  backward_kernel<<<static_cast<unsigned>(args.m), kBlock, 0, stream>>>(args);
  check_launch();
}

}  // namespace spear::gpu
