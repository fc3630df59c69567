#define PCRE2_CODE_UNIT_WIDTH 8
#include "spear/tokenizer/pattern.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <utility>

#include <fmt/format.h>
#include <pcre2.h>

#include "spear/base/printable.h"
#include "spear/tokenizer/unicode_delta.h"

namespace spear {
namespace {

constexpr size_t kMaxExpression = size_t{64} << 10;
constexpr size_t kFreeSteps = 100'000;     // of one match, besides those below
constexpr size_t kStepsPerByte = 4;        // \s*[\r\n]+ goes back over a run of spaces once
constexpr size_t kStartsPerCall = 64;      // places where one call may try to begin a match
constexpr uint32_t kHeapLimit = 64 << 10;  // KiB
constexpr size_t kJitStackStart = size_t{32} << 10;
constexpr size_t kJitStackMax = size_t{8} << 20;
constexpr std::string_view kSpaces =
    R"(\p{Z}\t-\r\x{85})";  // White_Space; PCRE2's \s has U+180E too

using Clock = std::chrono::steady_clock;

// Walks over the expression once, copying all but the few things the dialects disagree on.
class Translator {
 public:
  Translator(std::string_view expression, std::string_view source)
      : in_(expression), source_(source) {}

  Result<std::string> run() {
    for (at_ = 0; at_ < in_.size();) {
      if (Result<void> step = in_[at_] == '\\' ? escape() : plain(); !step)
        return tl::unexpected(step.error());
    }
    return std::move(out_);
  }

 private:
  Result<void> escape() {
    if (at_ + 1 >= in_.size()) return refuse("ends in a lone backslash");
    const char letter = in_[at_ + 1];
    if (letter == 'p' || letter == 'P') return category(letter == 'P');
    if (letter == 'h' || letter == 'H')
      return refuse("uses \\h, which its dialects read differently");
    if (letter == 's') {
      append_class(kSpaces, false);
    } else if (letter == 'S' && !in_class_) {
      append_class(kSpaces, true);
    } else {
      out_.append(in_.substr(at_, 2));
    }
    at_ += 2;
    return {};
  }

  Result<void> category(bool negated) {
    size_t begin = at_ + 2;
    size_t end = begin + 1;
    std::string_view name = in_.substr(begin, 1);
    if (name == "{") {
      end = in_.find('}', begin);
      if (end == std::string_view::npos) return refuse("has \\p{ without its }");
      name = in_.substr(begin + 1, end - begin - 1);
      ++end;
    }
    const std::string_view whole = in_.substr(at_, end - at_);
    at_ = end;
    if (name.starts_with('^')) {
      name.remove_prefix(1);
      negated = !negated;
    }
    const std::string_view more = unicode_additions(name);
    if (more.empty() || (negated && in_class_)) {
      out_.append(whole);
    } else {
      append_class(fmt::format("\\p{{{}}}{}", name, more), negated);
    }
    return {};
  }

  Result<void> plain() {
    const char c = in_[at_];
    if (!in_class_ && c == '[') {
      in_class_ = true;
      out_.push_back(in_[at_++]);
      if (at_ < in_.size() && in_[at_] == '^') out_.push_back(in_[at_++]);
      if (at_ < in_.size() && in_[at_] == ']') out_.push_back(in_[at_++]);
      return {};
    }
    if (in_class_ && c == '[' && in_.substr(at_, 2) != "[:")
      return refuse("has a class inside a class, which its dialects read differently");
    if (in_class_ && in_.substr(at_, 2) == "&&")
      return refuse("intersects classes with &&, which its dialects read differently");
    if (in_class_ && c == '[') {  // [:name:]
      const size_t end = in_.find(":]", at_);
      if (end == std::string_view::npos) return refuse("has [: without its :]");
      out_.append(in_.substr(at_, end + 2 - at_));
      at_ = end + 2;
      return {};
    }
    if (in_class_ && c == ']') in_class_ = false;
    out_.push_back(in_[at_++]);
    return {};
  }

  void append_class(std::string_view members, bool negated) {
    if (in_class_) {
      out_.append(members);
    } else {
      out_.append(negated ? "[^" : "[").append(members).append("]");
    }
  }

