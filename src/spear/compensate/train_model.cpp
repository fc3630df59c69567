#include "spear/compensate/train_model.h"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>

#include "spear/base/check.h"
#include "spear/compensate/allocate.h"
#include "spear/compensate/base_model.h"
#include "spear/compensate/closed_form.h"
#include "spear/compensate/removal.h"
#include "spear/quantize/rotation.h"

namespace spear {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// One student after another on the same data.
class Training {
 public:
  Training(QuantizedModel& model, const RecipePlan& plan, const TrainContext& context,
           Progress& progress)
      : model_(model),
        plan_(plan),
        context_(context),
        progress_(progress),
        data_{context.tokens, context.teacher, context.dense.head_weight().view()} {}

  void run(const CompensatorList& start) {
    StudentModel student = make_student(model_, {.row_bias = plan_.row_bias}, start);
    KindSet trained = 0;
    for (const TrainStage& stage : plan_.stages) {
      student.start = run_stage(student, stage);
      trained |= stage.options.rates.kinds();
    }
    const std::vector<double> worth =
        plan_.removal_sequences > 0 ? drop(student) : std::vector<double>();
    store(student, student.start, trained);
    if (report_.dropped == 0 || plan_.retune_steps == 0 || context_.covariances == nullptr) return;
    const CompensatorList larger = spend(worth);
    if (report_.ranks_added == 0) return;
    TrainStage again = plan_.stages.back();
    again.name = "retune";
    again.options.steps = plan_.retune_steps;
    // What was trained is near its place: full rates would first throw it out again.
    again.options.rates = again.options.rates.times(0.25f);
    again.options.adamw.warmup = std::min<int64_t>(5, plan_.retune_steps / 4);
    const StudentModel second = make_student(model_, {.row_bias = plan_.row_bias}, larger);
    const std::vector<float> values = run_stage(second, again);
    if (report_.stages.back().held_out_after < kl_after_drop_)
      store(second, values, trained);
    else
      report_.ranks_added = 0;  // the bytes are saved instead
  }

  TrainReport take_report() { return std::move(report_); }

 private:
  std::vector<float> run_stage(const StudentModel& student, const TrainStage& stage) {
    const auto begin = std::chrono::steady_clock::now();
    const auto pass = make_pass(student, stage.options);
    const std::filesystem::path checkpoint =
        context_.work.empty() ? std::filesystem::path()
                              : context_.work / ("train-" + stage.name + ".state");
    TrainingResult result = train(student, data_, *pass, stage.options, checkpoint, progress_);
    StageReport report;
    report.name = stage.name;
    report.held_out_before = result.held_out_before;
    report.held_out_after = result.held_out_after;
    report.best_step = result.best_step;
    report.seconds = seconds_since(begin);
    report.curve = std::move(result.curve);
    report_.stages.push_back(std::move(report));
    return std::move(result.values);
  }

  std::unique_ptr<ReversePass> make_pass(const StudentModel& student,
                                         const TrainerOptions& options) {
    const ReversePassOptions pass = choose_pass_options(student, options, context_.tokens.length,
                                                        context_.compute, context_.memory);
    return make_reverse_pass(student, data_.reference_head, context_.backend, context_.pool, pass);
  }

  // Measures what each compensator is worth on held-out sequences and switches off the useless
  // ones.
  std::vector<double> drop(StudentModel& student) {
    const TrainerOptions& options = plan_.stages.back().options;
    const auto pass = make_pass(student, options);
    // One by one on a few sequences, which is a noisy choice; all of them together must then hold
    // on every held-out sequence.
    const std::vector<int64_t> held_out = split_held_out(context_.tokens.count, options).held_out;
    const size_t few = std::min(held_out.size(), static_cast<size_t>(plan_.removal_sequences));
    const std::vector<double> worth =
        removal_damage(student, *pass, student.start, data_, {held_out.data(), few},
                       options.micro_tokens, options.temperature, progress_);
    const Dropped dropped =
        drop_useless(student, *pass, student.start, data_, held_out, worth, options);
    report_.dropped = static_cast<int64_t>(dropped.modules.size());
    report_.freed_bytes = dropped.bytes;
    kl_after_drop_ = dropped.kl;
    return worth;
  }

