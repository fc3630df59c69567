#include "spear/model/config.h"

#include <cmath>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "support/tiny_model.h"

namespace spear {
namespace {

TEST(Config, SurvivesItsJson) {
  ModelConfig c = test::tiny_config({.tied = false, .attention_bias = true});
  c.eos_token_ids = {2, 7};
  c.sliding_window = 64;
  c.rope_scaling = {RopeScalingKind::kLlama3, 32, 1, 4, 8192};
  c.rope_factors = {1, 2, 3, 4};
  const ModelConfig back = value_or_throw(config_from_json_text(to_json_text(c), "config"));
  EXPECT_EQ(to_json_text(back), to_json_text(c));
  EXPECT_EQ(back.rope_scaling.kind, RopeScalingKind::kLlama3);
  EXPECT_EQ(back.eos_token_ids, c.eos_token_ids);
}

TEST(Config, RefusesWhatNoDecoderCanHave) {
  const std::pair<const char*, std::function<void(ModelConfig&)>> cases[] = {
      {"hidden_size", [](ModelConfig& c) { c.hidden_size = 0; }},
      {"vocab_size", [](ModelConfig& c) { c.vocab_size = int64_t{1} << 40; }},
      {"num_hidden_layers", [](ModelConfig& c) { c.num_hidden_layers = 5000; }},
      {"num_key_value_heads", [](ModelConfig& c) { c.num_key_value_heads = 3; }},
      {"head_dim", [](ModelConfig& c) { c.head_dim = 7; }},
      {"rms_norm_eps", [](ModelConfig& c) { c.rms_norm_eps = std::nan(""); }},
      {"rope_theta", [](ModelConfig& c) { c.rope_theta = -1; }},
      {"rope_scaling",
       [](ModelConfig& c) {
         c.rope_scaling = {RopeScalingKind::kLinear, 0, 1, 4, 1};
       }},
      {"rope_scaling",
       [](ModelConfig& c) {
         c.rope_scaling = {RopeScalingKind::kLlama3, 8, 4, 1, 8192};
       }},
      {"rope factors", [](ModelConfig& c) { c.rope_factors = {1}; }},
      {"rope factor",
       [](ModelConfig& c) {
         c.rope_factors = {1, 1, 1, std::numeric_limits<float>::infinity()};
       }},
      {"sliding_window", [](ModelConfig& c) { c.sliding_window = -1; }},
  };
  for (const auto& [field, damage] : cases) {
    ModelConfig c = test::tiny_config();
    damage(c);
    const Result<void> result = validate(c, "config.json");
    ASSERT_FALSE(result.has_value()) << field;
    EXPECT_NE(result.error().message.find(field), std::string::npos) << result.error().message;
    EXPECT_NE(result.error().message.find("config.json"), std::string::npos);
  }
}

TEST(Config, NamesTheFieldThatIsMissingOrOfAnotherType) {
  const std::string text = to_json_text(test::tiny_config());
  std::string renamed = text;
  renamed.replace(renamed.find("\"rope_theta\""), 12, "\"rope_thetb\"");
  const Result<ModelConfig> missing = config_from_json_text(renamed, "a.spear");
  ASSERT_FALSE(missing.has_value());
  EXPECT_NE(missing.error().message.find("rope_theta"), std::string::npos);
  std::string typed = text;
  typed.replace(typed.find("\"vocab_size\":48"), 15, "\"vocab_size\":\"\"");
  ASSERT_FALSE(config_from_json_text(typed, "a.spear").has_value());
  ASSERT_FALSE(config_from_json_text("[]", "a.spear").has_value());
}

// Llama 3.2's published scaling: high frequencies are kept, low ones divided by the factor, between
// them a blend.
TEST(Config, ScalesRopeFrequenciesAsLlama3) {
  ModelConfig c = test::tiny_config({.head_dim = 64});
  c.rope_theta = 500000;
  const std::vector<float> plain = rope_inverse_frequencies(c);
  c.rope_scaling = {RopeScalingKind::kLlama3, 32, 1, 4, 8192};
  const std::vector<float> scaled = rope_inverse_frequencies(c);
  EXPECT_FLOAT_EQ(scaled.front(), plain.front());
  EXPECT_FLOAT_EQ(scaled.back(), plain.back() / 32);
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_LE(scaled[i], plain[i]);
    EXPECT_GE(scaled[i], plain[i] / 32.001f);
  }
  c.rope_scaling = {RopeScalingKind::kLinear, 4, 1, 4, 1};
  EXPECT_FLOAT_EQ(rope_inverse_frequencies(c)[3], plain[3] / 4);
}

}  // namespace
}  // namespace spear
