// GPT-2's way of writing bytes as visible characters: byte-level vocabularies spell their pieces
// with it. Pure functions, every thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace spear {

uint32_t byte_to_letter(uint8_t byte);

// The bytes that `piece` spells; nothing when it has a character outside the alphabet.
std::optional<std::string> bytes_of_piece(std::string_view piece);

std::string piece_of_bytes(std::string_view bytes);

}  // namespace spear
