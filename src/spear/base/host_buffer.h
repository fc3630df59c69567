// Aligned host memory with one owner. Contents start undefined; moves, never copies. A borrowed
// buffer reads memory that somebody else keeps (a mapped file) and may not be written to.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>
#include <span>
#include <utility>

#include "spear/base/check.h"

namespace spear {

class HostBuffer {
 public:
  static constexpr size_t kAlignment = 64;  // a cache line, and an AVX-512 register
  HostBuffer() = default;
  explicit HostBuffer(size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    data_ = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
    if (data_ == nullptr) throw std::bad_alloc();
  }
  // The bytes must outlive the buffer.
  static HostBuffer borrowed(std::span<const std::byte> bytes) {
    HostBuffer buffer;
    buffer.data_ = const_cast<std::byte*>(bytes.data());
    buffer.bytes_ = bytes.size();
    buffer.owned_ = false;
    return buffer;
  }
  HostBuffer(HostBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)),
        owned_(std::exchange(other.owned_, true)) {}
  HostBuffer& operator=(HostBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(owned_, other.owned_);
    return *this;
  }
  ~HostBuffer() {
    if (owned_) std::free(data_);
  }

  [[nodiscard]] size_t bytes() const { return bytes_; }
  [[nodiscard]] void* data() {
    expects(owned_);
    return data_;
  }
  [[nodiscard]] const void* data() const { return data_; }
  template <class T>
  [[nodiscard]] T* as() {
    return static_cast<T*>(data());
  }
  template <class T>
  [[nodiscard]] const T* as() const {
    return static_cast<const T*>(data_);
  }
  // Makes room for at least `bytes`; what was inside is lost when it grows.
  void reserve(size_t bytes) {
    if (bytes > bytes_) *this = HostBuffer(bytes);
  }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  bool owned_ = true;
};

}  // namespace spear
