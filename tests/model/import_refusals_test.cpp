// Models that must be refused, each by a sentence that says where and why: hostile or damaged GGUF
// metadata, config.json, weights that do not fit the configuration, folders that hold no model.
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <string>

#include <gtest/gtest.h>

#include "spear/base/json.h"
#include "spear/model/checkpoint.h"
#include "spear/model/import_hf.h"
#include "spear/model/import_tokenizer.h"

#include "support/gguf_builder.h"
#include "support/temporary_directory.h"

namespace spear {
namespace {

namespace fs = std::filesystem;
using test::GgufBuilder;

void expect_part(const std::string& message, std::string_view part) {
  EXPECT_NE(message.find(part), std::string::npos) << message << "\n  lacks: " << part;
}

std::string refusal(const fs::path& path) {
  const auto checkpoint = Checkpoint::open(path);
  return checkpoint ? "accepted" : checkpoint.error().message;
}

// A llama of one layer: 8 wide, 2 heads of 4, 1 key-value head, 12 inside, 6 tokens.
struct GgufParts {
  std::string architecture = "llama";
  std::map<std::string, uint32_t> numbers = {
      {"block_count", 1},          {"embedding_length", 8},
      {"feed_forward_length", 12}, {"context_length", 32},
      {"attention.head_count", 2}, {"attention.head_count_kv", 1},
      {"rope.dimension_count", 4}, {"vocab_size", 6}};
  std::map<std::string, std::vector<int64_t>> tensors = {  // innermost extent first, as stored
      {"token_embd.weight", {8, 6}},
      {"output_norm.weight", {8}},
      {"output.weight", {8, 6}},
      {"blk.0.attn_norm.weight", {8}},
      {"blk.0.ffn_norm.weight", {8}},
      {"blk.0.attn_q.weight", {8, 8}},
      {"blk.0.attn_k.weight", {8, 4}},
      {"blk.0.attn_v.weight", {8, 4}},
      {"blk.0.attn_output.weight", {8, 8}},
      {"blk.0.ffn_gate.weight", {8, 12}},
      {"blk.0.ffn_up.weight", {8, 12}},
      {"blk.0.ffn_down.weight", {12, 8}}};
  std::vector<std::string> tokens = {"a", "b", "c", "d", "e", "f"};
  float value = 0.5f;

