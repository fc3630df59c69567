// Linear centred kernel alignment of two sets of hidden states, accumulated in one pass over
// tokens. CKA = ||XᵀCY||² / (||XᵀCX|| · ||YᵀCY||), C centring over tokens (Kornblith et al. 2019;
// methods.md 3.7).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace spear {

class ThreadPool;

// Σ over tokens of (x − shift) and of (x − shift)(y − shift)ᵀ in double. CKA does not change with
// the shift; one near the mean keeps the cancellation small.
class CrossMoment {
 public:
  explicit CrossMoment(int64_t width)
      : width_(width), sums_(static_cast<size_t>(width * width), 0.0) {}

  // Adds `rows` tokens: x, y [rows, width], already shifted. FP32 products within the call, double
  // between calls.
  void add(const float* x, const float* y, int64_t rows, ThreadPool& pool);
  // Squared Frobenius norm of Σ x yᵀ − (Σx)(Σy)ᵀ / n.
  [[nodiscard]] double centred_square(const std::vector<double>& sum_x,
                                      const std::vector<double>& sum_y, int64_t tokens) const;

 private:
  int64_t width_;
  std::vector<double> sums_;  // [width, width]
  std::vector<float> block_;  // [width, width]
};

// CKA of a fixed reference X against many Y: the reference's own moments are made once.
class CkaReference {
 public:
  // x [tokens, width], must outlive this.
  CkaReference(const float* x, int64_t tokens, int64_t width, ThreadPool& pool);
  // 1 − CKA(X, Y); 0 for equal states up to rounding (about 1e-7), never negative.
  [[nodiscard]] double damage(const float* y) const;  // [tokens, width]

 private:
  const float* x_;
  int64_t tokens_, width_;
  ThreadPool& pool_;
  std::vector<float> shift_;  // mean of X
  std::vector<double> sum_;   // Σ (x − shift)
  double own_square_ = 0;
};

}  // namespace spear
