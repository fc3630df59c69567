#include "spear/cli/memory_check.h"

#include <gtest/gtest.h>

#include "spear/base/memory_info.h"

namespace spear {
namespace {

TEST(MemoryCheck, SaysBothNumbers) {
  EXPECT_TRUE(require_memory("a model", 1000, 1000));
  const Result<void> refused = require_memory("a model", 3'000'000'000, 1'000'000'000);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(refused.error().message.find("a model needs 3.0"), std::string::npos)
      << refused.error().message;
  EXPECT_NE(refused.error().message.find("1.0"), std::string::npos) << refused.error().message;
}

TEST(MemoryCheck, CountsTheMatricesOfAModel) {
  ModelConfig c;
  c.hidden_size = 10;
  c.intermediate_size = 20;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 5;
  c.num_key_value_heads = 1;
  c.head_dim = 2;
  c.vocab_size = 100;
  c.tie_word_embeddings = true;
  const int64_t layer = 10 * (10 + 10 + 2 + 2) + 3 * 10 * 20;
  EXPECT_EQ(dense_bytes(c, DType::kBF16), 2 * (1000 + 2 * layer));
  c.tie_word_embeddings = false;
  EXPECT_EQ(dense_bytes(c, DType::kF32), 4 * (2000 + 2 * layer));
}

TEST(MemoryCheck, SomeMemoryIsFree) {
  EXPECT_GT(available_memory(), int64_t{1} << 20);
}

}  // namespace
}  // namespace spear
