// From the text of a piece to its id, and the ids of the 256 byte pieces. Shared by both models.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "spear/tokenizer/definition.h"

namespace spear {

struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

using PieceIds = std::unordered_map<std::string, int32_t, TextHash, std::equal_to<>>;

// The pieces a model may produce: not control, unknown or byte pieces. Byte-level pieces are given
// as bytes.
PieceIds piece_ids(const TokenizerDefinition& definition);

// For byte-level vocabularies the piece of each byte, else the pieces <0x00> … <0xFF>; -1 where
// there is none.
std::array<int32_t, 256> byte_pieces(const TokenizerDefinition& definition);

// The byte that a piece written <0x41> stands for; -1 for any other text.
int byte_of_piece(std::string_view piece);

}  // namespace spear
