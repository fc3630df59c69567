#include "spear/serve/token_text.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

int64_t characters(std::string_view bytes) {
  return std::count_if(bytes.begin(), bytes.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

Json bytes_json(std::string_view bytes) {
  Json list = Json::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return list;
}

Json plain_entry(const Tokenizer& tokenizer, int32_t id, float logprob) {
  return {{"token", token_string(tokenizer, id)},
          {"logprob", finite_logprob(logprob)},
          {"bytes", bytes_json(token_bytes_of(tokenizer, id))}};
}

}  // namespace

double finite_logprob(float logprob) {
  constexpr double kLeast = -9999;
  return std::isfinite(logprob) ? std::max(static_cast<double>(logprob), kLeast) : kLeast;
}

std::string token_bytes_of(const Tokenizer& tokenizer, int32_t id) {
  return tokenizer.is_id(id) ? std::string(tokenizer.token_bytes(id)) : std::string();
}

std::string token_string(const Tokenizer& tokenizer, int32_t id) {
  std::string bytes = token_bytes_of(tokenizer, id);
  if (is_valid_utf8(bytes)) return bytes;
  std::string text = "bytes:";
  for (const char c : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return text;
}

Json chat_logprob(const Tokenizer& tokenizer, const StreamEvent::Token& token) {
  Json entry = plain_entry(tokenizer, token.token, token.logprob);
  Json top = Json::array();
  for (const TokenLogprob& other : token.top)
    top.push_back(plain_entry(tokenizer, other.token, other.logprob));
  entry["top_logprobs"] = std::move(top);
  return entry;
}

void CompletionLogprobs::add(const StreamEvent::Token& token, bool known) {
  tokens_.push_back(token_string(tokenizer_, token.token));
  values_.push_back(token);
  known_.push_back(known);
  offsets_.push_back(offset_);
  if (!tokenizer_.is_id(token.token)) return;
  if (skip_special_ && tokenizer_.is_special(token.token)) return;
  std::string_view bytes = tokenizer_.token_bytes(token.token);
  if (at_start_ && tokenizer_.strips_first_space() && bytes.starts_with(' '))
    bytes.remove_prefix(1);
  at_start_ = false;
  offset_ += characters(bytes);
}

Json CompletionLogprobs::take() {
  Json tokens = Json::array();
  Json logprobs = Json::array();
  Json tops = Json::array();
  Json offsets = Json::array();
  for (size_t i = 0; i < tokens_.size(); ++i) {
    tokens.push_back(tokens_[i]);
    offsets.push_back(offsets_[i]);
    if (!known_[i]) {
      logprobs.push_back(nullptr);
      tops.push_back(nullptr);
      continue;
    }
    const StreamEvent::Token& token = values_[i];
    logprobs.push_back(finite_logprob(token.logprob));
    Json top = Json::object();
    for (const TokenLogprob& other : token.top) {
      const std::string name = token_string(tokenizer_, other.token);
      if (!top.contains(name))
        top[name] = finite_logprob(other.logprob);  // the likeliest of that text
    }
    // Of the chosen token, too, as the API has it.
    if (!top.contains(tokens_[i])) top[tokens_[i]] = finite_logprob(token.logprob);
    tops.push_back(std::move(top));
  }
  tokens_.clear();
  values_.clear();
  known_.clear();
  offsets_.clear();
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

}  // namespace spear