  Result<void> refuse(std::string_view what) const {
    return fail(ErrorCode::kUnsupported, fmt::format("{}: the pattern {} {} (at byte {})", source_,
                                                     printable(in_, 200), what, at_));
  }

  std::string_view in_;
  std::string_view source_;
  std::string out_;
  size_t at_ = 0;
  bool in_class_ = false;
};

bool is_continuation(char byte) {
  return (static_cast<uint8_t>(byte) & 0xc0) == 0x80;
}

std::string pcre_message(int code) {
  PCRE2_UCHAR buffer[160] = {};
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Pattern::Compiled {
  std::string expression;
  pcre2_code* code = nullptr;
  Compiled() = default;
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;
  ~Compiled() { pcre2_code_free(code); }
};

Result<std::string> translate_pattern(std::string_view expression, std::string_view source) {
  if (expression.size() > kMaxExpression)
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: a pattern of {} bytes; at most {} are allowed", source,
                            expression.size(), kMaxExpression));
  return Translator(expression, source).run();
}

Pattern::Pattern(std::unique_ptr<Compiled> compiled) : compiled_(std::move(compiled)) {}
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

Result<Pattern> Pattern::compile(std::string_view expression, std::string_view source) {
  Result<std::string> translated = translate_pattern(expression, source);
  if (!translated) return tl::unexpected(translated.error());
  auto compiled = std::make_unique<Compiled>();
  compiled->expression = expression;
  int code = 0;
  PCRE2_SIZE at = 0;
  // ^ and $ see line ends, as in Oniguruma's Ruby syntax.
  compiled->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF | PCRE2_MULTILINE |
                        PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT,
                    &code, &at, nullptr);
  if (compiled->code == nullptr)
    return fail(ErrorCode::kBadFile, fmt::format("{}: the pattern {} is not usable: {}", source,
                                                 printable(expression, 200), pcre_message(code)));
  // Where the system forbids writable code, matching falls back to the interpreter: slower, the
  // same.
  pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE);
  return Pattern(std::move(compiled));
}

struct Matcher::State {
  const Pattern::Compiled& pattern;
  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
  Clock::time_point deadline;

  State(const Pattern::Compiled& compiled, size_t bytes)
      : pattern(compiled),
        data(pcre2_match_data_create_from_pattern(compiled.code, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr)),
        deadline(Clock::now() + std::chrono::seconds(2) + std::chrono::microseconds(2 * bytes)) {
    if (data == nullptr || context == nullptr || stack == nullptr) throw std::bad_alloc();
    const size_t steps = std::min<size_t>(kFreeSteps + kStepsPerByte * bytes, ~uint32_t{0});
    pcre2_set_match_limit(context, static_cast<uint32_t>(steps));
    pcre2_set_heap_limit(context, kHeapLimit);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }

  [[noreturn]] void stop(size_t at, std::string_view why) const {
    throw Failure(
        ErrorCode::kUnsupported,
        fmt::format("the tokenizer's pattern {} backtracks too much: stopped at byte {} of a "
                    "text ({})",
                    printable(pattern.expression, 200), at, why));
  }
};

Matcher::Matcher(const Pattern& pattern, size_t bytes)
    : state_(std::make_unique<State>(*pattern.compiled_, bytes)) {}
Matcher::~Matcher() = default;

// Each call of PCRE2 tries few starts with few steps each, and the clock is read between calls:
// that ends a pattern that is slow at every position as well as one that explodes at the first.
bool Matcher::next(std::string_view text, size_t& at, Match& match) {
  const State& state = *state_;
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(state.data);
  while (at < text.size()) {
    pcre2_set_offset_limit(state.context, at + kStartsPerCall - 1);
    const int rc = pcre2_match(state.pattern.code, reinterpret_cast<PCRE2_SPTR>(text.data()),
                               text.size(), at, 0, state.data, state.context);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) state.stop(at, pcre_message(rc));
    if (Clock::now() > state.deadline) state.stop(at, "out of time");
    if (rc < 0) {
      at += kStartsPerCall;
    } else {
      match = {found[0], found[1]};
      at = match.end > match.begin ? match.end : match.begin + 1;
    }
    while (at < text.size() && is_continuation(text[at]))
      ++at;  // no match begins inside a character
    if (rc >= 0) return match.begin < text.size();
  }
  return false;
}

}  // namespace spear
