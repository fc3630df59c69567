#include "spear/cli/values.h"

#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "spear/base/error.h"
#include "spear/base/printable.h"

namespace spear {

double parse_share(std::string_view text, std::string_view option) {
  std::string_view number = text;
  const bool percent = number.ends_with('%');
  if (percent) number.remove_suffix(1);
  while (number.ends_with(' ')) number.remove_suffix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (error != std::errc() || end != number.data() + number.size() || !std::isfinite(value))
    throw Failure(
        ErrorCode::kUsage,
        fmt::format("{}: a share such as 1% or 0.01 expected, found {}", option, printable(text)));
  return percent ? value / 100 : value;
}

}  // namespace spear
