// The names of JSON values without their definitions, for headers that only pass them on.
#pragma once

#include <nlohmann/json_fwd.hpp>

namespace spear {

using Json = nlohmann::ordered_json;
// For objects of very many keys (a vocabulary): Json keeps the order of keys but takes quadratic
// time to build such an object; this one sorts them.
using SortedJson = nlohmann::json;

}  // namespace spear
