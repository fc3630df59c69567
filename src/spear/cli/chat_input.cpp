#include "spear/cli/chat_input.h"

#include <string_view>

namespace spear {
namespace {

constexpr std::string_view kQuotes = "\"\"\"";
constexpr size_t kMostBytes = size_t{16} << 20;  // of one message

std::string trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == text.npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1));
}

ChatInput command(const std::string& line) {
  const size_t space = line.find(' ');
  const std::string name = line.substr(0, space);
  const std::string rest = space == std::string::npos ? "" : trimmed(line.substr(space));
  if (name == "/exit" || name == "/quit" || name == "/bye") return {ChatInputKind::kExit, {}};
  if (name == "/reset") return {ChatInputKind::kReset, {}};
  if (name == "/stats") return {ChatInputKind::kStats, {}};
  if (name == "/system") return {ChatInputKind::kSystem, rest};
  if (name == "/help" || name == "/?") return {ChatInputKind::kHelp, {}};
  return {ChatInputKind::kUnknown, name};
}

}  // namespace

std::optional<std::string> ChatReader::line(const std::string& prompt) {
  if (!prompt.empty()) {
    std::fputs(prompt.c_str(), stdout);
    std::fflush(stdout);
  }
  std::string text;
  for (int c = std::fgetc(stream_); c != EOF; c = std::fgetc(stream_)) {
    if (c == '\n') return text;
    if (text.size() < kMostBytes) text += static_cast<char>(c);
  }
  if (text.empty()) return std::nullopt;
  return text;
}

// Everything up to the closing marks, line ends kept.
std::string ChatReader::quoted(std::string first) {
  std::string text = std::move(first);
  while (text.find(kQuotes) == std::string::npos && text.size() < kMostBytes) {
    const std::optional<std::string> more = line(prompt_.empty() ? "" : ". ");
    if (!more) return text;
    text += "\n" + *more;
  }
  return text.substr(0, text.find(kQuotes));
}

ChatInput ChatReader::next() {
  for (;;) {
    std::optional<std::string> typed = line(prompt_);
    if (!typed) return {ChatInputKind::kExit, {}};
    std::string text = trimmed(*typed);
    if (text.starts_with(kQuotes)) {
      text = trimmed(quoted(text.substr(kQuotes.size())));
    } else {
      if (text.starts_with('/')) return command(text);
      while (text.ends_with('\\')) {
        text.back() = '\n';
        const std::optional<std::string> more = line(prompt_.empty() ? "" : ". ");
        if (!more) break;
        text += *more;
      }
    }
    if (!text.empty()) return {ChatInputKind::kMessage, text};
  }
}

}  // namespace spear
