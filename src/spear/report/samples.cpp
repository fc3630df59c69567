#include "spear/report/samples.h"

#include <algorithm>

#include <fmt/core.h>

#include "spear/base/check.h"
#include "spear/engine/token_sampler.h"
#include "spear/model/kv_cache.h"

namespace spear {
namespace {

// One sequence that grows token by token.
class Continuation {
 public:
  Continuation(Decoder& decoder, int64_t capacity)
      : decoder_(&decoder),
        cache_(decoder.backend(), decoder.config(), 1, capacity, true),
        hidden_(decoder.backend().allocate(
            static_cast<size_t>(capacity * decoder.config().hidden_size) * sizeof(float))),
        device_logits_(decoder.backend().allocate(static_cast<size_t>(decoder.config().vocab_size) *
                                                  sizeof(float))),
        logits_(static_cast<size_t>(decoder.config().vocab_size)) {}

  // The logits after `tokens` are appended.
  std::span<float> feed(std::span<const int32_t> tokens) {
    const auto rows = static_cast<int64_t>(tokens.size());
    const AttentionSequence sequence = cache_.append(0, 0, rows);
    decoder_->forward({tokens, {&sequence, 1}}, cache_, hidden_.as<float>());
    decoder_->logits(hidden_.as<float>() + (rows - 1) * decoder_->config().hidden_size, 1,
                     device_logits_.as<float>());
    decoder_->backend().download(logits_.data(), device_logits_.as<float>(),
                                 logits_.size() * sizeof(float));
    return logits_;
  }

 private:
  Decoder* decoder_;
  KvCache cache_;
  DeviceBuffer hidden_, device_logits_;
  std::vector<float> logits_;
};

void check_prompt(const SamplePrompt& prompt, const ModelConfig& config, int64_t most_tokens) {
  const auto length = static_cast<int64_t>(prompt.tokens.size());
  expects(length > 0);
  for (const int32_t token : prompt.tokens) expects(token >= 0 && token < config.vocab_size);
  if (length + most_tokens <= config.max_position_embeddings) return;
  throw Failure(
      ErrorCode::kUsage,
      fmt::format("a prompt of {} tokens and {} to come, but the model was made for at most {}",
                  length, most_tokens, config.max_position_embeddings));
}

std::vector<int32_t> answer_to(Decoder& decoder, const SamplePrompt& prompt,
                               const SampleSettings& settings, uint64_t seed,
                               const Progress& progress) {
  Continuation continuation(decoder,
                            static_cast<int64_t>(prompt.tokens.size()) + settings.most_tokens);
  TokenSampler sampler(settings.sampling, seed, 0, prompt.tokens, settings.most_tokens);
  SamplerWorkspace workspace(decoder.config().vocab_size);
  std::vector<int32_t> all = prompt.tokens;
  std::span<float> logits = continuation.feed(prompt.tokens);
  for (int64_t i = 0; i < settings.most_tokens; ++i) {
    if (progress.stop_requested())
      throw Failure(ErrorCode::kInterrupted, "stopped while text was sampled");
    sampler.adjust(logits);
    const int32_t next = sampler.choose(logits, workspace);
    if (next < 0)
      throw Failure(ErrorCode::kInternal,
                    "the model's logits are not numbers: its weights are damaged");
    sampler.accept(next);
    if (std::find(settings.stop_ids.begin(), settings.stop_ids.end(), next) !=
        settings.stop_ids.end())
      break;
    all.push_back(next);
    if (i + 1 < settings.most_tokens) logits = continuation.feed({&next, 1});
  }
  return {all.begin() + static_cast<std::ptrdiff_t>(prompt.tokens.size()), all.end()};
}

}  // namespace

std::vector<std::string> continue_prompts(Decoder& decoder, std::span<const SamplePrompt> prompts,
                                          const SampleSettings& settings, Progress& progress) {
  for (const SamplePrompt& prompt : prompts)
    check_prompt(prompt, decoder.config(), settings.most_tokens);
  std::vector<std::string> answers;
  progress.begin("samples of text", static_cast<int64_t>(prompts.size()));
  for (size_t i = 0; i < prompts.size(); ++i) {
    answers.push_back(
        settings.decode(answer_to(decoder, prompts[i], settings, settings.seed + i, progress)));
    progress.advance(1);
  }
  progress.end();
  return answers;
}

std::vector<TextSample> to_samples(std::span<const SamplePrompt> prompts, uint64_t seed,
                                   std::span<const std::string> models,
                                   std::span<const std::vector<std::string>> answers) {
  expects(models.size() == answers.size());
  std::vector<TextSample> samples;
  for (size_t i = 0; i < prompts.size(); ++i) {
    TextSample& sample = samples.emplace_back();
    sample.prompt = prompts[i].shown;
    sample.seed = seed + i;
    for (size_t j = 0; j < models.size(); ++j) {
      expects(answers[j].size() == prompts.size());
      sample.answers.push_back({models[j], answers[j][i]});
    }
  }
  return samples;
}

}  // namespace spear
