#include "support/tiny_compressed.h"

#include <algorithm>
#include <cmath>

#include "spear/base/rng.h"

namespace spear::test {
namespace {

std::vector<float> normal(size_t count, double deviation, Rng& rng) {
  std::vector<float> out(count);
  for (float& value : out) value = static_cast<float>(deviation * rng.normal());
  return out;
}

QuantizedMatrix rounded(const HostTensor& weight, int32_t bits, int32_t group, ZeroKind kind) {
  UnpackedMatrix m;
  m.n = static_cast<int32_t>(weight.shape()[0]);
  m.k = static_cast<int32_t>(weight.shape()[1]);
  m.bits = bits;
  m.group = group == 0 ? m.k : group;
  m.symmetric = kind == ZeroKind::kNone;
  const float top = static_cast<float>((1 << bits) - 1);
  for (int64_t start = 0; start < int64_t{m.n} * m.k; start += m.group) {
    const float* values = weight.as<float>().data() + start;
    const auto [low, high] = std::minmax_element(values, values + m.group);
    const float largest = std::max(std::fabs(*low), std::fabs(*high));
    const float width = m.symmetric ? 2 * largest : *high - *low;
    const float scale = float_from_f16(f16_from_float(std::max(width, 1e-3f) / top));
    float zero = m.symmetric ? static_cast<float>(1 << (bits - 1)) : -*low / scale;
    if (kind == ZeroKind::kU4) zero = std::clamp(std::nearbyint(zero), 0.0f, 15.0f);
    if (kind == ZeroKind::kU8) zero = std::clamp(std::nearbyint(zero * 16), 0.0f, 255.0f) / 16;
    m.scales.push_back(scale);
    m.zeros.push_back(zero);
    for (int32_t j = 0; j < m.group; ++j)
      m.codes.push_back(
          static_cast<uint8_t>(std::clamp(std::nearbyint(values[j] / scale + zero), 0.0f, top)));
  }
  return pack(m, kind);
}

ErrorCompensator random_compensator(int32_t n, int32_t k, int32_t rank,
                                    const CompressedShape& shape, Rng& rng) {
  CompensatorValues values;
  values.rank = rank;
  values.n = n;
  values.k = k;
  const auto count = [&](int64_t a, int64_t b) { return static_cast<size_t>(a * b); };
  values.a = normal(count(rank, k), 1 / std::sqrt(k), rng);
  values.b = normal(count(rank, n), 0.2 / std::sqrt(rank), rng);
  if (shape.gated) {
    values.gate_hidden = 2 * rank + 1;
    values.w1 = normal(count(values.gate_hidden, rank), 0.5, rng);
    values.b1 = normal(count(values.gate_hidden, 1), 0.3, rng);
    values.w2 = normal(count(values.gate_hidden, rank), 0.5, rng);
    values.b2 = normal(count(rank, 1), 0.3, rng);
  }
  return pack(values, shape.factor_bits);
}

// Signs and a reflection: orthogonal, and nothing that a path could get right by accident.
ResidualRotation random_rotation(int64_t n, Rng& rng) {
  ResidualRotation r;
  while ((n / r.h) % 2 == 0) r.h *= 2;
  r.p = n / r.h;
  for (std::vector<float>* signs : {&r.signs_in, &r.signs_out})
    for (int64_t i = 0; i < n; ++i) signs->push_back((rng.next() & 1) != 0 ? 1.0f : -1.0f);
  const std::vector<float> v = normal(static_cast<size_t>(r.p), 1, rng);
  double square = 0;
  for (const float x : v) square += static_cast<double>(x) * x;
  for (int64_t i = 0; i < r.p; ++i)
    for (int64_t j = 0; j < r.p; ++j)
      r.factor.push_back(static_cast<float>((i == j ? 1.0 : 0.0) -
                                            2 * static_cast<double>(v[static_cast<size_t>(i)]) *
                                                v[static_cast<size_t>(j)] / square));
  return r;
}

}  // namespace

QuantizedModel tiny_compressed(const CompressedShape& shape, uint64_t seed) {
  const DenseModel dense = tiny_model(shape.model, seed);
  Rng rng(seed + 1);
  QuantizedModel model = tiny_quantized(dense, 4);
  if (shape.head_bits != 16) {
    model.embedding = rounded(dense.embedding, shape.head_bits, 0, ZeroKind::kNone);
    if (!dense.head.empty()) model.head = rounded(dense.head, shape.head_bits, 0, ZeroKind::kF16);
  }
  if (shape.rotated) model.rotation = random_rotation(shape.model.hidden_size, rng);
  int32_t number = 0;
  for (size_t l = 0; l < model.layers.size(); ++l)
    for (const Module module : kModules) {
      QuantizedLinear& linear = model.layers[l].linear(module);
      linear.weight =
          rounded(dense.layers[l].linear(module).weight, shape.bits, shape.group, shape.zero_kind);
      const int32_t rank = shape.rank - (number % 3 == 0 ? 1 : 0);
      if (number++ % 2 == 0 && rank > 0)
        linear.compensator = random_compensator(linear.weight.n, linear.weight.k, rank, shape, rng);
    }
  return model;
}

}  // namespace spear::test
