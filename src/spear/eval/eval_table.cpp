#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include "spear/eval/eval_result.h"

namespace spear {
namespace {

using Row = std::vector<std::string>;

// Columns as wide as their widest cell; the first to the left, numbers to the right. UTF-8 in cells
// is counted by characters.
size_t width_of(const std::string& cell) {
  return static_cast<size_t>(std::count_if(cell.begin(), cell.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0u) != 0x80u;
  }));
}

std::string lay_out(const std::vector<Row>& rows) {
  std::vector<size_t> widths(rows.front().size());
  for (const Row& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  std::string out;
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - width_of(row[i]), ' ');
      if (i > 0) line += "  ";
      line += i == 0 ? row[i] + padding : padding + row[i];
    }
    out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return out;
}

std::string with_error(double value, double error, int digits) {
  if (!std::isfinite(error)) return fmt::format("{:.{}f}", value, digits);
  return fmt::format("{:.{}f} ± {:.{}f}", value, digits, error, digits);
}

Row text_row(const ModelResult& model, const TextResult& text) {
  Row row{model.path, with_error(text.perplexity, text.perplexity_stderr, 2)};
  if (text.divergence) {
    const Divergence& d = *text.divergence;
    row.push_back(with_error(d.kl.mean, d.kl.standard_error, 4));
    row.push_back(fmt::format("{:.4f}", d.kl_median));
    row.push_back(fmt::format("{:.3f}", d.kl_p99));
    row.push_back(fmt::format("{:.1f} %", 100 * d.top1_agreement.mean));
  } else {
    row.insert(row.end(), {"", "", "", ""});
  }
  return row;
}

Row task_row(const ModelResult& model, const TaskResult& task) {
  Row row{model.path, with_error(100 * task.accuracy, 100 * task.accuracy_stderr, 1)};
  row.push_back(task.accuracy_norm
                    ? with_error(100 * *task.accuracy_norm, 100 * *task.accuracy_norm_stderr, 1)
                    : "");
  row.push_back(task.perplexity ? fmt::format("{:.2f}", *task.perplexity) : "");
  row.push_back(task.answers_changed ? fmt::format("{:.1f} %", 100 * *task.answers_changed) : "");
  return row;
}

template <class Item>
const Item* find_named(const std::vector<Item>& items, const std::string& name) {
  const auto found =
      std::find_if(items.begin(), items.end(), [&](const Item& item) { return item.name == name; });
  return found == items.end() ? nullptr : &*found;
}

std::vector<const ModelResult*> everyone(const EvalResult& result) {
  std::vector<const ModelResult*> all{&result.reference};
  for (const ModelResult& model : result.models) all.push_back(&model);
  return all;
}

}  // namespace

std::string to_table(const EvalResult& result) {
  std::string out;
  if (result.quick)
    out += "QUICK: a subset of texts and tasks; not comparable with full figures\n\n";
  const auto models = everyone(result);

  std::vector<Row> sizes{{"model", "bytes", "bits a weight", "compensators", "embedding"}};
  for (const ModelResult* model : models)
    sizes.push_back({model->path, fmt::format("{}", model->bytes.total),
                     fmt::format("{:.3f}", model->bits_per_weight),
                     fmt::format("{}", model->bytes.compensators),
                     fmt::format("{}", model->bytes.embedding + model->bytes.head)});
  out += lay_out(sizes);

  for (const TextResult& text : result.reference.texts) {
    out += fmt::format("\n{}: {} tokens, {} windows, {} predictions scored\n", text.name,
                       text.tokens, text.windows, text.scored);
    std::vector<Row> rows{{"model", "perplexity", "KL mean", "KL median", "KL 99 %", "same top-1"}};
    for (const ModelResult* model : models)
      if (const TextResult* own = find_named(model->texts, text.name))
        rows.push_back(text_row(*model, *own));
    out += lay_out(rows);
  }
  for (const TaskResult& task : result.reference.tasks) {
    out += fmt::format("\n{}: {} {}\n", task.name, task.n,
                       task.kind == TaskKind::kChoices ? "questions" : "last words");
    std::vector<Row> rows{{"model", "accuracy %", "per byte %", "perplexity", "answers changed"}};
    for (const ModelResult* model : models)
      if (const TaskResult* own = find_named(model->tasks, task.name))
        rows.push_back(task_row(*model, *own));
    out += lay_out(rows);
  }
  return out;
}

}  // namespace spear
