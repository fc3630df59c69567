#include "spear/model/import_tokenizer.h"

#include <utility>

#include <fmt/format.h>

#include "spear/base/atomic_file.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxTokenizerBytes = size_t{64} << 20;
constexpr size_t kMaxTokenizerConfigBytes = size_t{8} << 20;

// Reads the keys under "tokenizer.ggml."; the first problem is kept and ends the import. Absent
// keys stay empty.
class VocabularyKeys {
 public:
  explicit VocabularyKeys(const GgufFile& file) : file_(file) {}

  std::string text(std::string_view key) {
    const GgufValue* value = find(key);
    if (value == nullptr) return "";
    const auto out = value->as_text();
    if (!out) refuse(key, "a string", *value);
    return std::string(out.value_or(""));
  }
  std::optional<int64_t> integer(std::string_view key) {
    const GgufValue* value = find(key);
    if (value == nullptr) return std::nullopt;
    const auto out = value->as_integer();
    if (!out) refuse(key, "an integer", *value);
    return out;
  }
  std::optional<bool> flag(std::string_view key) {
    const GgufValue* value = find(key);
    if (value == nullptr) return std::nullopt;
    const auto out = value->as_bool();
    if (!out) refuse(key, "a bool", *value);
    return out;
  }
  std::vector<std::string> texts(std::string_view key) {
    const GgufValue* value = find(key);
    if (value == nullptr) return {};
    if (value->type != GgufType::kArray || value->element_type != GgufType::kString)
      return refuse(key, "an array of strings", *value), std::vector<std::string>{};
    return {value->strings.begin(), value->strings.end()};
  }
  std::vector<float> reals(std::string_view key) {
    std::vector<float> out;
    each(key, "an array of numbers", [&](const GgufValue& value, uint64_t i) {
      const auto number = value.real_at(i);
      if (number) out.push_back(static_cast<float>(*number));
      return number.has_value();
    });
    return out;
  }
  std::vector<int32_t> integers(std::string_view key) {
    std::vector<int32_t> out;
    each(key, "an array of small integers", [&](const GgufValue& value, uint64_t i) {
      const auto number = value.integer_at(i);
      if (!number || *number < 0 || *number > INT32_MAX) return false;
      out.push_back(static_cast<int32_t>(*number));
      return true;
    });
    return out;
  }
  // An array of bytes, as the charsmap is stored.
  std::string bytes(std::string_view key) {
    const GgufValue* value = find(key);
    if (value == nullptr) return "";
    if (value->type != GgufType::kArray ||
        (value->element_type != GgufType::kUint8 && value->element_type != GgufType::kInt8))
      return refuse(key, "an array of bytes", *value), "";
    return {reinterpret_cast<const char*>(value->bytes.data()), value->bytes.size()};
  }
  [[nodiscard]] const std::optional<Error>& error() const { return error_; }

 private:
  [[nodiscard]] static std::string full(std::string_view key) {
    return key == "chat_template" ? "tokenizer.chat_template"
                                  : fmt::format("tokenizer.ggml.{}", key);
  }
  [[nodiscard]] const GgufValue* find(std::string_view key) const { return file_.find(full(key)); }

  template <class Take>
  void each(std::string_view key, std::string_view expected, Take take) {
    const GgufValue* value = find(key);
    if (value == nullptr) return;
    if (value->type != GgufType::kArray) return refuse(key, expected, *value);
    for (uint64_t i = 0; i < value->count; ++i)
      if (!take(*value, i)) return refuse(key, expected, *value);
  }
  void refuse(std::string_view key, std::string_view expected, const GgufValue& value) {
    if (error_) return;
    std::string found(name_of(value.type));
    if (value.type == GgufType::kArray) found += fmt::format(" of {}", name_of(value.element_type));
    error_ = Error{ErrorCode::kBadFile,
                   fmt::format("{}: metadata \"{}\": {} expected, found {}",
                               file_.file().path().string(), full(key), expected, found)};
  }

