// A random quantized linear of any width, grouping, zero kind, factor width and gate, with memory
// of its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "spear/base/rng.h"
#include "spear/kernels/w4_linear.h"

#include "support/random_tensors.h"

namespace spear::test {

struct QuantizedShape {
  int32_t n, k, bits = 4, group = 0;  // group 0: per channel
  ZeroKind zero_kind = ZeroKind::kU4;
  int32_t rank = 0, factor_bits = 8, gate_hidden = 0;
  bool bias = false;
};

class QuantizedCase {
 public:
  QuantizedCase(const QuantizedShape& shape, uint64_t seed) : shape_(shape), rng_(seed) {
    QuantizedView& w = args_.w;
    w.n = shape.n;
    w.k = shape.k;
    w.bits = shape.bits;
    w.group = shape.group == 0 ? shape.k : shape.group;
    w.zero_kind = shape.zero_kind;
    codes_ = bytes(w.code_bytes());
    zeros_ = bytes(w.zero_bytes());
    if (shape.zero_kind == ZeroKind::kF16)
      zeros_ = halves(static_cast<int64_t>(w.scale_count()), 1 << (shape.bits - 1), 1);
    scales_ = halves(static_cast<int64_t>(w.scale_count()), 0.02f, 0.005f);
    w.codes = codes_.data();
    w.zeros = zeros_.data();
    w.scales = reinterpret_cast<const uint16_t*>(scales_.data());
    if (shape.rank != 0) add_compensator();
    if (shape.bias) bias_ = normal_values(shape.n, rng_);
    args_.bias = shape.bias ? bias_.data() : nullptr;
  }

  W4LinearArgs args(int64_t m, const float* x, float* y) const {
    W4LinearArgs with = args_;
    with.m = m;
    with.x = x;
    with.y = y;
    return with;
  }
  const QuantizedView& w() const { return args_.w; }
  std::string text() const {
    return std::to_string(shape_.n) + " x " + std::to_string(shape_.k) + ", " +
           std::to_string(shape_.bits) + " bits, groups of " + std::to_string(args_.w.group) +
           ", zeros " + std::to_string(static_cast<int>(shape_.zero_kind)) + ", rank " +
           std::to_string(shape_.rank) + " in " + std::to_string(shape_.factor_bits) +
           " bits, gate " + std::to_string(shape_.gate_hidden);
  }

 private:
  std::vector<uint8_t> bytes(size_t count) {
    std::vector<uint8_t> out(count);
    for (uint8_t& byte : out) byte = static_cast<uint8_t>(rng_.next() >> 24);
    return out;
  }
  std::vector<uint8_t> halves(int64_t count, float mean, float spread) {
    std::vector<uint8_t> out;
    for (int64_t i = 0; i < count; ++i) {
      const uint16_t bits = f16_from_float(mean + spread * static_cast<float>(rng_.normal()));
      out.push_back(static_cast<uint8_t>(bits & 255u));
      out.push_back(static_cast<uint8_t>(bits >> 8));
    }
    return out;
  }
  void add_compensator() {
    CompensatorView& ec = args_.ec;
    ec.rank = shape_.rank;
    ec.factor_bits = shape_.factor_bits;
    ec.gate_hidden = shape_.gate_hidden;
    a_ = factor(shape_.k);
    b_ = factor(shape_.n);
    a_scales_ = halves(shape_.rank, 0.01f, 0.002f);
    b_scales_ = halves(shape_.rank, 0.01f, 0.002f);
    ec.a = a_.data();
    ec.b = b_.data();
    ec.a_scales = as_half(a_scales_);
    ec.b_scales = as_half(b_scales_);
    if (shape_.gate_hidden == 0) return;
    w1_ = halves(shape_.gate_hidden * shape_.rank, 0, 0.5f);
    b1_ = halves(shape_.gate_hidden, 0, 0.5f);
    w2_ = halves(shape_.gate_hidden * shape_.rank, 0, 0.5f);
    b2_ = halves(shape_.rank, 0, 0.5f);
    ec.w1 = as_half(w1_);
    ec.b1 = as_half(b1_);
    ec.w2 = as_half(w2_);
    ec.b2 = as_half(b2_);
  }
  std::vector<uint8_t> factor(int64_t columns) {
    if (shape_.factor_bits == 16) return halves(shape_.rank * columns, 0, 0.1f);
    if (shape_.factor_bits == 8) return bytes(static_cast<size_t>(shape_.rank * columns));
    return bytes(static_cast<size_t>(shape_.rank * ((columns + 1) / 2)));
  }
  static const uint16_t* as_half(const std::vector<uint8_t>& bytes) {
    return reinterpret_cast<const uint16_t*>(bytes.data());
  }

  QuantizedShape shape_;
  Rng rng_;
  W4LinearArgs args_;
  std::vector<uint8_t> codes_, zeros_, scales_, a_, b_, a_scales_, b_scales_, w1_, b1_, w2_, b2_;
  std::vector<float> bias_;
};

}  // namespace spear::test
