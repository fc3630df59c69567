// Texts made to find fault with a tokenizer, the same as
// tests/golden/tokenizer/make_token_goldens.py makes.
#pragma once

#include <map>
#include <string>

namespace spear::test {

std::map<std::string, std::string> hostile_texts();

}  // namespace spear::test
