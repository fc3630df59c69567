// The inputs and ids that llama.cpp publishes beside its vocabularies.
#include <algorithm>
#include <sstream>

#include <gtest/gtest.h>

#include "goldens.h"

namespace spear::test {
namespace {

std::vector<std::string> inputs_of(const std::string& text) {
  constexpr std::string_view kBetween = "\n__ggml_vocab_test__\n";
  std::vector<std::string> inputs;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find(kBetween, at);
    if (end == std::string::npos) break;  // what follows the last mark is no input
    inputs.push_back(text.substr(at, end - at));
    at = end + kBetween.size();
  }
  return inputs;
}

std::vector<std::vector<int32_t>> ids_of(const std::string& text) {
  std::vector<std::vector<int32_t>> all;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream numbers(line);
    std::vector<int32_t>& ids = all.emplace_back();
    for (int32_t id = 0; numbers >> id;) ids.push_back(id);
  }
  return all;
}

class VocabularyPairs : public testing::TestWithParam<const char*> {};

TEST_P(VocabularyPairs, Agree) {
  const std::string name = std::string("vocab/ggml-vocab-") + GetParam() + ".gguf";
  const auto path = test_asset(name);
  if (!path) GTEST_SKIP() << kNoAssets;
  const Tokenizer tokenizer = gguf_tokenizer(*path);
  const auto inputs = inputs_of(read_bytes(path->string() + ".inp"));
  const auto outputs = ids_of(read_bytes(path->string() + ".out"));
  ASSERT_GT(inputs.size(), 30u);
  ASSERT_GE(outputs.size(), inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i)
    EXPECT_EQ(tokenizer.encode(inputs[i]), outputs[i]) << "input " << i << ": " << inputs[i];
}

INSTANTIATE_TEST_SUITE_P(Published, VocabularyPairs,
                         testing::Values("llama-spm", "llama-bpe", "qwen2", "gpt-2"),
                         [](const auto& chosen) {
                           std::string name = chosen.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace spear::test
