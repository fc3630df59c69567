// The texts models are measured on: WikiText-2 and others of the data folder by name, or any UTF-8
// file. Reads files; no other state.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "spear/base/error.h"
#include "spear/eval/protocol.h"

namespace spear {

// The data folder: `chosen` if given (an option or SPEAR_DATA), else shared/data beside the working
// folder or the program or one of the folders above them.
Result<std::filesystem::path> find_data_folder(const std::filesystem::path& chosen);

// The usual joined form of a WikiText raw file: a blank line (" \n") is the row "", any other line
// with its newline is a row; rows are joined by "\n\n".
std::string join_wikitext(std::string_view raw);

// The byte at which `text` stops being UTF-8 (no overlong forms, no surrogates); its size where it
// is all valid.
size_t first_invalid_utf8(std::string_view text);

// Names: "wikitext2", "wikitext2-valid" (joined for the GPTQ protocol, raw for llama.cpp's),
// "moby_dick" (the first 900,000 characters), "great_expectations", "federalist_papers". Anything
// else is a file.
bool is_known_text(std::string_view source);
Result<std::string> load_text(const TextSpec& spec, const std::filesystem::path& data_folder);

// How results call it: "wikitext2@2048", "book@1024" for path/to/book.txt.
std::string display_name(const TextSpec& spec);

}  // namespace spear
