// A cursor over hostile little-endian bytes. Every read is checked against the end; a failed read
// returns nothing and moves nothing, so the caller can say what was being read and where. One
// owner, one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

namespace spear {

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  [[nodiscard]] size_t position() const { return position_; }
  [[nodiscard]] size_t remaining() const { return bytes_.size() - position_; }

  template <class T>
  requires std::is_arithmetic_v<T> std::optional<T> read() {
    if (remaining() < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }
  std::optional<std::span<const std::byte>> read_bytes(uint64_t count) {
    if (count > remaining()) return std::nullopt;
    const auto out = bytes_.subspan(position_, static_cast<size_t>(count));
    position_ += out.size();
    return out;
  }

 private:
  std::span<const std::byte> bytes_;
  size_t position_ = 0;
};

inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The product, or nothing when it does not fit 63 bits or a factor is negative.
inline std::optional<int64_t> checked_product(int64_t a, int64_t b) {
  int64_t out = 0;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &out)) return std::nullopt;
  return out;
}

}  // namespace spear
