// The OpenAPI document of what the server answers. Pure function, every thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace spear {

// `wants_key`: clients must come with an API key. `vocab_size`: 0 while no model is there.
std::string openapi_document(std::string_view version, bool wants_key, int64_t vocab_size);

}  // namespace spear
