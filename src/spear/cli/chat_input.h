// What a person types to a chat: a message of one line or several, or a command. Reads a stream,
// prints nothing but the prompt.
#pragma once

#include <cstdio>
#include <optional>
#include <string>

namespace spear {

enum class ChatInputKind { kMessage, kReset, kSystem, kStats, kHelp, kExit, kUnknown };

struct ChatInput {
  ChatInputKind kind = ChatInputKind::kExit;
  std::string text;  // the message, the system's text, the unknown command
};

class ChatReader {
 public:
  // `prompt` is shown before a message, on standard output; empty: nothing is.
  ChatReader(std::FILE* stream, std::string prompt) : stream_(stream), prompt_(std::move(prompt)) {}

  // The next thing typed; kExit at the end of the stream and when a signal interrupts the wait.
  // A line that ends in a backslash goes on; three quotation marks open a text of several lines
  // that three more close.
  ChatInput next();

 private:
  std::optional<std::string> line(const std::string& prompt);
  std::string quoted(std::string first);

  std::FILE* stream_;
  std::string prompt_;
};

}  // namespace spear
