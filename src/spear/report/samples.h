// What models say after the same prompt with the same seed: the report's before and after. One
// thread at a time.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "spear/base/progress.h"
#include "spear/engine/request.h"
#include "spear/model/decoder.h"
#include "spear/report/report_input.h"

namespace spear {

struct SamplePrompt {
  std::string shown;            // as a reader sees it
  std::vector<int32_t> tokens;  // as the models read it: a chat template applied, say; at least one
};

struct SampleSettings {
  SamplingParams sampling = {.temperature = 0.7, .top_p = 0.95};
  uint64_t seed = 0;
  int64_t most_tokens = 96;
  std::vector<int32_t> stop_ids;  // an answer ends before one of these
  std::function<std::string(std::span<const int32_t>)> decode;
};

// Continues every prompt with one model; answers stand in the order of the prompts. Draws depend on
// the seed and the number of the prompt alone, so that two models with the same probabilities say
// the same. Throws Failure: kUsage for a prompt longer than the model's context, kInterrupted.
std::vector<std::string> continue_prompts(Decoder& decoder, std::span<const SamplePrompt> prompts,
                                          const SampleSettings& settings, Progress& progress);

// Joins the answers of several models, in order: answers[i] are those of models[i].
std::vector<TextSample> to_samples(std::span<const SamplePrompt> prompts, uint64_t seed,
                                   std::span<const std::string> models,
                                   std::span<const std::vector<std::string>> answers);

}  // namespace spear
