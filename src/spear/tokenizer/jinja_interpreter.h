// Runs a parsed chat template. One rendering an object, one thread.
#pragma once

#include <ctime>
#include <string>

#include "spear/tokenizer/jinja_ast.h"
#include "spear/tokenizer/jinja_builtins.h"

namespace spear::jinja {

// Throws Failure: the template refuses the messages, does what spear does not run, or takes too
// long.
std::string render(const Body& body, const Dict& variables, const std::tm& now);

}  // namespace spear::jinja
