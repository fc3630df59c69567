#include "spear/tokenizer/piece_ids.h"

#include <optional>

#include "spear/tokenizer/byte_alphabet.h"

namespace spear {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

int byte_of_piece(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  const int high = hex_digit(piece[3]);
  const int low = hex_digit(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

PieceIds piece_ids(const TokenizerDefinition& definition) {
  PieceIds ids;
  ids.reserve(definition.pieces.size());
  for (size_t i = 0; i < definition.pieces.size(); ++i) {
    const PieceKind kind = definition.kinds[i];
    if (kind != PieceKind::kNormal && kind != PieceKind::kUserDefined && kind != PieceKind::kUnused)
      continue;
    const std::string& piece = definition.pieces[i];
    if (definition.byte_level) {
      if (std::optional<std::string> bytes = bytes_of_piece(piece))
        ids.emplace(std::move(*bytes), static_cast<int32_t>(i));
    } else {
      ids.emplace(piece, static_cast<int32_t>(i));
    }
  }
  return ids;
}

std::array<int32_t, 256> byte_pieces(const TokenizerDefinition& definition) {
  std::array<int32_t, 256> bytes{};
  bytes.fill(-1);
  for (size_t i = 0; i < definition.pieces.size(); ++i) {
    int byte = -1;
    if (!definition.byte_level) {
      byte = byte_of_piece(definition.pieces[i]);
    } else if (definition.kinds[i] == PieceKind::kNormal) {
      const std::optional<std::string> text = bytes_of_piece(definition.pieces[i]);
      if (text && text->size() == 1) byte = static_cast<uint8_t>(text->front());
    }
    if (byte >= 0 && bytes[byte] < 0) bytes[byte] = static_cast<int32_t>(i);
  }
  return bytes;
}

}  // namespace spear
