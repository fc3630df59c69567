// The report: one self-contained HTML page without scripts, and the same figures as a Markdown
// table. Pure functions.
#pragma once

#include <string>

#include "spear/report/report_input.h"

namespace spear {

std::string html_report(const ReportInput& input);
std::string markdown_report(const ReportInput& input);

}  // namespace spear
