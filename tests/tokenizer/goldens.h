// What the tokenizer tests compare with: goldens of the tree, and the big vocabularies of
// $SPEAR_TEST_ASSETS (filled by tools/fetch_test_assets.py). A test that wants the latter says so
// when they are absent.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/json.h"
#include "spear/tokenizer/tokenizer.h"

namespace spear::test {

inline constexpr const char* kNoAssets =
    "the published vocabularies are absent (set SPEAR_TEST_ASSETS to a folder that "
    "tools/fetch_test_assets.py filled)";

// The path of a file below $SPEAR_TEST_ASSETS, if it exists.
std::optional<std::filesystem::path> test_asset(std::string_view name);

std::string read_bytes(const std::filesystem::path& path);
std::string golden_bytes(std::string_view name);  // of tests/golden/tokenizer
const Json& token_goldens();

// tests/golden/tokenizer/tiny_*.json or .model
Tokenizer tiny_tokenizer(std::string_view name);
// The vocabulary in a GGUF file, read as the product reads it.
Tokenizer gguf_tokenizer(const std::filesystem::path& path);

// The SHA-256 of ids as little-endian int32.
std::string digest(std::span<const int32_t> ids);

// A byte-level vocabulary of the 256 bytes and a few merges, for tests that need no real one.
GgufVocabulary small_vocabulary();

}  // namespace spear::test
