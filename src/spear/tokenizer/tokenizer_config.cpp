#include <algorithm>
#include <charconv>
#include <optional>

#include <fmt/format.h>

#include "spear/base/printable.h"
#include "spear/tokenizer/json_reader.h"
#include "spear/tokenizer/tokenizer_json.h"

namespace spear {
namespace {

// Written as text, or as an object with the text in "content".
std::optional<std::string> token_text(const JsonReader& root, std::string_view key) {
  const std::optional<JsonReader> token = root.find(key);
  if (!token) return std::nullopt;
  if (token->value().is_object()) return token->at("content").text();
  return token->text();
}

// Tokens that a tokenizer.model does not have: id → properties.
void added_tokens(const JsonReader& list, std::string_view source,
                  TokenizerDefinition& definition) {
  std::vector<std::pair<int64_t, JsonReader>> entries;
  if (!list.value().is_object()) list.expected("an object");
  for (const auto& [key, value] : list.value().items()) {
    int64_t id = -1;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    const JsonReader entry(value, source, fmt::format("{}[{}]", list.path(), printable(key)));
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || id < 0)
      entry.expected("the entry of a token id");
    entries.emplace_back(id, entry);
  }
  std::sort(entries.begin(), entries.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (const auto& [id, entry] : entries) {
    if (id < static_cast<int64_t>(definition.pieces.size())) continue;  // the vocabulary has it
    if (id > static_cast<int64_t>(definition.pieces.size()))
      entry.expected(
          fmt::format("the id {}, the first after the vocabulary", definition.pieces.size()));
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = entry.at("content").text();
    token.special = entry.boolean_or("special", false);
    token.left_strip = entry.boolean_or("lstrip", false);
    token.right_strip = entry.boolean_or("rstrip", false);
    token.single_word = entry.boolean_or("single_word", false);
    definition.pieces.push_back(token.content);
    definition.kinds.push_back(token.special ? PieceKind::kControl : PieceKind::kUserDefined);
    if (definition.model != ModelKind::kMergeBpe) definition.scores.push_back(0);
    definition.added.push_back(std::move(token));
  }
}

// One template, or a list of named ones of which "default" is meant.
std::string chat_template(const JsonReader& value) {
  if (!value.value().is_array()) return value.text();
  std::string chosen;
  for (size_t i = 0; i < value.array_size(); ++i) {
    const JsonReader entry = value.at(i);
    if (i == 0 || entry.at("name").text() == "default") chosen = entry.at("template").text();
  }
  return chosen;
}

}  // namespace

void apply_tokenizer_config(std::string_view config, std::string_view source,
                            TokenizerDefinition& definition) {
  const SortedJson json = value_or_throw(parse_sorted_json(config, source));
  const JsonReader root(json, source, "");
  if (const auto list = root.find("added_tokens_decoder")) added_tokens(*list, source, definition);
  for (const auto& [key, target] :
       {std::pair{"bos_token", &definition.bos}, std::pair{"eos_token", &definition.eos},
        std::pair{"unk_token", &definition.unknown}, std::pair{"pad_token", &definition.padding}}) {
    const std::optional<std::string> text = token_text(root, key);
    if (!text) continue;
    const auto found = std::find(definition.pieces.begin(), definition.pieces.end(), *text);
    if (found == definition.pieces.end())
      throw Failure(ErrorCode::kBadFile,
                    fmt::format("{}: {} is {}, which the tokenizer does not have", source, key,
                                printable(*text)));
    // The model keeps its own unknown token: this one only names it.
    if (target == &definition.unknown) continue;
    *target = static_cast<int32_t>(found - definition.pieces.begin());
  }
  if (const auto value = root.find("chat_template"))
    definition.chat_template = chat_template(*value);
}

}  // namespace spear
