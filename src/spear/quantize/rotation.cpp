#include "spear/quantize/rotation.h"

#include <algorithm>
#include <cmath>

#include "spear/base/check.h"
#include "spear/quantize/linalg.h"

namespace spear {
namespace {

std::vector<float> random_signs(int64_t n, Rng& rng) {
  std::vector<float> signs(static_cast<size_t>(n));
  for (float& sign : signs) sign = (rng.next() & 1u) != 0 ? 1.0f : -1.0f;
  return signs;
}

HostTensor as_f32(const HostTensor& tensor) {
  if (tensor.dtype() == DType::kF32) return tensor.clone();
  expects(tensor.dtype() == DType::kBF16);
  HostTensor out(tensor.shape(), DType::kF32);
  const auto from = tensor.as<uint16_t>();
  std::transform(from.begin(), from.end(), out.as<float>().begin(), float_from_bf16);
  return out;
}

HostTensor transposed(const HostTensor& a, ThreadPool& pool) {
  const int64_t rows = a.shape()[0], columns = a.shape()[1];
  HostTensor out({columns, rows}, DType::kF32);
  const float* from = a.as<float>().data();
  float* to = out.as<float>().data();
  constexpr int64_t kTile = 32;
  pool.parallel_for((columns + kTile - 1) / kTile, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c0 = begin * kTile; c0 < std::min(columns, end * kTile); c0 += kTile)
      for (int64_t r0 = 0; r0 < rows; r0 += kTile)
        for (int64_t c = c0; c < std::min(columns, c0 + kTile); ++c)
          for (int64_t r = r0; r < std::min(rows, r0 + kTile); ++r)
            to[c * rows + r] = from[r * columns + c];
  });
  return out;
}

// Each row of x, cut into pieces of rotation.n, becomes piece · Q.
void rotate_rows(float* x, int64_t count, const ResidualRotation& rotation, ThreadPool& pool) {
  const RotationView view = rotation.view();
  expects(count % view.n == 0);
  cpu::rotate({.m = count / view.n, .rotation = view, .inverse = false, .x = x}, pool);
}

// w ← w · Q along the inputs (columns), or per block of rotation.n inputs.
void rotate_inputs(HostTensor& weight, const ResidualRotation& rotation, ThreadPool& pool) {
  rotate_rows(weight.as<float>().data(), weight.count(), rotation, pool);
}

// w ← Qᵀ · w along the outputs (rows), or per block of rotation.n outputs.
void rotate_outputs(WorkingLinear& linear, const ResidualRotation& rotation, ThreadPool& pool) {
  HostTensor by_input = transposed(linear.weight, pool);
  rotate_rows(by_input.as<float>().data(), by_input.count(), rotation, pool);
  linear.weight = transposed(by_input, pool);
  if (!linear.bias.empty())
    rotate_rows(linear.bias.data(), static_cast<int64_t>(linear.bias.size()), rotation, pool);
}

const HostTensor* folded_norm(const DenseLayer& layer, InputSite site) {
  if (site == InputSite::kAttention) return &layer.input_norm;
  if (site == InputSite::kMlp) return &layer.post_attention_norm;
  return nullptr;
}

void scale_columns(HostTensor& weight, std::span<const float> factors) {  // [n, k], [k]
  const auto values = weight.as<float>();
  const size_t k = factors.size();
  for (size_t i = 0; i < values.size(); ++i) values[i] *= factors[i % k];
}

}  // namespace

ResidualRotation make_rotation(int64_t n, uint64_t seed) {
  expects(n > 0);
  ResidualRotation rotation;
  rotation.p = n;
  while (rotation.p % 2 == 0) {
    rotation.p /= 2;
    rotation.h *= 2;
  }
  Rng rng(seed, static_cast<uint64_t>(n));
  rotation.signs_in = random_signs(n, rng);
  rotation.signs_out = random_signs(n, rng);
  const Matrix factor = random_orthogonal(rotation.p, rng);
  rotation.factor.assign(factor.values.begin(), factor.values.end());
  return rotation;
}

Rotation make_rotation(const ModelConfig& config, uint64_t seed) {
  return {make_rotation(config.hidden_size, seed), make_rotation(config.head_dim, seed + 1)};
}

WorkingLinear working_linear(const DenseModel& model, const ModuleId& id, const Rotation* rotation,
                             ThreadPool& pool) {
  const DenseLayer& layer = model.layers[static_cast<size_t>(id.layer)];
  const DenseLinear& dense = layer.linear(id.module);
  WorkingLinear linear{as_f32(dense.weight), {}};
  if (!dense.bias.empty()) {
    const auto bias = dense.bias.as<float>();
    linear.bias.assign(bias.begin(), bias.end());
  }
  if (rotation == nullptr) return linear;
  if (const HostTensor* norm = folded_norm(layer, input_site(id.module))) {
    scale_columns(linear.weight, norm->as<float>());
    rotate_inputs(linear.weight, rotation->residual, pool);
  }
  if (id.module == Module::kV) rotate_outputs(linear, rotation->head, pool);
  if (id.module == Module::kO) rotate_inputs(linear.weight, rotation->head, pool);
  if (id.module == Module::kO || id.module == Module::kDown)
    rotate_outputs(linear, rotation->residual, pool);
  return linear;
}

void rotate_covariance(const DenseModel& model, int32_t layer, InputSite site,
                       const Rotation& rotation, ThreadPool& pool, HostTensor& covariance) {
  if (site == InputSite::kDown) return;
  const bool stream = site != InputSite::kOutput;
  if (stream) {
    const auto norm = folded_norm(model.layers[static_cast<size_t>(layer)], site)->as<float>();
    std::vector<float> inverse(norm.size());
    std::transform(norm.begin(), norm.end(), inverse.begin(),
                   [](float weight) { return weight == 0 ? 0.0f : 1.0f / weight; });
    const auto values = covariance.as<float>();
    const size_t k = inverse.size();
    for (size_t i = 0; i < values.size(); ++i) values[i] *= inverse[i / k] * inverse[i % k];
  }
  const ResidualRotation& q = stream ? rotation.residual : rotation.head;
  rotate_inputs(covariance, q, pool);
  covariance = transposed(covariance, pool);
  rotate_inputs(covariance, q, pool);
}

}  // namespace spear
