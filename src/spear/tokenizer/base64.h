// Base64 with padding (RFC 4648), as tokenizer.json files hold binary maps. Pure functions, every
// thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace spear {

std::string base64_encode(std::string_view bytes);
std::optional<std::string> base64_decode(std::string_view text);  // nothing when it is malformed

}  // namespace spear