  [[nodiscard]] GgufBuilder builder() const {
    GgufBuilder out;
    if (!architecture.empty()) out.add_text("general.architecture", architecture);
    for (const auto& [key, number] : numbers) out.add_u32(architecture + "." + key, number);
    out.add_f32(architecture + ".attention.layer_norm_rms_epsilon", 1e-5f);
    if (!tokens.empty()) out.add_texts("tokenizer.ggml.tokens", tokens);
    for (const auto& [name, extents] : tensors) {
      size_t count = 1;
      for (const int64_t extent : extents) count *= static_cast<size_t>(extent);
      out.f32_tensor(name, extents, std::vector<float>(count, value));
    }
    return out;
  }
};

class GgufModel : public testing::Test {
 protected:
  std::string refusal_of(const GgufBuilder& builder) const {
    return refusal(folder_.file("m.gguf", builder.build()));
  }
  std::string refusal_with(const std::function<void(GgufParts&)>& change) const {
    GgufParts parts;
    change(parts);
    return refusal_of(parts.builder());
  }
  test::TemporaryDirectory folder_;
};

TEST_F(GgufModel, IsAcceptedAsItIs) {
  EXPECT_EQ(refusal_with([](GgufParts&) {}), "accepted");
}

TEST_F(GgufModel, RefusesImpossibleGeometry) {
  const auto number = [&](const char* key, uint32_t value) {
    return refusal_with([&](GgufParts& p) { p.numbers[key] = value; });
  };
  expect_part(number("attention.head_count", 0), "num_attention_heads is 0");
  expect_part(number("attention.head_count_kv", 0), "num_key_value_heads is 0");
  expect_part(number("attention.head_count_kv", 3), "is not a multiple of num_key_value_heads 3");
  expect_part(number("block_count", 0), "num_hidden_layers is 0");
  expect_part(number("block_count", 4000000000u), "num_hidden_layers is 4000000000");
  expect_part(number("embedding_length", 4000000000u), "hidden_size is 4000000000");
  expect_part(number("attention.key_length", 3), "head_dim is 3");
  expect_part(number("vocab_size", 7), "metadata says a vocabulary of 7, the embedding has 6 rows");
  expect_part(number("rope.dimension_count", 2), "RoPE on 2 of 4 dimensions");
  expect_part(number("expert_count", 8), "mixture of experts");
}

TEST_F(GgufModel, RefusesMissingOrMistypedMetadata) {
  expect_part(refusal_with([](GgufParts& p) { p.architecture = ""; }),
              "metadata \"general.architecture\" is missing");
  expect_part(refusal_with([](GgufParts& p) { p.architecture = "mamba"; }),
              "architecture \"mamba\" is not known; spear reads llama, mistral, qwen2, qwen3");
  expect_part(refusal_with([](GgufParts& p) { p.numbers.erase("block_count"); }),
              "metadata \"llama.block_count\" is missing");
  GgufParts parts;
  parts.numbers.erase("block_count");
  expect_part(refusal_of(parts.builder().add_text("llama.block_count", "one")),
              "metadata \"llama.block_count\": an integer expected, found string");
  expect_part(refusal_of(GgufParts().builder().add_text("llama.rope.scaling.type", "yarn")),
              "RoPE scaling \"yarn\"; spear knows none, linear and llama3");
  expect_part(refusal_of(GgufParts().builder().add_u32("tokenizer.ggml.eos_token_id", 6)),
              "token 6 is outside the vocabulary of 6");
}

TEST_F(GgufModel, RefusesTensorsThatDoNotFit) {
  expect_part(refusal_with([](GgufParts& p) {
                p.tensors["blk.0.ffn_down.weight"] = {11, 8};
              }),
              "layers.0.mlp.down_proj: shape [8, 11], config says [8, 12] (m.gguf)");
  expect_part(refusal_with([](GgufParts& p) {
                p.tensors["output_norm.weight"] = {4, 2};
              }),
              "norm: shape [2, 4], config says [8]");
  expect_part(refusal_with([](GgufParts& p) { p.tensors.erase("blk.0.attn_v.weight"); }),
              "layers.0.self_attn.v_proj: missing, the config asks for shape [4, 8]");
  expect_part(refusal_with([](GgufParts& p) { p.tensors["blk.1.attn_norm.weight"] = {8}; }),
              "a llama model of 1 layers has no such tensor");
  expect_part(refusal_with([](GgufParts& p) { p.numbers["block_count"] = 2; }),
              "layers.1.input_layernorm: missing");
  expect_part(refusal_with([](GgufParts& p) { p.tensors.erase("token_embd.weight"); }),
              "tensor \"token_embd.weight\" is missing");
  expect_part(refusal_with([](GgufParts& p) { p.tensors["blk.0.attn_output.bias"] = {8}; }),
              "has no such tensor");
  expect_part(refusal_with([](GgufParts& p) { p.tensors["blk.99999999999.attn_q.weight"] = {8}; }),
              "has no such tensor");
  expect_part(refusal_with([](GgufParts& p) { p.tensors["rope_freqs.weight"] = {3}; }),
              "rope_freqs.weight: shape [3], config says [2]");
}

TEST_F(GgufModel, RefusesAVocabularyOfAnotherModel) {
  expect_part(refusal_with([](GgufParts& p) { p.tokens.push_back("g"); }),
              "the tokenizer has 7 tokens, the embedding 6 rows");
}

TEST_F(GgufModel, RefusesValuesThatAreNotFinite) {
  GgufParts parts;
  parts.value = std::numeric_limits<float>::infinity();
  const auto checkpoint = Checkpoint::open(folder_.file("m.gguf", parts.builder().build()));
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  ThreadPool pool(1);
  SilentProgress progress;
  try {
    load_dense(*checkpoint, DType::kBF16, pool, progress);
    FAIL() << "loaded infinities";
  } catch (const Failure& failure) {
    expect_part(failure.what(), "holds a value that is not finite (m.gguf)");
  }
}

TEST_F(GgufModel, RefusesAMistypedVocabulary) {
  const auto tokenizer_of = [&](const GgufBuilder& builder) {
    const auto checkpoint = Checkpoint::open(folder_.file("m.gguf", builder.build()));
    if (!checkpoint) return checkpoint.error().message;
    const auto tokenizer = load_tokenizer(*checkpoint);
    return tokenizer ? std::string("accepted") : tokenizer.error().message;
  };
  expect_part(tokenizer_of(GgufParts().builder().add_u32("tokenizer.ggml.model", 1)),
              "metadata \"tokenizer.ggml.model\": a string expected, found uint32");
  expect_part(
      tokenizer_of(GgufParts().builder().add_texts("tokenizer.ggml.scores", {"x"})),
      "metadata \"tokenizer.ggml.scores\": an array of numbers expected, found array of string");
  expect_part(tokenizer_of(
                  GgufParts().builder().add_numbers<float>("tokenizer.ggml.token_type", 6, {1.5f})),
              "an array of small integers expected, found array of float32");
}

constexpr std::string_view kConfig =
    R"({"model_type": "llama", "hidden_size": 8, "intermediate_size": 12,
  "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 6,
  "max_position_embeddings": 32, "rms_norm_eps": 1e-5})";

