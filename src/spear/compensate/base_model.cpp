#include "spear/compensate/base_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include <fmt/format.h>

#include "spear/base/check.h"
#include "spear/base/rng.h"
#include "spear/compensate/closed_form.h"
#include "spear/compensate/scale_refit.h"
#include "spear/quantize/rotation.h"

namespace spear {
namespace {

// Ranks looked at beyond the even share.
constexpr int32_t kSpareRanks = 6;

// Σ_j R_jj Σ_i W_ij²: what the layer's output would lose with the whole weight, inputs taken as
// uncorrelated.
double output_energy(const float* weight, const float* covariance, int64_t n, int64_t k) {
  std::vector<double> column(static_cast<size_t>(k), 0.0);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j)
      column[static_cast<size_t>(j)] += static_cast<double>(weight[i * k + j]) * weight[i * k + j];
  double sum = 0;
  for (int64_t j = 0; j < k; ++j) sum += column[static_cast<size_t>(j)] * covariance[j * k + j];
  return sum;
}

int32_t even_rank(const ModelConfig& config, size_t budget, const CompensatorFormat& format) {
  const auto even = allocate_evenly(config, all_modules(config), budget, format);
  return even ? *std::max_element(even->ranks.begin(), even->ranks.end()) : 0;
}

// Fits and compensates each module as the quantizer hands it over.
class ClosedForms {
 public:
  ClosedForms(const ModelConfig& config, const RecipePlan& plan, ThreadPool& pool)
      : plan_(plan),
        pool_(pool),
        format_{plan.factor_bits, plan.gate_per_rank},
        forms_(static_cast<size_t>(module_count(config))),
        gains_(forms_.size()),
        rank_(plan.extra_bytes == 0 || plan.start != FactorStart::kClosedForm
                  ? 0
                  : even_rank(config, plan.extra_bytes, format_) + kSpareRanks) {}

  void visit(ModuleWork& work) {
    if (work.covariance == nullptr) return;
    const float* covariance = work.covariance->as<float>().data();
    const float* weight = work.weight.as<float>().data();
    if (plan_.refit_scales) refit_scales(weight, covariance, work.zero_kind, pool_, work.quantized);
    if (rank_ == 0) return;
    const int64_t n = work.quantized.n;
    const int64_t k = work.quantized.k;
    ClosedFormOptions options;
    options.metric = plan_.metric;
    options.rank = options.spectrum =
        static_cast<int32_t>(std::min<int64_t>(rank_, std::min(n, k)));
    options.seed = plan_.quantize.seed;
    const std::vector<float> residual = residual_of(weight, work.quantized);
    ClosedForm form = closed_form(residual.data(), n, k, covariance, options);
    const auto at = static_cast<size_t>(work.id.index());
    gains_[at].error = form.error;
    gains_[at].damage = form.error / std::max(output_energy(weight, covariance, n, k), 1e-30);
    gains_[at].gains = form.gains;
    forms_[at] = std::move(form.factors);
  }

  void place(QuantizedModel& model) const {
    if (rank_ == 0) return;
    const Allocation allocation =
        spend_evenly_then_by_gain(model.config, gains_, compensator_budget(model, plan_), format_);
    for (size_t at = 0; at < forms_.size(); ++at)
      if (const int32_t rank = allocation.ranks[at]; rank > 0)
        model.layers[at / kModulesPerLayer].linears[at % kModulesPerLayer].compensator =
            pack(truncated(forms_[at], rank), plan_.factor_bits);
  }

 private:
  static int64_t module_count(const ModelConfig& config) {
    return config.num_hidden_layers * kModulesPerLayer;
  }
  const RecipePlan& plan_;
  ThreadPool& pool_;
  CompensatorFormat format_;
  std::vector<CompensatorValues> forms_;
  std::vector<ModuleGains> gains_;
  int32_t rank_;
};

}  // namespace

size_t compensator_budget(const QuantizedModel& model, const RecipePlan& plan) {
  if (plan.file_limit == 0) return plan.extra_bytes;
  size_t used = count_bytes(model).total();
  if (plan.row_bias)
    for (const QuantizedLayer& layer : model.layers)
      for (const QuantizedLinear& linear : layer.linears)
        if (linear.bias.empty()) used += 2 * static_cast<size_t>(linear.weight.n);
  return plan.file_limit - std::min(plan.file_limit, used);
}

