// The same tiny models in both formats, written by tools/make_tiny_model.py: both importers must
// deliver the same decoder, bit for bit. And the real models, where they are at hand.
#include "spear/model/checkpoint.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "spear/model/import_tokenizer.h"

#include "support/temporary_directory.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

// The folder of tiny models, made once a process; empty where python3 is not installed.
const fs::path& tiny_models() {
  static const test::TemporaryDirectory folder;
  static const bool made =
      std::system(("python3 '" SPEAR_SOURCE_DIR "/tools/make_tiny_model.py' '" +
                   folder.path().string() + "'")
                      .c_str()) == 0;
  static const fs::path path = made ? folder.path() : fs::path();
  return path;
}

DenseModel load(const Checkpoint& checkpoint, DType dtype) {
  ThreadPool pool(2);
  SilentProgress progress;
  return load_dense(checkpoint, dtype, pool, progress);
}

bool same(const HostTensor& a, const HostTensor& b) {
  if (a.empty() || b.empty()) return a.empty() == b.empty();
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw().data(), b.raw().data(), a.bytes()) == 0;
}

void expect_same(const DenseModel& a, const DenseModel& b) {
  EXPECT_TRUE(same(a.embedding, b.embedding));
  EXPECT_TRUE(same(a.head, b.head));
  EXPECT_TRUE(same(a.final_norm, b.final_norm));
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (size_t layer = 0; layer < a.layers.size(); ++layer) {
    const DenseLayer& x = a.layers[layer];
    const DenseLayer& y = b.layers[layer];
    EXPECT_TRUE(same(x.input_norm, y.input_norm));
    EXPECT_TRUE(same(x.post_attention_norm, y.post_attention_norm));
    EXPECT_TRUE(same(x.q_norm, y.q_norm));
    EXPECT_TRUE(same(x.k_norm, y.k_norm));
    for (const Module module : kModules) {
      EXPECT_TRUE(same(x.linear(module).weight, y.linear(module).weight)) << long_name(module);
      EXPECT_TRUE(same(x.linear(module).bias, y.linear(module).bias)) << long_name(module);
    }
  }
}

class TinyFamily : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (tiny_models().empty()) GTEST_SKIP() << "python3 is not installed";
  }
};