  void store(const StudentModel& student, std::span<const float> values, KindSet trained) {
    store_student(student, values, {plan_.factor_bits, trained}, model_);
  }

  // More rank where the freed bytes help most: a compensator's worth in KL for the local error it
  // takes away says what a further rank of its module is worth.
  CompensatorList spend(const std::vector<double>& worth) {
    const auto modules = static_cast<size_t>(model_.layers.size()) * kModulesPerLayer;
    std::vector<ModuleGains> gains(modules);
    std::vector<CompensatorValues> further(modules);
    progress_.begin("ranks elsewhere", static_cast<int64_t>(modules));
    for (size_t at = 0; at < modules; ++at) {
      look_further(at, worth[at], gains[at], further[at]);
      progress_.advance(1);
    }
    progress_.end();
    CompensatorList list(modules);
    const auto allocation = allocate_by_gain(model_.config, gains, report_.freed_bytes,
                                             {plan_.factor_bits, plan_.gate_per_rank});
    for (size_t at = 0; allocation && at < modules; ++at) {
      if (allocation->ranks[at] == 0) continue;
      list[at] = extended(linear_at(at), truncated(further[at], allocation->ranks[at]));
      report_.ranks_added += allocation->ranks[at];
    }
    return list;
  }

  [[nodiscard]] const QuantizedLinear& linear_at(size_t at) const {
    return model_.layers[at / kModulesPerLayer].linears[at % kModulesPerLayer];
  }

  void look_further(size_t at, double worth, ModuleGains& gains, CompensatorValues& further) {
    constexpr int32_t kFurtherRanks = 4;
    const QuantizedLinear& linear = linear_at(at);
    // A gate is not extended; a dropped module stays dropped.
    if (!linear.compensator || linear.compensator->gate_hidden > 0 || worth <= 0) return;
    const ModuleId id{static_cast<int32_t>(at / kModulesPerLayer),
                      static_cast<Module>(at % kModulesPerLayer)};
    HostTensor covariance = context_.covariances->load(id.layer, input_site(id.module));
    if (plan_.quantize.rotate)
      rotate_covariance(context_.dense, id.layer, input_site(id.module),
                        make_rotation(model_.config, plan_.quantize.seed), context_.pool,
                        covariance);
    std::vector<float> residual = remaining_error(context_.dense, model_, plan_, id, context_.pool);
    ClosedFormOptions options;
    options.rank = options.spectrum = std::min({kFurtherRanks, linear.weight.n, linear.weight.k});
    const ClosedForm form = closed_form(residual.data(), linear.weight.n, linear.weight.k,
                                        covariance.as<float>().data(), options);
    // What the present factors take: the error without them less the error with them.
    CompensatorValues own = unpack(linear.compensator->view(), linear.weight.n, linear.weight.k);
    for (float& b : own.b) b = -b;
    subtract_product(own, residual.data());
    options.rank = options.spectrum = 1;
    const double without = closed_form(residual.data(), linear.weight.n, linear.weight.k,
                                       covariance.as<float>().data(), options)
                               .error;
    const double taken = without - form.error;
    if (taken <= 0) return;
    gains.damage = worth;
    gains.error = taken;
    gains.gains = form.gains;
    further = form.factors;
  }

  // The module's own factors with the further ones below them.
  static CompensatorValues extended(const QuantizedLinear& linear, const CompensatorValues& more) {
    CompensatorValues ec = unpack(linear.compensator->view(), linear.weight.n, linear.weight.k);
    ec.rank += more.rank;
    ec.a.insert(ec.a.end(), more.a.begin(), more.a.end());
    ec.b.insert(ec.b.end(), more.b.begin(), more.b.end());
    return ec;
  }

  QuantizedModel& model_;
  const RecipePlan& plan_;
  const TrainContext& context_;
  Progress& progress_;
  TrainingData data_;
  TrainReport report_;
  double kl_after_drop_ = 0;
};

}  // namespace

TrainReport train_model(QuantizedModel& model, const RecipePlan& plan, const CompensatorList& start,
                        const TrainContext& context, Progress& progress) {
  expects(!plan.stages.empty());
  Training training(model, plan, context, progress);
  training.run(start);
  return training.take_report();
}

}  // namespace spear
