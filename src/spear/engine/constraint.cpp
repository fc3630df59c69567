#include "spear/engine/constraint.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include <fmt/format.h>

#include "spear/engine/json_schema.h"
#include "spear/engine/regex.h"
#include "spear/tokenizer/utf8.h"

namespace spear {
namespace {

constexpr size_t kMostChoices = 1024;
constexpr size_t kMostChoiceBytes = 65536;

}  // namespace

Constraint::Constraint(ByteAutomaton automaton, VocabularyPointer vocabulary)
    : vocabulary_(std::move(vocabulary)),
      drops_space_(vocabulary_->tokenizer().strips_first_space()),
      automaton_(std::move(automaton)) {}

int32_t Constraint::after(int32_t state, int32_t token, bool first) const {
  std::string_view bytes = vocabulary_->tokenizer().token_bytes(token);
  if (first && drops_space_ && bytes.starts_with(' ')) bytes.remove_prefix(1);
  const std::lock_guard lock(mutex_);
  for (const char c : bytes) {
    state = automaton_.next(state, static_cast<uint8_t>(c));
    if (state < 0) break;
  }
  return state;
}

bool Constraint::accepts(int32_t state) const {
  const std::lock_guard lock(mutex_);
  return automaton_.accepts(state);
}

bool Constraint::continues(int32_t state) const {
  const std::lock_guard lock(mutex_);
  return automaton_.continues(state);
}

// Walks the vocabulary with the automaton: a dead byte skips its whole subtree.
const Constraint::Bits* Constraint::bits_of(int32_t state, bool first) const {
  const bool drops = first && drops_space_;
  const int64_t key = int64_t{state} * 2 + (drops ? 1 : 0);
  if (const auto found = masks_.find(key); found != masks_.end()) return &found->second;
  Bits bits((static_cast<size_t>(vocabulary_->tokenizer().vocab_size()) + 63) / 64, 0);
  std::array<int32_t, TokenTrie::kLongest + 1> states{};
  states[0] = state;
  const std::span<const TokenTrie::Node> nodes = vocabulary_->nodes();
  for (size_t i = 0; i < nodes.size();) {
    const TokenTrie::Node& node = nodes[i];
    const int32_t before = states[node.depth - 1u];
    const bool dropped = drops && node.depth == 1 && node.byte == ' ';
    const int32_t here = dropped ? before : automaton_.next(before, node.byte);
    if (here == ByteAutomaton::kTooMany) return nullptr;
    if (here < 0) {
      i = static_cast<size_t>(node.end);
      continue;
    }
    states[node.depth] = here;
    for (const int32_t token : vocabulary_->tokens(node))
      bits[static_cast<size_t>(token) / 64] |= uint64_t{1} << (token % 64);
    ++i;
  }
  if (masks_.size() >= kMostMasks) masks_.clear();
  return &masks_.emplace(key, std::move(bits)).first->second;
}

bool Constraint::mask(int32_t state, bool first, std::span<const int32_t> keep,
                      std::span<float> logits) const {
  const std::lock_guard lock(mutex_);
  const Bits* bits = bits_of(state, first);
  if (bits == nullptr) return false;
  std::vector<float> kept;
  for (const int32_t token : keep) kept.push_back(logits[static_cast<size_t>(token)]);
  for (size_t begin = 0; begin < logits.size(); begin += 64) {
    const uint64_t word = begin / 64 < bits->size() ? (*bits)[begin / 64] : 0;
    const size_t end = std::min(begin + 64, logits.size());
    if (word == ~uint64_t{0}) continue;
    for (size_t token = begin; token < end; ++token)
      if ((word >> (token - begin) & 1) == 0)
        logits[token] = -std::numeric_limits<float>::infinity();
  }
  for (size_t i = 0; i < keep.size(); ++i) logits[static_cast<size_t>(keep[i])] = kept[i];
  return true;
}

bool ConstraintMatcher::mask(std::span<float> logits, std::span<const int32_t> ends) {
  const bool whole = constraint_->accepts(state_);
  if (constraint_->mask(state_, first_, whole ? ends : std::span<const int32_t>(), logits))
    return true;
  trouble_ = "the constraint is too complex: its automaton outgrew its bound";
  return false;
}

void ConstraintMatcher::accept(int32_t token) {
  const int32_t next = constraint_->after(state_, token, first_);
  first_ = false;
  if (next < 0) return;  // an end token, which has no place in the text
  state_ = next;
  complete_ = constraint_->accepts(state_) && !constraint_->continues(state_);
}

Result<ConstraintPointer> compile_pattern(const Pattern& pattern, VocabularyPointer vocabulary) {
  Result<ByteAutomaton> automaton = ByteAutomaton::build(pattern);
  if (!automaton) return tl::unexpected<Error>(automaton.error());
  return std::make_shared<const Constraint>(std::move(*automaton), std::move(vocabulary));
}

Result<ConstraintPointer> compile_regex(std::string_view regex, VocabularyPointer vocabulary) {
  Result<Regex> parsed = parse_regex(regex);
  if (!parsed) return tl::unexpected<Error>(parsed.error());
  return compile_pattern(*parsed->pattern, std::move(vocabulary));
}

Result<ConstraintPointer> compile_json_schema(std::string_view schema,
                                              VocabularyPointer vocabulary) {
  Result<PatternPointer> parsed = parse_json_schema(schema);
  if (!parsed) return tl::unexpected<Error>(parsed.error());
  return compile_pattern(**parsed, std::move(vocabulary));
}

Result<ConstraintPointer> compile_json_object(VocabularyPointer vocabulary) {
  constexpr int kDepth = 6;
  return compile_pattern(*any_json_object(kDepth), std::move(vocabulary));
}

Result<ConstraintPointer> compile_choice(std::span<const std::string> texts,
                                         VocabularyPointer vocabulary) {
  std::vector<PatternPointer> parts;
  size_t bytes = 0;
  for (const std::string& text : texts) {
    bytes += text.size();
    if (!is_valid_utf8(text)) return fail(ErrorCode::kUsage, "choice: valid UTF-8 expected");
    parts.push_back(literal(text));
  }
  if (texts.empty() || texts.size() > kMostChoices || bytes > kMostChoiceBytes)
    return fail(ErrorCode::kUsage,
                fmt::format("choice: 1 to {} texts of at most {} bytes together expected, found {} "
                            "of {}",
                            kMostChoices, kMostChoiceBytes, texts.size(), bytes));
  return compile_pattern(*choice(std::move(parts)), std::move(vocabulary));
}

}  // namespace spear
