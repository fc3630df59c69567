#include "spear/serve/served_model.h"

#include <algorithm>

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/serve/tokenizer_info.h"

namespace spear {
namespace {

size_t longest_token(const Tokenizer& tokenizer) {
  size_t longest = 1;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id)
    longest = std::max(longest, tokenizer.token_bytes(id).size());
  return longest;
}

Json object_or_null(const std::string& text, const char* what) {
  if (text.empty()) return nullptr;
  return value_or_throw(parse_json(text, what));
}

Json card_of(const ModelFacts& facts, int64_t max_context) {
  return {{"id", facts.name},
          {"object", "model"},
          {"created", facts.created},
          {"owned_by", "spear"},
          {"root", facts.name},
          {"parent", nullptr},
          {"max_model_len", max_context},
          {"permission", Json::array()},
          {"meta", object_or_null(facts.facts, "facts")},
          {"certificate", object_or_null(facts.certificate, "certificate")}};
}

const Tokenizer& tokenizer_of(const Engine& engine) {
  if (engine.tokenizer() == nullptr)
    throw Failure(ErrorCode::kUsage, "a model without a tokenizer cannot be served");
  return *engine.tokenizer();
}

}  // namespace

ServedModel::ServedModel(Engine& engine, ModelFacts facts)
    : engine_(engine), tokenizer_(tokenizer_of(engine)), facts_(std::move(facts)) {
  if (!facts_.chat_template.empty()) {
    Result<ChatTemplate> parsed = ChatTemplate::parse(facts_.chat_template);
    if (!parsed)
      throw Failure(parsed.error().code,
                    fmt::format("{}: chat template: {}", facts_.name, parsed.error().message));
    template_ = std::move(*parsed);
  }
  longest_text_ = static_cast<size_t>(max_context()) * longest_token(tokenizer_);
  static_cast<void>(card());  // throws now, not at the first request
}

ApiResult<void> ServedModel::check_name(const std::string& name) const {
  if (name.empty() || name == facts_.name) return {};
  return refuse({404, fmt::format("model: {} is served here, not the one asked for", facts_.name),
                 "model", "model_not_found"});
}

ApiResult<std::vector<int32_t>> ServedModel::encode(const std::string& text, bool add_special,
                                                    bool parse_special, const char* field) const {
  if (text.size() > longest_text_)
    return refuse_field(
        field,
        fmt::format("a text of {} bytes cannot fit into the model's maximum context "
                    "length of {} tokens",
                    text.size(), max_context()),
        "context_length_exceeded");
  try {
    return tokenizer_.encode(text, {.add_special = add_special, .parse_special = parse_special});
  } catch (const Failure& failure) {
    return refuse_field(field, failure.error().message);
  }
}

std::string ServedModel::card() const {
  return one_line(card_of(facts_, max_context()));
}

std::string ServedModel::list() const {
  return one_line({{"object", "list"}, {"data", Json::array({card_of(facts_, max_context())})}});
}

std::string ServedModel::tokenizer_config() const {
  return one_line(tokenizer_info(tokenizer_, facts_.chat_template, max_context()));
}

}  // namespace spear
