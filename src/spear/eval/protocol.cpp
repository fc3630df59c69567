#include "spear/eval/protocol.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include <fmt/core.h>

#include "spear/base/hash.h"

namespace spear {
namespace {

constexpr int64_t kLargestContext = int64_t{1} << 20;

// Takes digits off the front of `text`.
std::optional<int64_t> take_number(std::string_view& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data() || text.front() == '-') return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

// "512h:96"; nothing where it is not of that form, so that a path may hold an "@".
std::optional<Protocol> parse_protocol(std::string_view text) {
  Protocol protocol;
  const auto context = take_number(text);
  if (!context) return std::nullopt;
  protocol.context = *context;
  if (text.starts_with('h')) {
    protocol.second_half = true;
    text.remove_prefix(1);
  }
  if (text.starts_with(':')) {
    text.remove_prefix(1);
    const auto windows = take_number(text);
    if (!windows || *windows < 1) return std::nullopt;
    protocol.max_windows = *windows;
  }
  if (!text.empty()) return std::nullopt;
  return protocol;
}

std::string hash_of(const Windows& windows) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(windows.tokens)));
  const std::string how = windows.protocol.suffix();
  hash.update(std::as_bytes(std::span(how)));
  return hash.hex();
}

}  // namespace

std::string Protocol::suffix() const {
  return fmt::format("@{}{}", context, second_half ? "h" : "");
}

Result<TextSpec> parse_text_spec(std::string_view text) {
  TextSpec spec{.source = std::string(text), .protocol = {}};
  if (const size_t at = text.rfind('@'); at != std::string_view::npos) {
    if (const auto protocol = parse_protocol(text.substr(at + 1))) {
      spec.protocol = *protocol;
      spec.source = std::string(text.substr(0, at));
    } else if (text.find_first_of("/.", at) == std::string_view::npos) {
      return fail(
          ErrorCode::kUsage,
          fmt::format("text '{}': '{}' is not a protocol; write NAME@CONTEXT, NAME@CONTEXTh or "
                      "NAME@CONTEXTh:WINDOWS, for example wikitext2@512h:96",
                      text, text.substr(at + 1)));
    }
  }
  if (spec.source.empty())
    return fail(ErrorCode::kUsage,
                fmt::format("text '{}': a name or a file is missing before '@'", text));
  if (spec.protocol.context < 4 || spec.protocol.context > kLargestContext)
    return fail(ErrorCode::kUsage,
                fmt::format("text '{}': a context of {} tokens; expected 4 to {}", text,
                            spec.protocol.context, kLargestContext));
  return spec;
}

Result<Windows> cut_windows(std::string name, const Protocol& protocol,
                            std::span<const int32_t> text_tokens, int32_t bos,
                            const ModelLimits& limits) {
  if (protocol.context > limits.max_context)
    return fail(
        ErrorCode::kUsage,
        fmt::format(
            "{}: a context of {} tokens, but the model was made for at most {}; use a shorter one",
            name, protocol.context, limits.max_context));
  if (text_tokens.empty())
    return fail(ErrorCode::kUsage,
                fmt::format("{}: the text is empty, so there is nothing to score", name));
  const auto total = static_cast<int64_t>(text_tokens.size());
  if (total < protocol.context)
    return fail(
        ErrorCode::kUsage,
        fmt::format(
            "{}: the text has {} tokens, which do not fill one window of {}; take a longer text or "
            "a shorter context, for example @{}",
            name, total, protocol.context, std::max<int64_t>(4, total / 2)));
  for (size_t i = 0; i < text_tokens.size(); ++i)
    if (text_tokens[i] < 0 || text_tokens[i] >= limits.vocab_size)
      return fail(
          ErrorCode::kBadFile,
          fmt::format(
              "{}: the tokenizer gives token {} at place {}, but the model knows {}; the tokenizer "
              "belongs to another model",
              name, text_tokens[i], i, limits.vocab_size));
  Windows windows{.name = std::move(name),
                  .protocol = protocol,
                  .count = total / protocol.context,
                  .text_tokens = total,
                  .tokens = {},
                  .content_hash = {}};
  if (protocol.max_windows > 0) windows.count = std::min(windows.count, protocol.max_windows);
  const auto used = text_tokens.first(static_cast<size_t>(windows.count * protocol.context));
  windows.tokens.assign(used.begin(), used.end());
  if (protocol.second_half && bos >= 0)
    for (int64_t i = 0; i < windows.count; ++i)
      windows.tokens[static_cast<size_t>(i * protocol.context)] = bos;
  windows.content_hash = hash_of(windows);
  return windows;
}

}  // namespace spear