  const GgufFile& file_;
  std::optional<Error> error_;
};

Result<std::string> optional_text(const fs::path& folder, std::string_view name, size_t limit) {
  const auto path = file_in_folder(folder, name);
  if (path) return read_text_file(*path, limit);
  if (path.error().code == ErrorCode::kNotFound) return std::string();
  return tl::unexpected(path.error());
}

Result<Tokenizer> tokenizer_from_folder(const fs::path& folder) {
  const auto config = optional_text(folder, "tokenizer_config.json", kMaxTokenizerConfigBytes);
  if (!config) return tl::unexpected(config.error());
  const auto json = optional_text(folder, "tokenizer.json", kMaxTokenizerBytes);
  if (!json) return tl::unexpected(json.error());
  if (!json->empty())
    return Tokenizer::from_json(*json, *config, (folder / "tokenizer.json").string());
  const auto pieces = optional_text(folder, "tokenizer.model", kMaxTokenizerBytes);
  if (!pieces) return tl::unexpected(pieces.error());
  if (!pieces->empty())
    return Tokenizer::from_sentencepiece(*pieces, *config, (folder / "tokenizer.model").string());
  return fail(ErrorCode::kNotFound,
              fmt::format("{}: no tokenizer here: neither tokenizer.json nor tokenizer.model",
                          folder.string()));
}

// Models pad their embedding by up to a few hundred rows, so fewer tokens than rows are common; a
// tenth fewer is another model's tokenizer.
Result<void> check_vocabulary(const Checkpoint& checkpoint, const Tokenizer& tokenizer) {
  const int64_t tokens = tokenizer.vocab_size();
  const int64_t rows = checkpoint.config().vocab_size;
  if (tokens <= rows && tokens >= rows - rows / 10 - 1024) return {};
  return fail(ErrorCode::kBadFile,
              fmt::format("{}: the tokenizer has {} tokens, the model's embedding {} rows: they do "
                          "not belong together",
                          checkpoint.path().string(), tokens, rows));
}

}  // namespace

Result<GgufVocabulary> vocabulary_from_gguf(const GgufFile& file) {
  VocabularyKeys keys(file);
  GgufVocabulary out;
  out.model = keys.text("model");
  out.pre = keys.text("pre");
  out.tokens = keys.texts("tokens");
  out.scores = keys.reals("scores");
  out.token_type = keys.integers("token_type");
  out.merges = keys.texts("merges");
  out.bos_token_id = keys.integer("bos_token_id");
  out.eos_token_id = keys.integer("eos_token_id");
  out.unknown_token_id = keys.integer("unknown_token_id");
  out.padding_token_id = keys.integer("padding_token_id");
  out.add_bos_token = keys.flag("add_bos_token");
  out.add_eos_token = keys.flag("add_eos_token");
  out.add_space_prefix = keys.flag("add_space_prefix");
  out.remove_extra_whitespaces = keys.flag("remove_extra_whitespaces");
  out.precompiled_charsmap = keys.bytes("precompiled_charsmap");
  out.chat_template = keys.text("chat_template");
  if (keys.error()) return tl::unexpected(*keys.error());
  return out;
}

Result<Tokenizer> load_tokenizer(const Checkpoint& checkpoint) {
  Result<Tokenizer> tokenizer = [&]() -> Result<Tokenizer> {
    if (checkpoint.gguf() == nullptr) return tokenizer_from_folder(checkpoint.folder());
    const auto vocabulary = vocabulary_from_gguf(*checkpoint.gguf());
    if (!vocabulary) return tl::unexpected(vocabulary.error());
    return Tokenizer::from_gguf(*vocabulary, checkpoint.path().string());
  }();
  if (!tokenizer) return tokenizer;
  if (auto ok = check_vocabulary(checkpoint, *tokenizer); !ok) return tl::unexpected(ok.error());
  return tokenizer;
}

}  // namespace spear
