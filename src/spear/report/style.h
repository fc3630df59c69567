// The style sheet of the report: colours as variables for light and dark, sizes that hold on a
// phone.
#pragma once

#include <string_view>

namespace spear {

std::string_view report_style();

}  // namespace spear
