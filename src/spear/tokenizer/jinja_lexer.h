// A chat template cut into text, and the tokens of its {% %} and {{ }} tags, with Jinja2's rules
// for white space as transformers sets them (trim_blocks, lstrip_blocks). Pure function, every
// thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"

namespace spear::jinja {

enum class TokenKind {
  kText,  // between tags
  kBlockBegin,
  kBlockEnd,
  kVariableBegin,
  kVariableEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;  // of a string: without quotes and escapes
  int line = 1;
};

// Throws Failure that names the line.
std::vector<Token> tokenize_template(std::string_view source);

[[noreturn]] void template_error(int line, const std::string& what);
[[noreturn]] void template_unsupported(int line, const std::string& what);

}  // namespace spear::jinja
