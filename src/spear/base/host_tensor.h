// A dense row-major tensor in host memory with one owner. Contents start undefined; moves, never
// copies by accident.
#pragma once

#include <cstring>
#include <span>
#include <utility>

#include "spear/base/host_buffer.h"
#include "spear/base/tensor_view.h"

namespace spear {

class HostTensor {
 public:
  HostTensor() = default;
  HostTensor(Shape shape, DType dtype)
      : buffer_(static_cast<size_t>(shape.count()) * size_of(dtype)),
        shape_(shape),
        dtype_(dtype) {}

  [[nodiscard]] bool empty() const { return buffer_.bytes() == 0; }
  [[nodiscard]] const Shape& shape() const { return shape_; }
  [[nodiscard]] DType dtype() const { return dtype_; }
  [[nodiscard]] int64_t count() const { return shape_.count(); }
  [[nodiscard]] size_t bytes() const { return buffer_.bytes(); }
  [[nodiscard]] TensorView view() const { return {buffer_.data(), shape_, dtype_}; }
  [[nodiscard]] MutableTensorView mutable_view() { return {buffer_.data(), shape_, dtype_}; }
  [[nodiscard]] std::span<const std::byte> raw() const {
    return {static_cast<const std::byte*>(buffer_.data()), buffer_.bytes()};
  }

  // The elements as T; T must be the storage type of dtype() (float, uint16_t, int8_t, uint8_t,
  // int32_t).
  template <class T>
  [[nodiscard]] std::span<T> as() {
    expects(sizeof(T) == size_of(dtype_) || empty());
    return {buffer_.as<T>(), buffer_.bytes() / sizeof(T)};
  }
  template <class T>
  [[nodiscard]] std::span<const T> as() const {
    expects(sizeof(T) == size_of(dtype_) || empty());
    return {buffer_.as<T>(), buffer_.bytes() / sizeof(T)};
  }
  [[nodiscard]] HostTensor clone() const {
    if (empty()) return {};
    HostTensor copy(shape_, dtype_);
    std::memcpy(copy.buffer_.data(), buffer_.data(), buffer_.bytes());
    return copy;
  }

 private:
  HostBuffer buffer_;
  Shape shape_;
  DType dtype_ = DType::kF32;
};

}  // namespace spear
