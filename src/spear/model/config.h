// The geometry of a decoder, in Hugging Face's spelling. A value type: built by an importer or read
// from an artifact, validated once, then const.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "spear/base/error.h"

namespace spear {

enum class RopeScalingKind : uint8_t { kNone, kLinear, kLlama3 };

struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;                     // kLlama3
  double high_freq_factor = 4.0;                    // kLlama3
  int64_t original_max_position_embeddings = 8192;  // kLlama3
};

struct ModelConfig {
  std::string architecture;  // "llama", "mistral", "qwen2", "qwen3" (SmolLM2 is "llama")
  std::string name;          // what the file calls itself, for people
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  int64_t sliding_window = 0;  // 0: none
  double rms_norm_eps = 1e-5;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  std::vector<float> rope_factors;  // GGUF's rope_freqs: divides each inverse frequency [head_dim /
                                    // 2]; empty: none
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // bias on q, k, v
  bool qk_norm = false;         // RMS norm on each head of q and k before RoPE
  int32_t bos_token_id = -1;
  std::vector<int32_t> eos_token_ids;

  [[nodiscard]] int64_t q_size() const { return num_attention_heads * head_dim; }
  [[nodiscard]] int64_t kv_size() const { return num_key_value_heads * head_dim; }
};

// Refuses what no decoder can have (zero or absurd sizes, heads that do not divide, odd head_dim,
// non-finite reals). `source` is named in the sentence. Sizes are bounded so that products fit
// int64 and memory can be estimated.
Result<void> validate(const ModelConfig& config, const std::string& source);

std::string to_json_text(const ModelConfig& config);
Result<ModelConfig> config_from_json_text(std::string_view text, std::string_view source);

// Inverse frequencies of RoPE with the scaling applied, [head_dim / 2].
std::vector<float> rope_inverse_frequencies(const ModelConfig& config);

}  // namespace spear
