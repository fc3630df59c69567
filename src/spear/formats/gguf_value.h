// Reads one typed metadata value of a GGUF file from a bounded cursor. Arrays of numbers stay in
// the file, arrays of strings become views, arrays of arrays are read to a small depth; no memory
// is taken that the bytes present do not justify. Used by gguf.cpp alone.
#pragma once

#include <string>

#include "spear/formats/byte_reader.h"
#include "spear/formats/gguf.h"

namespace spear {

class GgufValueReader {
 public:
  explicit GgufValueReader(ByteReader& reader) : reader_(reader) {}
  // A type number and a value of that type; the error says what is wrong, its caller says where.
  tl::expected<GgufValue, std::string> read_value();

 private:
  static constexpr int kMaxArrayDepth = 3;

  tl::expected<GgufType, std::string> read_type();
  tl::expected<GgufValue, std::string> read_payload(GgufType type, int depth);
  tl::expected<std::string_view, std::string> read_string();
  tl::expected<GgufValue, std::string> read_array(int depth);

  ByteReader& reader_;
};

}  // namespace spear
