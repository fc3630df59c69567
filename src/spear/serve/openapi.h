// The OpenAPI document of what the server answers. Pure function, every thread.
#pragma once

#include <string>
#include <string_view>

namespace spear {

std::string openapi_document(std::string_view version);

}  // namespace spear
