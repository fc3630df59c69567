#include "goldens.h"

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "spear/base/hash.h"
#include "spear/formats/gguf.h"
#include "spear/model/import_tokenizer.h"
#include "spear/tokenizer/byte_alphabet.h"

namespace spear::test {

namespace fs = std::filesystem;

std::optional<fs::path> test_asset(std::string_view name) {
  const char* folder = std::getenv("SPEAR_TEST_ASSETS");
  if (folder == nullptr || *folder == '\0') return std::nullopt;
  fs::path path = fs::path(folder) / name;
  if (!fs::exists(path)) return std::nullopt;
  return path;
}

std::string read_bytes(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

std::string golden_bytes(std::string_view name) {
  return read_bytes(fs::path(SPEAR_SOURCE_DIR) / "tests/golden/tokenizer" / name);
}

const Json& token_goldens() {
  static const Json goldens =
      value_or_throw(parse_json(golden_bytes("token_goldens.json"), "token_goldens.json"));
  return goldens;
}

Tokenizer tiny_tokenizer(std::string_view name) {
  const std::string bytes = golden_bytes(name);
  return value_or_throw(name.ends_with(".json") ? Tokenizer::from_json(bytes, "", name)
                                                : Tokenizer::from_sentencepiece(bytes, "", name));
}

Tokenizer gguf_tokenizer(const fs::path& path) {
  const GgufFile file = value_or_throw(GgufFile::open(path));
  const GgufVocabulary vocabulary = value_or_throw(vocabulary_from_gguf(file));
  return value_or_throw(Tokenizer::from_gguf(vocabulary, path.string()));
}

std::string digest(std::span<const int32_t> ids) {
  return sha256_hex(std::as_bytes(ids));
}

GgufVocabulary small_vocabulary() {
  GgufVocabulary vocabulary;
  vocabulary.model = "gpt2";
  vocabulary.pre = "gpt-2";
  for (int byte = 0; byte < 256; ++byte)
    vocabulary.tokens.push_back(piece_of_bytes(std::string(1, static_cast<char>(byte))));
  for (const char* merge : {"h e", "l l", "he ll", "hell o", "\u0120 hello"}) {
    const std::string text = merge;
    const size_t space = text.find(' ');
    vocabulary.merges.push_back(text);
    vocabulary.tokens.push_back(text.substr(0, space) + text.substr(space + 1));
  }
  vocabulary.token_type.assign(vocabulary.tokens.size(), 1);
  for (const char* special : {"<|endoftext|>", "<|im_end|>"}) {
    vocabulary.tokens.emplace_back(special);
    vocabulary.token_type.push_back(3);
  }
  vocabulary.bos_token_id = vocabulary.eos_token_id =
      static_cast<int64_t>(vocabulary.tokens.size()) - 2;
  return vocabulary;
}

}  // namespace spear::test
