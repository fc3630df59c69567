// UTF-8 seen byte by byte, for texts that need not be valid. Pure functions, every thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace spear {

// Length in bytes of the valid character at the front of `text`; 0 when it is empty, cut short or
// invalid (overlong forms, surrogates and values over U+10FFFF are invalid).
size_t valid_char_length(std::string_view text);

// How many bytes the character at the front would have if more bytes came: 0 when it can never
// become valid.
size_t expected_char_length(std::string_view text);

// The character of `length` bytes (from valid_char_length) at the front.
uint32_t code_point(std::string_view text, size_t length);

void append_utf8(std::string& out, uint32_t point);

bool is_valid_utf8(std::string_view text);

// Unicode's White_Space, and \w of regular expressions (letters, marks, decimal digits,
// connectors).
bool is_white_space(uint32_t point);
bool is_word_character(uint32_t point);

}  // namespace spear
