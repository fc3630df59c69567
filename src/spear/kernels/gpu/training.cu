// The sums and small maps of the trainer (backend/training_ops.h). Reductions over tokens go over
// strips of rows, then over strips, in a fixed order: the same gradients every time.
#include "spear/kernels/gpu/check.h"
#include "spear/kernels/gpu/gpu_training.h"
#include "spear/kernels/gpu/reduce.cuh"

namespace spear::gpu {
namespace {

constexpr int kBlock = 256;
constexpr int64_t kStrip = 128;  // rows whose sums one block makes

unsigned blocks_for(int64_t count, int64_t block = kBlock) {
  return static_cast<unsigned>((count + block - 1) / block);
}

__device__ int64_t element() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ float from_bf16(uint16_t bits) {
  return __uint_as_float(static_cast<unsigned>(bits) << 16);
}
__device__ uint16_t to_bf16(float value) {
  const unsigned bits = __float_as_uint(value);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

__global__ void fill_kernel(int64_t count, float value, float* y) {
  if (const int64_t i = element(); i < count) y[i] = value;
}

__global__ void widen_kernel(const WidenCodesArgs a) {
  const int64_t i = element();
  if (i >= a.n * a.k) return;
  const int64_t g = i / a.k * (a.k / a.group) + i % a.k / a.group;
  const float zero = a.zeros != nullptr ? a.zeros[g] : a.centre;
  a.out[i] = to_bf16(a.scales[g] * a.multipliers[g] * (static_cast<float>(a.codes[i]) - zero));
}

// One warp a row.
__global__ void row_sum_kernel(int64_t m, int64_t k, const uint16_t* x, float* sums) {
  const int64_t row = element() / 32;
  if (row >= m) return;
  float sum = 0;
  for (int64_t j = threadIdx.x % 32; j < k; j += 32) sum += from_bf16(x[row * k + j]);
  sum = warp_reduce(sum, Plus{});
  if (threadIdx.x % 32 == 0) sums[row] = sum;
}

// partials: [3][strips][n]
__global__ void column_strips_kernel(const ColumnSumsArgs a, int64_t strips, float* partials) {
  const int64_t j = element();
  if (j >= a.n) return;
  const int64_t strip = blockIdx.y;
  const int64_t end = min((strip + 1) * kStrip, a.m);
  float products = 0;
  float weighted = 0;
  float plain = 0;
  for (int64_t t = strip * kStrip; t < end; ++t) {
    const float value = a.a[t * a.stride + j];
    if (a.products != nullptr) products += value * a.b[t * a.stride + j];
    if (a.weighted != nullptr) weighted += value * a.weight[t];
    plain += value;
  }
  float* out = partials + strip * a.n + j;
  out[0] = products;
  out[strips * a.n] = weighted;
  out[2 * strips * a.n] = plain;
}

__global__ void column_total_kernel(const ColumnSumsArgs a, int64_t strips, const float* partials) {
  const int64_t j = element();
  if (j >= a.n) return;
  float* const outputs[3] = {a.products, a.weighted, a.plain};
  for (int part = 0; part < 3; ++part) {
    if (outputs[part] == nullptr) continue;
    float sum = 0;
    for (int64_t s = 0; s < strips; ++s) sum += partials[(part * strips + s) * a.n + j];
    outputs[part][j] = sum;
  }
}

__global__ void channel_kernel(const ChannelGradientsArgs a) {
  const int64_t i = element();
  if (i >= a.n) return;
  const float plain = a.plain[i];
  if (a.dbias != nullptr) a.dbias[i] += plain;
  if (a.dzeros != nullptr) a.dzeros[i] -= a.scales[i] * a.multipliers[i] * a.weighted[i];
  if (a.dmultipliers == nullptr) return;
  float base = a.products[i] - (a.bias != nullptr ? a.bias[i] * plain : 0.0f);
  for (int64_t r = 0; r < a.rank; ++r) base -= a.b[r * a.n + i] * a.db[r * a.n + i];
  a.dmultipliers[i] += base / a.multipliers[i];
}

// One warp a group.
__global__ void group_kernel(const GroupGradientsArgs a) {
  const int64_t at = element() / 32;
  const int64_t groups = a.k / a.group;
  if (at >= a.n * groups) return;
  const int64_t first = at / groups * a.k + at % groups * a.group;
  float total = 0;
  float coded = 0;
  for (int64_t j = threadIdx.x % 32; j < a.group; j += 32) {
    const float g = a.g[first + j];
    total += g;
    coded += g * static_cast<float>(a.codes[first + j]);
  }
  total = warp_reduce(total, Plus{});
  coded = warp_reduce(coded, Plus{});
  if (threadIdx.x % 32 != 0) return;
  const float zero = a.zeros != nullptr ? a.zeros[at] : a.centre;
  if (a.dmultipliers != nullptr) a.dmultipliers[at] += a.scales[at] * (coded - zero * total);
  if (a.dzeros != nullptr) a.dzeros[at] -= a.scales[at] * a.multipliers[at] * total;
}

__device__ float hidden_unit(const GateArgs& a, const float* z, int64_t i) {
  float sum = a.b1[i];
  for (int64_t r = 0; r < a.rank; ++r) sum += a.w1[i * a.rank + r] * z[r];
  return fmaxf(sum, 0.0f);
}

__device__ float gate_tanh(const GateArgs& a, const float* h, int64_t r) {
  float sum = a.b2[r];
  for (int64_t i = 0; i < a.hidden; ++i) sum += a.w2[r * a.hidden + i] * h[i];
  return tanhf(sum);
}

// One block a token; hidden units in shared memory.
__global__ void gate_kernel(const GateArgs a) {
  extern __shared__ float hidden[];
  const int64_t t = blockIdx.x;
  const float* z = a.z + t * a.rank;
  for (int64_t i = threadIdx.x; i < a.hidden; i += blockDim.x) hidden[i] = hidden_unit(a, z, i);
  __syncthreads();
  for (int64_t r = threadIdx.x; r < a.rank; r += blockDim.x)
    a.u[t * a.rank + r] = z[r] * (a.hidden > 0 ? 1.0f + gate_tanh(a, hidden, r) : 1.0f);
}

// With t = tanh s:  ds = (1 − t²) z du;  dh = W2ᵀ ds where h > 0;  dz = (1 + t) du + W1ᵀ dh
__global__ void gate_backward_kernel(const GateBackwardArgs g) {
  const GateArgs& a = g.forward;
  const int64_t t = blockIdx.x;
  const float* z = a.z + t * a.rank;
  const float* du = g.du + t * a.rank;
  float* dz = g.dz + t * a.rank;
  if (a.hidden == 0) {
    for (int64_t r = threadIdx.x; r < a.rank; r += blockDim.x) dz[r] = du[r];
    return;
  }
  float* h = g.h + t * a.hidden;
  float* dh = g.dh + t * a.hidden;
  float* ds = g.ds + t * a.rank;
  for (int64_t i = threadIdx.x; i < a.hidden; i += blockDim.x) h[i] = hidden_unit(a, z, i);
  __syncthreads();
  for (int64_t r = threadIdx.x; r < a.rank; r += blockDim.x) {
    const float tanh = gate_tanh(a, h, r);
    ds[r] = (1.0f - tanh * tanh) * z[r] * du[r];
    dz[r] = (1.0f + tanh) * du[r];
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < a.hidden; i += blockDim.x) {
    float sum = 0;
    for (int64_t r = 0; r < a.rank; ++r) sum += a.w2[r * a.hidden + i] * ds[r];
    dh[i] = h[i] > 0 ? sum : 0.0f;
  }
  __syncthreads();
  for (int64_t r = threadIdx.x; r < a.rank; r += blockDim.x) {
    float sum = 0;
    for (int64_t i = 0; i < a.hidden; ++i) sum += a.w1[i * a.rank + r] * dh[i];
    dz[r] += sum;
  }
}

}  // namespace

void fill(int64_t count, float value, float* y, Stream stream) {
  if (count == 0) return;
  fill_kernel<<<blocks_for(count), kBlock, 0, stream>>>(count, value, y);
  check_launch();
}

void row_sums(int64_t m, int64_t k, const uint16_t* x, float* sums, Stream stream) {
  row_sum_kernel<<<blocks_for(m * 32), kBlock, 0, stream>>>(m, k, x, sums);
  check_launch();
}

void widen_codes(const WidenCodesArgs& args, Stream stream) {
  widen_kernel<<<blocks_for(args.n * args.k), kBlock, 0, stream>>>(args);
  check_launch();
}

int64_t column_partial_floats(const ColumnSumsArgs& args) {
  return 3 * ((args.m + kStrip - 1) / kStrip) * args.n;
}

void column_sums(const ColumnSumsArgs& args, float* partials, Stream stream) {
  const int64_t strips = (args.m + kStrip - 1) / kStrip;
  column_strips_kernel<<<dim3(blocks_for(args.n, 64), static_cast<unsigned>(strips)), 64, 0,
                         stream>>>(args, strips, partials);
  check_launch();
  column_total_kernel<<<blocks_for(args.n), kBlock, 0, stream>>>(args, strips, partials);
  check_launch();
}

void channel_gradients(const ChannelGradientsArgs& args, Stream stream) {
  channel_kernel<<<blocks_for(args.n), kBlock, 0, stream>>>(args);
  check_launch();
}

void group_gradients(const GroupGradientsArgs& args, Stream stream) {
  group_kernel<<<blocks_for(args.n * (args.k / args.group) * 32), kBlock, 0, stream>>>(args);
  check_launch();
}

void gate(const GateArgs& args, Stream stream) {
  gate_kernel<<<static_cast<unsigned>(args.m), 64, static_cast<size_t>(args.hidden) * sizeof(float),
                stream>>>(args);
  check_launch();
}

void gate_backward(const GateBackwardArgs& args, Stream stream) {
  gate_backward_kernel<<<static_cast<unsigned>(args.forward.m), 64, 0, stream>>>(args);
  check_launch();
}

}  // namespace spear::gpu