// The refusal of the small configuration with one field set to a JSON text.
std::string config_with(const std::string& key, const std::string& value) {
  Json json = parse_json(kConfig, "config.json").value();
  std::string text = json.dump();
  if (json.contains(key)) {
    json.erase(key);
    text = json.dump();
  }
  text.insert(1, "\"" + key + "\":" + value + ",");
  const auto config = config_from_hf_text(text, "", "config.json");
  return config ? "accepted" : config.error().message;
}

TEST(HfConfig, IsAcceptedAsItIs) {
  const auto config = config_from_hf_text(kConfig, "", "config.json");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->head_dim, 4);
  EXPECT_FALSE(config->tie_word_embeddings);
}

TEST(HfConfig, RefusesWrongNumbers) {
  expect_part(config_with("hidden_size", "0"), "hidden_size is 0");
  expect_part(config_with("hidden_size", "-8"), "hidden_size is -8");
  expect_part(config_with("hidden_size", "1000000000000"), "hidden_size is 1000000000000");
  expect_part(config_with("hidden_size", "1e12"),
              "\"hidden_size\": a whole number expected, found 1");
  expect_part(config_with("hidden_size", "8.5"), "a whole number expected, found 8.5");
  expect_part(config_with("hidden_size", "\"8\""), "a whole number expected, found \"8\"");
  expect_part(config_with("hidden_size", "null"), "a whole number expected, found nothing");
  expect_part(config_with("hidden_size", "18446744073709551615"), "a whole number expected");
  expect_part(config_with("hidden_size", "9"),
              "hidden_size 9 is not a multiple of num_attention_heads 2");
  expect_part(config_with("num_attention_heads", "0"), "num_attention_heads is 0");
  expect_part(config_with("rms_norm_eps", "\"small\""), "\"rms_norm_eps\": a number expected");
  expect_part(config_with("rms_norm_eps", "1e999"), "config.json: ");
  expect_part(config_with("rope_theta", "-1"), "rope_theta is -1");
  expect_part(config_with("tie_word_embeddings", "1"), "true or false expected, found 1");
  expect_part(config_with("eos_token_id", "6"), "token 6 is outside the vocabulary of 6");
  expect_part(config_with("eos_token_id", "[1, -2]"), "at most 64 token numbers expected");
}

TEST(HfConfig, RefusesWhatSpearDoesNotHave) {
  expect_part(config_with("model_type", "\"gemma2\""),
              "architecture \"gemma2\" is not known; spear reads llama, mistral, qwen2, qwen3");
  expect_part(config_with("hidden_act", "\"gelu\""), "hidden_act \"gelu\"; spear knows silu");
  expect_part(config_with("mlp_bias", "true"), "mlp_bias");
  expect_part(config_with("attention_bias", "true"), "attention_bias");
  expect_part(config_with("quantization_config", "{}"), "already quantized");
  expect_part(config_with("partial_rotary_factor", "0.5"), "partial_rotary_factor 0.5");
  expect_part(config_with("num_local_experts", "8"), "mixture of experts");
  expect_part(config_with("rope_scaling", R"({"type":"yarn","factor":4})"),
              "rope_scaling: \"yarn\" is not known; spear knows default, linear and llama3");
  expect_part(config_with("rope_scaling", R"({"rope_type":"linear"})"),
              "rope_scaling: \"factor\": a number expected, found nothing");
  expect_part(config_with("rope_scaling", R"({"rope_type":"linear","factor":-1})"), "factor is -1");
  expect_part(config_with("rope_scaling", "[]"), "an object expected, found []");
}

