#include "spear/report/tables.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <fmt/core.h>

#include "spear/report/axis.h"
#include "spear/report/plots.h"

namespace spear {
namespace {

using Row = std::vector<std::string>;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::string real(double value, int digits) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, digits) : std::string("–");
}

std::string with_error(double value, double error, int digits) {
  if (!std::isfinite(error) || !std::isfinite(value)) return real(value, digits);
  return fmt::format("{:.{}f} ± {:.{}f}", value, digits, error, digits);
}

std::string percent(double share, int digits = 1) {
  return std::isfinite(share) ? fmt::format("{:.{}f} %", 100 * share, digits) : std::string("–");
}

std::string megabytes(double bytes) {
  return real(bytes / 1e6, 1);
}

const ModelResult* baseline_of(const ReportInput& input) {
  for (const ModelResult& model : input.evaluation.models)
    if (!input.baseline.empty() && model.path == input.baseline) return &model;
  return nullptr;
}

double baseline_perplexity(const ReportInput& input, const std::string& text) {
  const ModelResult* baseline = baseline_of(input);
  const TextResult* found = baseline != nullptr ? find_text(*baseline, text) : nullptr;
  return found != nullptr ? found->perplexity : kNaN;
}

std::vector<const ModelResult*> everyone(const EvalResult& evaluation) {
  std::vector<const ModelResult*> all{&evaluation.reference};
  for (const ModelResult& model : evaluation.models) all.push_back(&model);
  return all;
}

std::string label_of(const EvalResult& evaluation, const ModelResult& model) {
  const std::string name = short_model_name(model.path, 40);
  return &model == &evaluation.reference ? name + " (reference)" : name;
}

const TaskResult* find_task(const ModelResult& model, const std::string& name) {
  const auto found = std::find_if(model.tasks.begin(), model.tasks.end(),
                                  [&](const TaskResult& task) { return task.name == name; });
  return found == model.tasks.end() ? nullptr : &*found;
}

}  // namespace

double gap_closed(double baseline, double reference, double model) {
  if (!(baseline > reference)) return kNaN;
  return (baseline - model) / (baseline - reference);
}

Table size_table(const ReportInput& input) {
  Table table{.caption = "Size",
              .header = {"model", "MB", "bits a weight", "weights MB", "scales, zeros MB",
                         "compensators MB", "embedding, head MB"},
              .rows = {},
              .emphasised = 1};
  for (const ModelResult* model : everyone(input.evaluation)) {
    const ByteParts& b = model->bytes;
    table.rows.push_back({label_of(input.evaluation, *model),
                          megabytes(static_cast<double>(b.total)), real(model->bits_per_weight, 3),
                          megabytes(static_cast<double>(b.weights)),
                          real(static_cast<double>(b.scales + b.zeros) / 1e6, 2),
                          real(static_cast<double>(b.compensators) / 1e6, 2),
                          megabytes(static_cast<double>(b.embedding + b.head))});
  }
  return table;
}

Table text_table(const ReportInput& input, const TextResult& reference) {
  const double baseline = baseline_perplexity(input, reference.name);
  const bool with_gap = std::isfinite(baseline);
  Table table{.caption = fmt::format("{}: {} predictions in {} windows", reference.name,
                                     short_number(static_cast<double>(reference.scored)),
                                     short_number(static_cast<double>(reference.windows))),
              .header = {"model", "MB", "perplexity", "÷ reference", "KL mean", "KL median",
                         "KL 99 %", "same top-1"},
              .rows = {},
              .emphasised = 1};
  if (with_gap) table.header.emplace_back("gap closed");
  for (const ModelResult* model : everyone(input.evaluation)) {
    const TextResult* own = find_text(*model, reference.name);
    if (own == nullptr) continue;
    Row row{label_of(input.evaluation, *model), megabytes(static_cast<double>(model->bytes.total)),
            with_error(own->perplexity, own->perplexity_stderr, 2),
            real(own->perplexity / reference.perplexity, 3)};
    if (own->divergence) {
      const Divergence& d = *own->divergence;
      const Row figures{with_error(d.kl.mean, d.kl.standard_error, 4), real(d.kl_median, 4),
                        real(d.kl_p99, 3), percent(d.top1_agreement.mean)};
      row.insert(row.end(), figures.begin(), figures.end());
    } else {
      row.insert(row.end(), {"0", "0", "0", "100 %"});
    }
    if (with_gap)
      row.push_back(percent(gap_closed(baseline, reference.perplexity, own->perplexity), 0));
    table.rows.push_back(std::move(row));
  }
  if (!input.peers || input.peers->text != reference.name) return table;
  for (const PeerPoint& peer : input.peers->points) {
    Row row{peer.name + " (llama.cpp)",
            megabytes(peer.bytes),
            "–",
            real(peer.perplexity_ratio, 3),
            real(peer.kl, 4),
            "–",
            "–",
            percent(peer.top1)};
    if (with_gap) row.emplace_back("–");
    table.rows.push_back(std::move(row));
  }
  return table;
}

Table task_table(const ReportInput& input) {
  Table table{
      .caption = "Tasks, zero-shot: accuracy in percent, per byte of the answer in brackets",
      .header = {"model"},
      .rows = {},
      .emphasised = 1};
  for (const TaskResult& task : input.evaluation.reference.tasks)
    table.header.push_back(fmt::format("{} (n = {})", task.name, task.n));
  if (table.header.size() == 1) return table;
  for (const ModelResult* model : everyone(input.evaluation)) {
    Row row{label_of(input.evaluation, *model)};
    for (const TaskResult& task : input.evaluation.reference.tasks) {
      const TaskResult* own = find_task(*model, task.name);
      if (own == nullptr) {
        row.emplace_back("–");
        continue;
      }
      std::string cell = with_error(100 * own->accuracy, 100 * own->accuracy_stderr, 1);
      if (own->accuracy_norm) cell += fmt::format(" ({:.1f})", 100 * *own->accuracy_norm);
      row.push_back(std::move(cell));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

Table damage_table(const DamageReport& report, size_t worst) {
  Table table{.caption = fmt::format("The {} modules that hurt most",
                                     std::min(worst, report.modules.size())),
              .header = {"module", "1 − CKA", "mean KL"},
              .rows = {},
              .emphasised = 0};
  const std::vector<double> cka = report.cka_damages();
  std::vector<size_t> order(report.modules.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return cka[a] > cka[b]; });
  order.resize(std::min(worst, order.size()));
  for (const size_t i : order)
    table.rows.push_back({name_of(report.modules[i].id), fmt::format("{:.3g}", cka[i]),
                          fmt::format("{:.3g}", report.modules[i].kl)});
  return table;
}

Table curve_table(const TrainingCurve& curve, size_t most) {
  Table table{.caption = curve.name,
              .header = {"step", "loss", "held-out KL"},
              .rows = {},
              .emphasised = 0};
  std::vector<const CurvePoint*> measured;
  for (const CurvePoint& point : curve.points)
    if (point.held_out_kl >= 0) measured.push_back(&point);
  if (measured.empty())
    for (const CurvePoint& point : curve.points) measured.push_back(&point);
  const size_t step = std::max<size_t>(1, (measured.size() + most - 1) / most);
  for (size_t i = 0; i < measured.size(); ++i) {
    if (i % step != 0 && i + 1 != measured.size()) continue;
    const CurvePoint& point = *measured[i];
    table.rows.push_back({fmt::format("{}", point.step), real(point.loss, 4),
                          point.held_out_kl >= 0 ? real(point.held_out_kl, 4) : std::string("–")});
  }
  return table;
}

}  // namespace spear
