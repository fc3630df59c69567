// What the text of an answer must match, and which tokens may come next. A Constraint is compiled
// once, by any thread, and may serve any number of requests; its automaton and the masks made from
// it grow while it is used, within bounds, behind a lock of its own. A ConstraintMatcher is one
// answer's place in it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "spear/base/error.h"
#include "spear/engine/byte_automaton.h"
#include "spear/engine/token_trie.h"

namespace spear {

class Constraint;
using ConstraintPointer = std::shared_ptr<const Constraint>;
using VocabularyPointer = std::shared_ptr<const TokenTrie>;

// What the others below are made of.
Result<ConstraintPointer> compile_pattern(const Pattern& pattern, VocabularyPointer vocabulary);
// The whole answer must match. kUsage says where the expression goes wrong.
Result<ConstraintPointer> compile_regex(std::string_view regex, VocabularyPointer vocabulary);
// The answer must be JSON text of the schema (engine/json_schema.h says which keywords there are);
// any other keyword is refused by name.
Result<ConstraintPointer> compile_json_schema(std::string_view schema,
                                              VocabularyPointer vocabulary);
// Any JSON object, nested at most six deep.
Result<ConstraintPointer> compile_json_object(VocabularyPointer vocabulary);
// One of these texts.
Result<ConstraintPointer> compile_choice(std::span<const std::string> texts,
                                         VocabularyPointer vocabulary);

class Constraint {
 public:
  static constexpr size_t kMostMasks = 256;  // kept; each a bit a token

  Constraint(ByteAutomaton automaton, VocabularyPointer vocabulary);

  // Functions below are safe from every thread. States are those of the automaton.
  [[nodiscard]] int32_t start() const { return 0; }
  // ByteAutomaton::kDead, kTooMany, or the state after the token's bytes. `first`: the token opens
  // the text, where some tokenizers drop a space.
  [[nodiscard]] int32_t after(int32_t state, int32_t token, bool first) const;
  [[nodiscard]] bool accepts(int32_t state) const;
  [[nodiscard]] bool continues(int32_t state) const;
  // Logits of tokens that may not follow become minus infinity, but those of `keep` stay. False:
  // the automaton grew too large.
  bool mask(int32_t state, bool first, std::span<const int32_t> keep,
            std::span<float> logits) const;

 private:
  using Bits = std::vector<uint64_t>;
  const Bits* bits_of(int32_t state, bool first) const;

  VocabularyPointer vocabulary_;
  bool drops_space_;
  mutable std::mutex mutex_;
  mutable ByteAutomaton automaton_;
  mutable std::unordered_map<int64_t, Bits> masks_;
};

class ConstraintMatcher {
 public:
  explicit ConstraintMatcher(ConstraintPointer constraint) : constraint_(std::move(constraint)) {}

  // Forbids what cannot follow; `ends` may follow where the text is whole. False: trouble() says
  // why nothing can be said.
  bool mask(std::span<float> logits, std::span<const int32_t> ends);
  // The chosen token: one that mask() allowed.
  void accept(int32_t token);
  // The text is whole and nothing can be added to it.
  [[nodiscard]] bool complete() const { return complete_; }
  [[nodiscard]] const char* trouble() const { return trouble_; }

 private:
  ConstraintPointer constraint_;
  int32_t state_ = 0;
  bool first_ = true, complete_ = false;
  const char* trouble_ = nullptr;
};

}  // namespace spear
