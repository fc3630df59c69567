// Tokens as the strings and bytes that log-probabilities are given with. Pure functions, every
// thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "spear/base/json_fwd.h"
#include "spear/engine/token_stream.h"
#include "spear/tokenizer/tokenizer.h"

namespace spear {

// The token's bytes in the middle of a text; empty for rows that only pad the vocabulary.
std::string token_bytes_of(const Tokenizer& tokenizer, int32_t id);
// The same as a JSON string must be: "bytes:\xe2\x82" where they are no whole characters.
std::string token_string(const Tokenizer& tokenizer, int32_t id);

// JSON has no infinities: a banned token has the least log-probability that clients know, -9999.
double finite_logprob(float logprob);

// The log-probabilities of chat: {"token", "logprob", "bytes", "top_logprobs"}.
Json chat_logprob(const Tokenizer& tokenizer, const StreamEvent::Token& token);

// Those of completions: four lists side by side. Offsets count characters of the whole text.
class CompletionLogprobs {
 public:
  CompletionLogprobs(const Tokenizer& tokenizer, bool skip_special)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  // `known`: false for the first token of a prompt, whose entry is null.
  void add(const StreamEvent::Token& token, bool known);
  // What was added since the last call, offsets going on.
  Json take();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_, at_start_ = true;
  int64_t offset_ = 0;
  std::vector<std::string> tokens_;
  std::vector<StreamEvent::Token> values_;
  std::vector<bool> known_;
  std::vector<int64_t> offsets_;
};

}  // namespace spear
