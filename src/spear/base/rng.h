// A small, fast, seedable generator (PCG32, O'Neill 2014) whose stream is the same on every
// machine: sampled text, rotations and initial values are reproducible from a seed. Not for
// secrets.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

namespace spear {

class Rng {
 public:
  explicit Rng(uint64_t seed, uint64_t stream = 1) : increment_((stream << 1u) | 1u) {
    next();
    state_ += seed;
    next();
  }
  uint32_t next() {
    const uint64_t old = state_;
    state_ = old * 6364136223846793005ull + increment_;
    const auto shifted = static_cast<uint32_t>(((old >> 18u) ^ old) >> 27u);
    const auto turn = static_cast<uint32_t>(old >> 59u);
    return (shifted >> turn) | (shifted << ((-turn) & 31u));
  }
  // Uniform in [0, 1) with 53 bits.
  double uniform() {
    const uint64_t high = next() >> 5u;
    const uint64_t low = next() >> 6u;
    return static_cast<double>(high * 67108864u + low) * 0x1p-53;
  }
  // Uniform in [0, bound), unbiased.
  uint32_t below(uint32_t bound) {
    const uint32_t threshold = (-bound) % bound;
    for (;;)
      if (const uint32_t value = next(); value >= threshold) return value % bound;
  }
  // Standard normal (Box-Muller, one of the pair).
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

 private:
  uint64_t state_ = 0;
  uint64_t increment_;
};

}  // namespace spear