TEST_P(TinyFamily, IsTheSameFromBothFormats) {
  const auto folder = Checkpoint::open(tiny_models() / GetParam());
  const auto gguf = Checkpoint::open(tiny_models() / (GetParam() + ".gguf"));
  ASSERT_TRUE(folder.has_value()) << folder.error().message;
  ASSERT_TRUE(gguf.has_value()) << gguf.error().message;
  for (const DType dtype : {DType::kF32, DType::kBF16})
    expect_same(load(*folder, dtype), load(*gguf, dtype));
  const auto expected = rope_inverse_frequencies(folder->config());
  const auto found = rope_inverse_frequencies(gguf->config());
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i)  // GGUF's factors are floats: two roundings
    EXPECT_NEAR(found[i], expected[i], 3e-7 * std::abs(expected[i])) << i;
  EXPECT_EQ(folder->config().eos_token_ids, (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(gguf->config().eos_token_ids, (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(folder->chat_template(), gguf->chat_template());
  EXPECT_NE(folder->content_hash().value(), gguf->content_hash().value());
}

TEST_P(TinyFamily, HasTheSameTokenizerInBothFormats) {
  const auto folder = Checkpoint::open(tiny_models() / GetParam());
  const auto gguf = Checkpoint::open(tiny_models() / (GetParam() + ".gguf"));
  ASSERT_TRUE(folder.has_value() && gguf.has_value());
  const auto a = load_tokenizer(*folder);
  const auto b = load_tokenizer(*gguf);
  ASSERT_TRUE(a.has_value()) << a.error().message;
  ASSERT_TRUE(b.has_value()) << b.error().message;
  const std::string text = "The other one is in the house, \xc3\xa4\xf0\x9f\x98\x80 1234.\n";
  EXPECT_EQ(a->encode(text), b->encode(text));
  EXPECT_EQ(a->decode(a->encode(text)), text);
}

INSTANTIATE_TEST_SUITE_P(All, TinyFamily,
                         testing::Values("llama", "smollm2", "linear", "mistral", "qwen2", "qwen3"),
                         [](const auto& spec) { return spec.param; });

TEST(Checkpoint, ReadsTheGeometryOfEachFamily) {
  if (tiny_models().empty()) GTEST_SKIP() << "python3 is not installed";
  const auto open = [](const char* name) {
    return value_or_throw(Checkpoint::open(tiny_models() / name)).config();
  };
  EXPECT_EQ(open("llama").rope_scaling.kind, RopeScalingKind::kLlama3);
  EXPECT_EQ(open("llama.gguf").rope_factors.size(), 8u);
  EXPECT_EQ(open("linear").rope_scaling.factor, 2.0);
  EXPECT_EQ(open("linear.gguf").rope_scaling.kind, RopeScalingKind::kLinear);
  EXPECT_TRUE(open("smollm2").tie_word_embeddings);
  EXPECT_TRUE(open("smollm2.gguf").tie_word_embeddings);
  EXPECT_EQ(open("mistral").sliding_window, 256);
  EXPECT_EQ(open("mistral.gguf").head_dim, 32);
  EXPECT_TRUE(open("qwen2.gguf").attention_bias);
  EXPECT_EQ(open("qwen2").rope_theta, 1e6);
  EXPECT_TRUE(open("qwen3").qk_norm);
  EXPECT_TRUE(open("qwen3.gguf").qk_norm);
}

TEST(Checkpoint, OpensOneSafetensorsFileBesideItsConfig) {
  if (tiny_models().empty()) GTEST_SKIP() << "python3 is not installed";
  const auto folder = Checkpoint::open(tiny_models() / "smollm2");
  const auto file = Checkpoint::open(tiny_models() / "smollm2" / "model.safetensors");
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ(file->content_hash().value(), folder->content_hash().value());
}

TEST(Checkpoint, OpensAFolderThatHoldsOneGguf) {
  if (tiny_models().empty()) GTEST_SKIP() << "python3 is not installed";
  const test::TemporaryDirectory folder;
  fs::copy_file(tiny_models() / "qwen3.gguf", folder / "some.gguf");
  EXPECT_TRUE(Checkpoint::open(folder.path()).has_value());
  fs::copy_file(tiny_models() / "qwen3.gguf", folder / "other.gguf");
  EXPECT_NE(Checkpoint::open(folder.path()).error().message.find("name the one you mean"),
            std::string::npos);
}

// A file that is cut while it is mapped must end in a sentence, not in SIGBUS.
TEST(Checkpoint, NoticesAFileThatBecomesShorter) {
  if (tiny_models().empty()) GTEST_SKIP() << "python3 is not installed";
  const test::TemporaryDirectory folder;
  fs::copy_file(tiny_models() / "llama.gguf", folder / "m.gguf");
  const auto checkpoint = Checkpoint::open(folder / "m.gguf");
  ASSERT_TRUE(checkpoint.has_value());
  fs::resize_file(folder / "m.gguf", 20000);
  try {
    load(*checkpoint, DType::kF32);
    FAIL() << "loaded a file that was cut";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::kIo);
    EXPECT_NE(failure.error().message.find("became shorter"), std::string::npos) << failure.what();
  }
}

fs::path asset(const char* name) {
  const char* folder = std::getenv("SPEAR_TEST_ASSETS");
  return folder == nullptr ? fs::path() : fs::path(folder) / name;
}

TEST(RealModel, SmolLm2Loads) {
  const fs::path path = asset("smollm2-135m.gguf");
  if (!fs::exists(path)) GTEST_SKIP() << "SPEAR_TEST_ASSETS has no smollm2-135m.gguf";
  const auto checkpoint = Checkpoint::open(path);
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  const DenseModel model = load(*checkpoint, DType::kBF16);
  EXPECT_EQ(model.content_hash, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53");
  EXPECT_TRUE(model.head.empty());
  // Rows 0 and 1 of q as the Python package `gguf` dequantizes them, un-permuted by transformers'
  // formula.
  const auto q = model.layers[0].linear(Module::kQ).weight.as<uint16_t>();
  EXPECT_EQ(q[0], 0xbdc5);
  EXPECT_EQ(q[1], 0x3e21);
  EXPECT_EQ(float_from_bf16(q[576]), float_from_bf16(bf16_from_float(-0.15917969f)));
  const auto tokenizer = load_tokenizer(*checkpoint);
  ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
  EXPECT_EQ(tokenizer->vocab_size(), 49152);
}

TEST(RealModel, QwenCoderLoads) {
  const fs::path path = asset("qwen2.5-coder-0.5b.gguf");
  if (!fs::exists(path)) GTEST_SKIP() << "SPEAR_TEST_ASSETS has no qwen2.5-coder-0.5b.gguf";
  const auto checkpoint = Checkpoint::open(path);
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  EXPECT_TRUE(checkpoint->config().attention_bias);
  EXPECT_FALSE(checkpoint->config().tie_word_embeddings);
  const auto tokenizer = load_tokenizer(*checkpoint);
  ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
}

}  // namespace
}  // namespace spear
