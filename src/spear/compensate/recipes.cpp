#include "spear/compensate/recipes.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/model/quantized_model.h"

namespace spear {
namespace {

constexpr std::array<std::string_view, 5> kRecipeNames = {"closed", "fast", "best", "paper",
                                                          "plain"};
constexpr std::array<std::string_view, 3> kStartNames = {"closed-form", "random-zero",
                                                         "random-small"};

int64_t linear_weights(const ModelConfig& config) {
  int64_t count = 0;
  for (const Module m : kModules) count += out_features(config, m) * in_features(config, m);
  return count * config.num_hidden_layers;
}

int64_t linear_rows(const ModelConfig& config) {
  int64_t rows = 0;
  for (const Module m : kModules) rows += out_features(config, m);
  return rows * config.num_hidden_layers;
}

bool divides_all_inputs(const ModelConfig& config, int64_t group) {
  return std::all_of(kModules.begin(), kModules.end(),
                     [&](Module m) { return in_features(config, m) % group == 0; });
}

// Bytes of all linears with this grid and no compensators.
size_t grid_bytes(const ModelConfig& config, const QuantizeOptions& q) {
  size_t bytes = 0;
  for (const Module m : kModules) {
    QuantizedView view;
    view.n = static_cast<int32_t>(out_features(config, m));
    view.k = static_cast<int32_t>(in_features(config, m));
    view.bits = q.bits;
    view.group = q.group == 0 ? view.k : q.group;
    view.zero_kind = q.symmetric ? ZeroKind::kNone : q.bits > 4 ? ZeroKind::kF16 : q.zero_kind;
    bytes += view.code_bytes() + view.scale_count() * 2 + view.zero_bytes();
  }
  return bytes * static_cast<size_t>(config.num_hidden_layers);
}

// Compensators should get at least this many bits a weight of what --bits allows.
constexpr double kCompensatorBits = 0.1;

// The finest groups that leave room for compensators; per channel where none does.
Result<void> choose_group(double bits, const ModelConfig& config, QuantizeOptions& q) {
  for (const int32_t group : {32, 64, 128, 256, 0}) {
    if (group != 0 && !divides_all_inputs(config, group)) continue;
    q.group = group;
    q.zero_kind = group == 0 ? ZeroKind::kU8 : ZeroKind::kU4;
    if (stored_bits(config, grid_bytes(config, q)) + (group == 0 ? 0 : kCompensatorBits) <= bits)
      return {};
  }
  return fail(
      ErrorCode::kBudget,
      fmt::format("--bits {}: per-channel {}-bit weights with their scales take {:.3f} bits "
                  "already; ask for more, or for fewer bits a code",
                  bits, q.bits, stored_bits(config, grid_bytes(config, q))));
}

TrainerOptions joint_training(const RecipeOptions& options, int64_t steps, int64_t batch,
                              float rate) {
  TrainerOptions t;
  t.steps = options.steps > 0 ? options.steps : steps;
  t.batch = options.batch > 0 ? options.batch : batch;
  t.seed = options.seed;
  t.factor_bits = options.factor_bits;
  t.rates.scale = rate;
  t.rates.zero = 0.4f * rate;
  t.rates.factors = 50 * rate;
  t.rates.bias = rate;
  t.rates.gate = 2 * rate;
  t.adamw.warmup = std::min<int64_t>(20, t.steps / 5);
  return t;
}

// As published: batches of four, constant rates, T = 2, the last values kept.
TrainerOptions paper_stage(const RecipeOptions& options, int64_t steps) {
  TrainerOptions t;
  t.steps = options.steps > 0 ? options.steps : steps;
  t.batch = options.batch > 0 ? options.batch : 4;
  t.seed = options.seed;
  t.factor_bits = options.factor_bits;
  t.temperature = 2.0f;
  t.relative_factors = false;
  t.alpha = static_cast<float>(options.alpha);
  t.adamw.beta2 = 0.999;
  t.adamw.clip_norm = 1.0;
  t.adamw.schedule = Schedule::kConstant;
  t.rounding_share = 0;
  t.keep_best = false;
  t.evaluate_every = 125;
  return t;
}

void plan_closed(const RecipeOptions&, RecipePlan& plan) {
  plan.self_samples = plan.covariance_self = 96;
  plan.real_sequences = plan.covariance_real = 160;
}

void plan_plain(const RecipeOptions& options, RecipePlan& plan) {
  plan_closed(options, plan);
  plan.refit_scales = false;
}

void plan_fast(const RecipeOptions& options, RecipePlan& plan) {
  plan_closed(options, plan);
  plan.real_sequences = 720;
  plan.stages.push_back({"joint", joint_training(options, 120, 8, 1e-3f)});
  plan.removal_sequences = 4;
  plan.retune_steps = 10;
}

void plan_best(const RecipeOptions& options, RecipePlan& plan) {
  plan.self_samples =
      1536;  // with a third of it the held-out KL stays far above that of the batches
  plan.real_sequences = 2560;
  plan.covariance_self = 256;
  plan.covariance_real = 512;
  // Groups leave less to correct: shorter, with smaller steps.
  if (options.bits > 0 || options.quantize.group != 0)
    plan.stages.push_back({"joint", joint_training(options, 300, 24, 1e-3f)});
  else
    plan.stages.push_back({"joint", joint_training(options, 450, 24, 1.5e-3f)});
  plan.removal_sequences = 16;
  plan.retune_steps = 40;
}

void plan_paper(const RecipeOptions& options, RecipePlan& plan) {
  plan.self_samples = 527;  // 500 to train on, 27 held out
  plan.refit_scales = false;
  plan.select_by_damage = true;
  plan.start = options.start;
  plan.gate_per_rank = 4;
  TrainerOptions first = paper_stage(options, 375);
  first.rates.factors = 5e-5f;
  TrainerOptions second = paper_stage(options, 250);
  second.rates.gate = 1e-4f;
  plan.stages.push_back({"static", first});
  plan.stages.push_back({"gate", second});
}

// The grid of a recipe that the user did not set.
void choose_grid(const RecipeOptions& options, RecipePlan& plan) {
  plan.quantize = options.quantize;
  plan.quantize.seed = options.seed;
  if (options.keep_grid) return;
  plan.quantize.method =
      options.recipe == Recipe::kPaper ? QuantizeMethod::kRtn : QuantizeMethod::kGptq;
  plan.quantize.rotate = options.recipe != Recipe::kPaper;
  plan.quantize.clip = options.recipe != Recipe::kPaper;  // on SmolLM2 KL .190 becomes .120
  // Real zero points cost half a byte a row and are worth it once scales are fitted to them.
  if (options.recipe != Recipe::kPaper && options.recipe != Recipe::kPlain &&
      plan.quantize.group == 0)
    plan.quantize.zero_kind = ZeroKind::kU8;
}

Result<size_t> extra_bytes(const RecipeOptions& options, const ModelConfig& config,
                           const RecipePlan& plan) {
  const size_t base = grid_bytes(config, plan.quantize);
  if (options.bits > 0) {
    const double allowed = options.bits * static_cast<double>(linear_weights(config)) / 8;
    return static_cast<size_t>(std::max(0.0, allowed - static_cast<double>(base)));
  }
  QuantizeOptions plain;
  const size_t wider = base - std::min(base, grid_bytes(config, plain));
  const double allowed = options.budget * static_cast<double>(plain_w4_bytes(config));
  const size_t bias = plan.row_bias ? 2 * static_cast<size_t>(linear_rows(config)) : 0;
  if (allowed < static_cast<double>(wider + bias))
    return fail(ErrorCode::kBudget,
                fmt::format("--budget {}: {} bytes, but the wider scales, zero points and biases "
                            "of this recipe alone take "
                            "{}: ask for at least {:.3g} %, or for a plainer grid",
                            options.budget, static_cast<size_t>(allowed), wider + bias,
                            100.0 * static_cast<double>(wider + bias) /
                                static_cast<double>(plain_w4_bytes(config))));
  return static_cast<size_t>(allowed) - wider - bias;
}

Result<void> check(const RecipeOptions& o) {
  if (!(o.budget >= 0 && o.budget <= 10))
    return fail(ErrorCode::kUsage,
                fmt::format("--budget {}: expected a share from 0 to 10 (1 % is 0.01)", o.budget));
  if (!(o.bits == 0 || (o.bits >= 2 && o.bits <= 16)))
    return fail(ErrorCode::kUsage,
                fmt::format("--bits {}: expected stored bits a weight from 2 to 16", o.bits));
  if (o.factor_bits != 4 && o.factor_bits != 8 && o.factor_bits != 16)
    return fail(ErrorCode::kUsage,
                fmt::format("--factor-bits {}: expected 4, 8 or 16", o.factor_bits));
  if (o.steps < 0 || o.batch < 0 || o.self_samples < 0 || o.real_sequences < 0)
    return fail(ErrorCode::kUsage, "counts of steps, sequences and samples cannot be below 0");
  return {};
}

}  // namespace

std::string_view name_of(Recipe recipe) {
  return kRecipeNames[static_cast<size_t>(recipe)];
}

Result<Recipe> recipe_from_name(std::string_view name) {
  for (size_t i = 0; i < kRecipeNames.size(); ++i)
    if (name == kRecipeNames[i]) return static_cast<Recipe>(i);
  return fail(ErrorCode::kUsage,
              fmt::format("--recipe {}: expected plain, closed, fast, best or paper", name));
}

double stored_bits(const ModelConfig& config, size_t linear_bytes) {
  return 8.0 * static_cast<double>(linear_bytes) / static_cast<double>(linear_weights(config));
}

Result<RecipePlan> plan_recipe(const RecipeOptions& options, const ModelConfig& config) {
  if (auto fine = check(options); !fine) return tl::unexpected(fine.error());
  RecipePlan plan;
  plan.recipe = options.recipe;
  plan.factor_bits = options.factor_bits;
  switch (options.recipe) {
    case Recipe::kClosed:
      plan_closed(options, plan);
      break;
    case Recipe::kFast:
      plan_fast(options, plan);
      break;
    case Recipe::kBest:
      plan_best(options, plan);
      break;
    case Recipe::kPaper:
      plan_paper(options, plan);
      break;
    case Recipe::kPlain:
      plan_plain(options, plan);
      break;
  }
  choose_grid(options, plan);
  if (options.bits > 0 && !options.keep_grid)
    if (auto fits = choose_group(options.bits, config, plan.quantize); !fits)
      return tl::unexpected(fits.error());
  if (auto fine = validate(plan.quantize, config); !fine) return tl::unexpected(fine.error());
  // Trained zero points are stored as real numbers: only where the grid pays for that already.
  if (plan.quantize.zero_kind == ZeroKind::kU4)
    for (TrainStage& stage : plan.stages) stage.options.rates.zero = 0;
  if (options.self_samples > 0) plan.self_samples = options.self_samples;
  if (options.real_sequences > 0) plan.real_sequences = options.real_sequences;
  // Without training, sequences serve the covariances alone: as many as were asked for.
  plan.covariance_self =
      plan.stages.empty() ? plan.self_samples : std::min(plan.covariance_self, plan.self_samples);
  plan.covariance_real = plan.stages.empty() ? plan.real_sequences
                                             : std::min(plan.covariance_real, plan.real_sequences);
  plan.row_bias = options.row_bias.value_or(false);
  plan.metric = options.metric;
  if (options.gate.has_value()) plan.gate_per_rank = *options.gate ? 4 : 0;
  if (options.recipe == Recipe::kPlain) return plan;
  auto bytes = extra_bytes(options, config, plan);
  if (!bytes) return tl::unexpected(bytes.error());
  plan.extra_bytes = *bytes;
  if (options.bits == 0)
    plan.file_limit =
        static_cast<size_t>((1 + options.budget) * static_cast<double>(plain_w4_bytes(config)));
  return plan;
}

std::string to_json_text(const RecipePlan& plan) {
  const QuantizeOptions& q = plan.quantize;
  Json stages = Json::array();
  for (const TrainStage& stage : plan.stages) {
    Json one = Json::parse(to_json_text(stage.options));
    stages.push_back({{"name", stage.name}, {"options", std::move(one)}});
  }
  Json json = {{"recipe", name_of(plan.recipe)},
               {"quantize",
                {{"method", q.method == QuantizeMethod::kGptq ? "gptq" : "rtn"},
                 {"bits", q.bits},
                 {"group", q.group},
                 {"symmetric", q.symmetric},
                 {"clip", q.clip},
                 {"rotate", q.rotate},
                 {"seed", q.seed},
                 {"damping", q.damping},
                 {"activation_order", q.activation_order},
                 {"embedding_bits", q.embedding_bits},
                 {"head_bits", q.head_bits},
                 {"zero_kind", static_cast<int>(q.zero_kind)}}},
               {"length", plan.length},
               {"self_samples", plan.self_samples},
               {"real_sequences", plan.real_sequences},
               {"covariance_self", plan.covariance_self},
               {"covariance_real", plan.covariance_real},
               {"refit_scales", plan.refit_scales},
               {"start", kStartNames[static_cast<size_t>(plan.start)]},
               {"factor_bits", plan.factor_bits},
               {"gate_per_rank", plan.gate_per_rank},
               {"select_by_damage", plan.select_by_damage},
               {"row_bias", plan.row_bias},
               {"stages", std::move(stages)},
               {"removal_sequences", plan.removal_sequences},
               {"retune_steps", plan.retune_steps},
               {"extra_bytes", plan.extra_bytes},
               {"file_limit", plan.file_limit}};
  // Said where it is not the usual one, so that what was made before keeps its name.
  if (plan.metric != FactorMetric::kCovariance)
    json["metric"] = plan.metric == FactorMetric::kPlain ? "plain" : "diagonal";
  return json.dump();
}

}  // namespace spear
