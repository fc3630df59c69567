// The report's figures as rows of text, written once for HTML and Markdown. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "spear/report/report_input.h"

namespace spear {

struct Table {
  std::string caption;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // the first cell names the row
  size_t emphasised = 0;                       // rows at the top that are the reference
};

Table size_table(const ReportInput& input);
// Of one text; `input.peers` joins where they were measured by its protocol.
Table text_table(const ReportInput& input, const TextResult& reference);
Table task_table(const ReportInput& input);  // no rows without tasks
Table damage_table(const DamageReport& report, size_t worst);
Table curve_table(const TrainingCurve& curve, size_t most);

std::string to_html(const Table& table);
std::string to_markdown(const Table& table);

// Share of the gap between the baseline and the reference that a model closes, by perplexity; NaN
// where there is none.
double gap_closed(double baseline, double reference, double model);

}  // namespace spear