TEST(HfConfig, RefusesWhatIsNoConfiguration) {
  const auto refusal_of = [](std::string_view text) {
    const auto config = config_from_hf_text(text, "", "config.json");
    return config ? std::string("accepted") : config.error().message;
  };
  expect_part(refusal_of(""), "config.json: not valid JSON");
  expect_part(refusal_of("[]"), "a JSON object expected");
  expect_part(refusal_of("{}"), "\"model_type\" is missing");
  expect_part(refusal_of(std::string(100000, '[')), "nested deeper");
  const auto config = config_from_hf_text(kConfig, "[", "config.json");
  ASSERT_FALSE(config.has_value());
  expect_part(config.error().message, "generation_config.json: not valid JSON");
}

TEST(HfConfig, TakesTheNewerSpellingOfRope) {
  const auto config = config_from_hf_text(
      R"({"model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
          "num_attention_heads": 2, "vocab_size": 6, "rope_parameters": {"rope_type": "llama3",
          "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}})",
      "", "config.json");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->rope_theta, 500000.0);
  EXPECT_EQ(config->rope_scaling.kind, RopeScalingKind::kLlama3);
  EXPECT_EQ(config->num_key_value_heads, 2);
}

class ModelFolder : public testing::Test {
 protected:
  test::TemporaryDirectory folder_;
};

TEST_F(ModelFolder, RefusesWhatHoldsNoModel) {
  expect_part(refusal(folder_ / "nowhere"), "no such file or folder");
  expect_part(refusal(folder_.path()),
              "no model here: neither config.json with safetensors nor a GGUF");
  folder_.file("config.json", kConfig);
  expect_part(refusal(folder_.path()), "model.safetensors: no such file");
  expect_part(refusal(folder_.file("empty.gguf", "")), "the file is empty");
  expect_part(refusal(folder_.file("text.gguf", "hello, this is not a model at all")),
              "does not begin with \"GGUF\"");
}

TEST_F(ModelFolder, RefusesPickles) {
  expect_part(refusal(folder_.file("pytorch_model.bin", "x")), "a pickle can run code");
  expect_part(refusal(folder_.path()), "a pickle can run code");
  folder_.file("config.json", kConfig);
  expect_part(refusal(folder_.path()), "a pickle can run code");
}

TEST_F(ModelFolder, RefusesAnArtifactWhereAModelIsNeeded) {
  expect_part(refusal(folder_.file("m.spear", "x")), "a quantized model of spear");
}

TEST_F(ModelFolder, RefusesWeightsOfAnotherShape) {
  const std::string header =
      R"({"model.embed_tokens.weight":{"dtype":"F32","shape":[6,4],"data_offsets":[0,96]}})";
  std::string length(8, '\0');
  const uint64_t bytes = header.size();
  std::memcpy(length.data(), &bytes, sizeof bytes);
  folder_.file("config.json", kConfig);
  folder_.file("model.safetensors", length + header + std::string(96, '\0'));
  expect_part(refusal(folder_.path()),
              "embed_tokens: shape [6, 4], config says [6, 8] (model.safetensors)");
}

TEST_F(ModelFolder, RefusesAMistypedChatTemplate) {
  const std::string header = R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  std::string length(8, '\0');
  const uint64_t bytes = header.size();
  std::memcpy(length.data(), &bytes, sizeof bytes);
  folder_.file("config.json", kConfig);
  folder_.file("model.safetensors", length + header + std::string(4, '\0'));
  folder_.file("tokenizer_config.json", R"({"chat_template": 7})");
  expect_part(refusal(folder_.path()), "tokenizer_config.json: \"chat_template\": a string");
}

}  // namespace
}  // namespace spear
