// An output buffer that tells on its writer: filled with NaN (0xff bytes for integers) so that an
// element nobody wrote is seen, and with guard bytes on both sides so that a write past either end
// is seen.
//   GuardedBuffer<float> y(m * n);  kernel(..., y.data());  EXPECT_TRUE(y.intact());
// `y.span()` then goes to all_within(), which refuses the NaNs that were left. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "spear/base/check.h"
#include "spear/base/host_buffer.h"

namespace spear::test {

template <class T>
class GuardedBuffer {
 public:
  static constexpr size_t kGuard = 256;  // bytes on each side
  static constexpr int64_t kMostElements = int64_t{1} << 40;

  // `misalign` elements are skipped, so that the data does not start on a 64-byte boundary.
  explicit GuardedBuffer(int64_t count, int64_t misalign = 0)
      : count_(checked(count)),
        offset_(kGuard + static_cast<size_t>(misalign) * sizeof(T)),
        memory_(offset_ + count_ * sizeof(T) + kGuard) {
    expects(misalign >= 0);
    std::memset(memory_.data(), kGuardByte, memory_.bytes());
    std::memset(data(), 0xff, count_ * sizeof(T));  // all ones: a NaN for every float type
  }

  [[nodiscard]] T* data() {
    return reinterpret_cast<T*>(memory_.template as<std::byte>() + offset_);
  }
  [[nodiscard]] std::span<T> span() { return {data(), count_}; }
  [[nodiscard]] std::vector<T> values() { return std::vector<T>(data(), data() + count_); }

  // True when no guard byte changed; else says how far outside the first change lies.
  [[nodiscard]] ::testing::AssertionResult intact() const {
    const auto* bytes = memory_.template as<unsigned char>();
    for (size_t i = offset_; i-- > 0;)
      if (bytes[i] != kGuardByte)
        return ::testing::AssertionFailure()
               << "written " << offset_ - i << " bytes before the buffer";
    const size_t end = offset_ + count_ * sizeof(T);
    for (size_t i = end; i < memory_.bytes(); ++i)
      if (bytes[i] != kGuardByte)
        return ::testing::AssertionFailure()
               << "written " << i - end << " bytes after the buffer's end";
    return ::testing::AssertionSuccess();
  }

 private:
  static size_t checked(int64_t count) {
    expects(count >= 0 && count <= kMostElements);
    return static_cast<size_t>(count);
  }

  static constexpr unsigned char kGuardByte = 0xa5;
  size_t count_;
  size_t offset_;
  HostBuffer memory_;
};

}  // namespace spear::test