Allocation spend_evenly_then_by_gain(const ModelConfig& config,
                                     std::span<const ModuleGains> modules, size_t budget,
                                     const CompensatorFormat& format) {
  Allocation total;
  total.ranks.assign(modules.size(), 0);
  const std::vector<ModuleId> ids = all_modules(config);
  if (const auto even = allocate_evenly(config, ids, budget, format)) total = *even;
  for (size_t i = 0; i < modules.size(); ++i) {  // no rank beyond those that were computed
    const auto known = static_cast<int32_t>(modules[i].gains.size());
    if (total.ranks[i] <= known) continue;
    total.bytes -=
        format.bytes(config, ids[i], total.ranks[i]) - format.bytes(config, ids[i], known);
    total.ranks[i] = known;
  }
  if (format.gate_per_rank > 0) return total;  // a gate grows with the square of the rank
  std::vector<ModuleGains> rest(modules.begin(), modules.end());
  for (size_t i = 0; i < rest.size(); ++i) {
    auto& gains = rest[i].gains;
    gains.erase(
        gains.begin(),
        gains.begin() + std::min<int64_t>(total.ranks[i], static_cast<int64_t>(gains.size())));
  }
  if (const auto more = allocate_by_gain(config, rest, budget - total.bytes, format)) {
    for (size_t i = 0; i < rest.size(); ++i) total.ranks[i] += more->ranks[i];
    total.bytes += more->bytes;
  }
  return total;
}

QuantizedModel make_base_model(const DenseModel& dense, const Covariances* covariances,
                               const RecipePlan& plan, ThreadPool& pool, Progress& progress) {
  ClosedForms forms(dense.config, plan, pool);
  QuantizedModel model = quantize_model(dense, covariances, plan.quantize, pool, progress,
                                        [&](ModuleWork& work) { forms.visit(work); });
  forms.place(model);
  return model;
}

namespace {

void fill_normal(std::vector<float>& values, int64_t count, double deviation, Rng& rng) {
  for (int64_t i = 0; i < count; ++i)
    values.push_back(static_cast<float>(deviation * rng.normal()));
}

// A gate that is exactly 1: only its output weights are zero, so that training can leave the start.
void add_gate(CompensatorValues& ec, int32_t hidden, Rng& rng) {
  const double bound = std::sqrt(6.0 / ec.rank);  // Kaiming-uniform for ReLU
  ec.gate_hidden = hidden;
  for (int64_t i = 0; i < int64_t{hidden} * ec.rank; ++i)
    ec.w1.push_back(static_cast<float>(bound * (2 * rng.uniform() - 1)));
  ec.b1.assign(static_cast<size_t>(hidden), 0.0f);
  ec.w2.assign(ec.w1.size(), 0.0f);
  ec.b2.assign(static_cast<size_t>(ec.rank), 0.0f);
}

}  // namespace

CompensatorList random_compensators(const ModelConfig& config, const Allocation& allocation,
                                    const RecipePlan& plan, uint64_t seed) {
  CompensatorList list(allocation.ranks.size());
  for (size_t at = 0; at < list.size(); ++at) {
    const int32_t rank = allocation.ranks[at];
    if (rank == 0) continue;
    Rng rng(seed, at + 1);
    const auto m = static_cast<Module>(at % kModulesPerLayer);
    CompensatorValues ec;
    ec.rank = rank;
    ec.n = static_cast<int32_t>(out_features(config, m));
    ec.k = static_cast<int32_t>(in_features(config, m));
    fill_normal(ec.a, int64_t{rank} * ec.k, 1.0 / std::sqrt(static_cast<double>(ec.k)), rng);
    if (plan.start == FactorStart::kRandomSmall)
      fill_normal(ec.b, int64_t{rank} * ec.n, 0.01 / std::sqrt(static_cast<double>(rank)), rng);
    else
      ec.b.assign(static_cast<size_t>(rank) * static_cast<size_t>(ec.n), 0.0f);
    if (plan.gate_per_rank > 0) add_gate(ec, plan.gate_per_rank * rank, rng);
    list[at] = std::move(ec);
  }
  return list;
}

CompensatorList with_gates(const QuantizedModel& model, int32_t gate_per_rank, uint64_t seed) {
  CompensatorList list(model.layers.size() * kModulesPerLayer);
  for (size_t at = 0; at < list.size(); ++at) {
    const QuantizedLinear& linear =
        model.layers[at / kModulesPerLayer].linears[at % kModulesPerLayer];
    if (!linear.compensator) continue;
    CompensatorValues ec = unpack(linear.compensator->view(), linear.weight.n, linear.weight.k);
    Rng rng(seed, at + 1);
    if (ec.gate_hidden == 0) add_gate(ec, gate_per_rank * ec.rank, rng);
    list[at] = std::move(ec);
  }
  return list;
}

std::vector<float> remaining_error(const DenseModel& dense, const QuantizedModel& model,
                                   const RecipePlan& plan, const ModuleId& id, ThreadPool& pool) {
  std::optional<Rotation> rotation;
  if (plan.quantize.rotate) rotation = make_rotation(dense.config, plan.quantize.seed);
  const WorkingLinear working = working_linear(dense, id, rotation ? &*rotation : nullptr, pool);
  const QuantizedLinear& linear = model.layers[static_cast<size_t>(id.layer)].linear(id.module);
  std::vector<float> residual =
      residual_of(working.weight.as<float>().data(), unpack(linear.weight.view()));
  if (linear.compensator)
    subtract_product(unpack(linear.compensator->view(), linear.weight.n, linear.weight.k),
                     residual.data());
  return residual;
}

}  // namespace spear
