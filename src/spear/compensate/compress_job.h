// `spear compress` as one resumable job: import, sample, covariances, quantize, (diagnose),
// compensate, measure, write. What each phase made is kept in a folder of the cache that is named
// by everything that decides the result; the same request goes on where it stopped and ends with
// the same bytes. One thread; works on the pool and the backend.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "spear/backend/backend.h"
#include "spear/base/progress.h"
#include "spear/base/thread_pool.h"
#include "spear/compensate/phase_clock.h"
#include "spear/compensate/recipes.h"
#include "spear/compensate/train_model.h"
#include "spear/diagnose/placement.h"
#include "spear/model/dense_model.h"
#include "spear/model/quantized_model.h"
#include "spear/tokenizer/tokenizer.h"

namespace spear {

// The quality certificate of a finished model, as JSON.
using Certify = std::function<std::string(const DenseModel&, const QuantizedModel&,
                                          const Tokenizer&, Progress&)>;

struct CompressRequest {
  std::filesystem::path model;   // a GGUF file or a folder of safetensors
  std::filesystem::path output;  // a .spear file; empty: none is written
  std::filesystem::path cache;   // folder for what is kept between runs
  RecipeOptions recipe;
  double target_gap =
      0;  // share of the KL of plain W4 to close; the budget rises until it is reached
  std::vector<std::filesystem::path> texts;  // UTF-8, to calibrate and train on beside the samples
  CostTable costs;                           // of compensators, for the paper's placement
  Compute compute = Compute::kBF16;
  size_t memory = 0;                        // bytes that training may hold; 0: what is free
  std::string command;                      // as the user gave it, for the provenance
  std::filesystem::path export_parameters;  // trained parameters alone; empty: not written
  std::filesystem::path apply_parameters;   // in place of training; empty: trained here
  Certify certify;                          // empty: no certificate
  std::string certificate = "quick";        // what certify measures: kept by this name
};

struct CompressResult {
  RecipePlan plan;
  size_t file_bytes = 0, plain_bytes = 0;  // of tensors: this model, and the same as plain W4
  double bits_per_weight = 0;              // of the linears, everything stored
  int64_t compensated = 0;                 // modules with a compensator
  TrainReport training;
  // Mean KL to the reference on sequences it sampled itself and no step has seen.
  double plain_kl = 0, base_kl = 0, final_kl = 0;
  std::vector<PhaseTime> phases;
  [[nodiscard]] double extra_share() const {
    return static_cast<double>(file_bytes) / static_cast<double>(plain_bytes) - 1;
  }
  [[nodiscard]] double gap_closed() const { return plain_kl > 0 ? 1 - final_kl / plain_kl : 0; }
};

// Throws Failure: what is wrong with the model, the texts or the options; kBudget when no file
// reaches the target; kInterrupted when progress asks to stop, with what was finished kept.
CompressResult compress(const CompressRequest& request, Backend& backend, ThreadPool& pool,
                        Progress& progress);

std::string to_json_text(const CompressResult& result);

}  // namespace spear
