// What the JSON headers of the two container formats are checked for alike.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>

#include "spear/base/tensor_view.h"

namespace spear {

inline constexpr size_t kMaxTensorName = 512;

// 1 to `limit` visible ASCII characters: no space, nothing that a terminal would act on.
inline bool is_visible_name(std::string_view name, size_t limit) {
  return !name.empty() && name.size() <= limit &&
         std::all_of(name.begin(), name.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

// Of 1 to Shape::kMaxRank extents.
inline Shape shape_of(std::span<const int64_t> e) {
  switch (e.size()) {
    case 1:
      return Shape{e[0]};
    case 2:
      return Shape{e[0], e[1]};
    case 3:
      return Shape{e[0], e[1], e[2]};
    default:
      expects(e.size() == Shape::kMaxRank);
      return Shape{e[0], e[1], e[2], e[3]};
  }
}

}  // namespace spear
