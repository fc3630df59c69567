// Rotation of a decoder (QuaRot, 2024), folded offline: RMS norm weights move into the linears that
// follow them, the residual stream is rotated by a randomised structured orthogonal Q, and the
// heads between v and o by one small R2. The function computed stays the same; the weights lose
// their outliers. Linears come out one by one in F32, so a model is never held twice. Thread-safe
// reads; each call works on the pool.
#pragma once

#include <cstdint>
#include <vector>

#include "spear/base/host_tensor.h"
#include "spear/base/thread_pool.h"
#include "spear/model/dense_model.h"
#include "spear/model/quantized_model.h"

namespace spear {

// A random Q of size n = p · 2^e: random signs, a random orthogonal p x p factor, the Hadamard
// transform over 2^e. Any n works; the result depends on n and the seed alone.
ResidualRotation make_rotation(int64_t n, uint64_t seed);

struct Rotation {
  ResidualRotation residual;  // over hidden_size
  ResidualRotation head;      // over head_dim, the same for all heads
};
Rotation make_rotation(const ModelConfig& config, uint64_t seed);

// A linear as the quantizer takes it.
struct WorkingLinear {
  HostTensor weight;        // [n, k] f32
  std::vector<float> bias;  // [n] or empty
};

// The linear of the rotated model; with no rotation the weights as they are, in F32.
WorkingLinear working_linear(const DenseModel& model, const ModuleId& id, const Rotation* rotation,
                             ThreadPool& pool);

// Turns the covariance of a site's inputs in the model as it is into that of the rotated model, in
// place: R' = Qᵀ·D⁻¹·R·D⁻¹·Q where D is the folded norm weight (0 for a channel whose weight is 0:
// nothing passes through it).
void rotate_covariance(const DenseModel& model, int32_t layer, InputSite site,
                       const Rotation& rotation, ThreadPool& pool,
                       HostTensor& covariance);  // [k, k] f32

}  // namespace spear
