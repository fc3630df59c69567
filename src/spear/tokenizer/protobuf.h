// The little of protobuf's wire format that reading a hostile message needs: fields one after the
// other, each inside its bytes. A view: lives no longer than them. Throws Failure. One thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace spear {

class ProtobufReader {
 public:
  struct Field {
    uint32_t number = 0;
    uint32_t wire_type = 0;
    uint64_t value = 0;                // wire types 0, 1 and 5
    std::string_view bytes;            // wire type 2
    [[nodiscard]] float real() const;  // wire type 5
  };

  // `what` names the message in errors.
  ProtobufReader(std::string_view message, std::string_view source, std::string_view what)
      : rest_(message), size_(message.size()), source_(source), what_(what) {}

  // The next field, or false at the end of the message.
  bool next(Field& field);

  // Refuses a field of another wire type than its number stands for.
  void require(const Field& field, uint32_t wire_type) const;

 private:
  uint64_t varint();
  std::string_view take(uint64_t count);
  [[noreturn]] void bad(std::string_view problem) const;

  std::string_view rest_;
  size_t size_;
  std::string_view source_;
  std::string_view what_;
};

}  // namespace spear
