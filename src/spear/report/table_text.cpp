#include <fmt/core.h>

#include "spear/report/svg.h"
#include "spear/report/tables.h"

namespace spear {
namespace {

// Text inside a Markdown table's cell: nothing in it may be markup.
std::string escape_markdown(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("\\`*_[]<>|#").find(c) != std::string_view::npos) out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out;
}

}  // namespace

std::string to_html(const Table& table) {
  const std::string caption = escape_html(table.caption);
  std::string out = fmt::format(
      "<p class=\"caption\">{}</p>\n<div class=\"scroll\" role=\"region\" aria-label=\"{}\" "
      "tabindex=\"0\">"
      "<table>\n<thead><tr>",
      caption, caption);
  for (const std::string& cell : table.header)
    out += fmt::format("<th scope=\"col\">{}</th>", escape_html(cell));
  out += "</tr></thead>\n<tbody>\n";
  for (size_t i = 0; i < table.rows.size(); ++i) {
    out += i < table.emphasised ? "<tr class=\"reference\">" : "<tr>";
    for (size_t j = 0; j < table.rows[i].size(); ++j)
      out += j == 0 ? fmt::format("<th scope=\"row\">{}</th>", escape_html(table.rows[i][j]))
                    : fmt::format("<td>{}</td>", escape_html(table.rows[i][j]));
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string to_markdown(const Table& table) {
  std::string out = fmt::format("**{}**\n\n|", escape_markdown(table.caption));
  std::string rule = "|";
  for (size_t j = 0; j < table.header.size(); ++j) {
    out += fmt::format(" {} |", escape_markdown(table.header[j]));
    rule += j == 0 ? "---|" : "---:|";
  }
  out += "\n" + rule + "\n";
  for (const auto& row : table.rows) {
    out += "|";
    for (const std::string& cell : row) out += fmt::format(" {} |", escape_markdown(cell));
    out += "\n";
  }
  return out + "\n";
}

}  // namespace spear
