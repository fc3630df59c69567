// The recipes of `spear compress`: what is quantized how, on how much text, with which
// compensators, and what is trained for how long. A recipe is data; compress_job.h carries it out.
// Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/compensate/closed_form.h"
#include "spear/compensate/trainer.h"
#include "spear/model/config.h"
#include "spear/quantize/quantize_model.h"

namespace spear {

enum class Recipe : uint8_t {
  kClosed,  // rotation, GPTQ, refitted scales, closed-form compensators; no gradients
  kFast,    // and a short training of everything that is stored
  kBest,    // and a long one
  kPaper,   // RTN, modules by damage, random factors, static then gate at constant rates
  kPlain,   // the quantized model alone: nothing refitted, no compensators
};
std::string_view name_of(Recipe recipe);
Result<Recipe> recipe_from_name(std::string_view name);

enum class FactorStart : uint8_t {
  kClosedForm,
  kRandomZero,   // A normal with deviation 1/√k, B zero
  kRandomSmall,  // A likewise, B normal with deviation 0.01 (1/√rank of it)
};

struct RecipeOptions {
  Recipe recipe = Recipe::kClosed;
  double budget = 0.01;  // extra bytes as a share of the plain W4 file; 0: nothing extra
  double bits = 0;       // all stored bits of the linears per weight; 0: `budget` rules
  int32_t factor_bits = 8;
  uint64_t seed = 1;
  bool keep_grid = false;  // `quantize` below is used as it stands, whatever the recipe would take
  QuantizeOptions quantize;
  // Where above 0 (or set) instead of the recipe's own.
  int64_t steps = 0, batch = 0, self_samples = 0, real_sequences = 0;
  std::optional<bool> row_bias, gate;
  FactorMetric metric = FactorMetric::kCovariance;  // of closed forms
  // What the paper leaves open.
  double alpha = 1.0;
  FactorStart start = FactorStart::kRandomZero;
};

struct TrainStage {
  std::string name;
  TrainerOptions options;
};

struct RecipePlan {
  Recipe recipe = Recipe::kClosed;
  QuantizeOptions quantize;
  int64_t length = 256;                              // tokens of a sequence
  int64_t self_samples = 0;                          // sampled from the reference
  int64_t real_sequences = 0;                        // from the texts given, at most
  int64_t covariance_self = 0, covariance_real = 0;  // the first of them, for covariances
  bool refit_scales = true;
  FactorStart start = FactorStart::kClosedForm;
  FactorMetric metric = FactorMetric::kCovariance;
  int32_t factor_bits = 8;
  int32_t gate_per_rank = 0;  // hidden units of the gate per rank; 0: none
  bool select_by_damage = false;
  bool row_bias = false;
  std::vector<TrainStage> stages;
  int64_t removal_sequences = 0;  // for switching compensators off one by one; 0: not done
  int64_t retune_steps = 0;       // after their bytes were spent elsewhere
  size_t extra_bytes = 0;         // of compensators, by this arithmetic; --bits counts by it alone
  size_t file_limit = 0;          // bytes of the whole model that --budget allows; 0: --bits rules
};

// Refuses what cannot be, with a sentence: shares below 0, bits that no grid here gives, kBudget
// for a budget too small for the zero points alone.
Result<RecipePlan> plan_recipe(const RecipeOptions& options, const ModelConfig& config);

// One line of JSON with everything that decides the result.
std::string to_json_text(const RecipePlan& plan);

// Stored bits of all linears of a model per weight, compensators included.
double stored_bits(const ModelConfig& config, size_t linear_bytes);

}  // namespace spear
