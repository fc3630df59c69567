// A byte-level tokenizer for tests: ids 0 … 255 are the bytes, then pieces of several bytes, then
// one special end token.
#pragma once

#include <string>
#include <vector>

#include "spear/tokenizer/byte_alphabet.h"
#include "spear/tokenizer/tokenizer.h"

namespace spear::test {

inline Tokenizer byte_tokenizer(const std::vector<std::string>& pieces = {}) {
  TokenizerDefinition d;
  d.byte_level = true;
  for (int byte = 0; byte < 256; ++byte)
    d.pieces.push_back(piece_of_bytes(std::string(1, static_cast<char>(byte))));
  for (const std::string& piece : pieces) d.pieces.push_back(piece_of_bytes(piece));
  d.pieces.emplace_back("<end>");
  d.kinds.assign(d.pieces.size(), PieceKind::kNormal);
  d.kinds.back() = PieceKind::kControl;
  d.eos = static_cast<int32_t>(d.pieces.size()) - 1;
  d.added.push_back({.id = d.eos, .content = "<end>", .special = true});
  return value_or_throw(Tokenizer::from_definition(std::move(d), "test"));
}

inline std::vector<int32_t> bytes_of(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
  return ids;
}

}  // namespace spear::test
