// A view of a dense, row-major tensor: pointer, extents, type. Copied freely, owns nothing.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include "spear/base/check.h"
#include "spear/base/dtype.h"

namespace spear {

// Up to four extents, outermost first; the last one is contiguous in memory.
class Shape {
 public:
  static constexpr int kMaxRank = 4;
  Shape() = default;
  Shape(std::initializer_list<int64_t> extents) {
    expects(extents.size() <= kMaxRank);
    for (const int64_t extent : extents) extents_[rank_++] = extent;
  }
  [[nodiscard]] int rank() const { return rank_; }
  int64_t operator[](int axis) const {
    expects(axis >= 0 && axis < rank_);
    return extents_[axis];
  }
  [[nodiscard]] int64_t count() const {
    int64_t product = 1;
    for (int axis = 0; axis < rank_; ++axis) product *= extents_[axis];
    return product;
  }
  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (int axis = 0; axis < a.rank_; ++axis)
      if (a.extents_[axis] != b.extents_[axis]) return false;
    return true;
  }
  [[nodiscard]] std::string text() const {  // "[49152, 576]"
    std::string out = "[";
    for (int axis = 0; axis < rank_; ++axis)
      out += (axis != 0 ? ", " : "") + std::to_string(extents_[axis]);
    return out + "]";
  }

 private:
  int64_t extents_[kMaxRank] = {};
  int rank_ = 0;
};

template <class Pointer>
struct BasicTensorView {
  Pointer data = nullptr;
  Shape shape;
  DType dtype = DType::kF32;

  [[nodiscard]] int64_t rows() const { return shape.rank() == 0 ? 0 : shape.count() / columns(); }
  [[nodiscard]] int64_t columns() const { return shape[shape.rank() - 1]; }
  [[nodiscard]] size_t bytes() const { return static_cast<size_t>(shape.count()) * size_of(dtype); }
  [[nodiscard]] bool empty() const { return data == nullptr; }
};

using TensorView = BasicTensorView<const void*>;
using MutableTensorView = BasicTensorView<void*>;

}  // namespace spear
