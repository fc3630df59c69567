// The pages of a KV cache: their sizes, their copies, and what a device without a type says.
#include "spear/model/kv_cache.h"

#include <gtest/gtest.h>

#include "spear/base/thread_pool.h"

#include "support/tiny_model.h"

namespace spear {
namespace {

class KvCaches : public testing::TestWithParam<DType> {
 protected:
  ThreadPool pool_{1};
  std::unique_ptr<Backend> backend_ = value_or_throw(make_cpu_backend(pool_));
  ModelConfig config_ = test::tiny_config();
};

TEST_P(KvCaches, PagesHaveTheBytesTheySay) {
  const KvCache pages = KvCache::bare_pages(*backend_, config_, 5, GetParam());
  EXPECT_EQ(pages.bytes(), 5 * KvCache::page_bytes(config_, GetParam()));
  EXPECT_EQ(pages.pages(), 5);
  const KvCache slots(*backend_, config_, 2, 70, true, GetParam());
  EXPECT_EQ(slots.pages(), 4);
  EXPECT_EQ(slots.bytes(), 4 * KvCache::page_bytes(config_, GetParam()));
}

TEST_P(KvCaches, ACopiedPageAttendsLikeTheFirst) {
  KvCache cache = KvCache::bare_pages(*backend_, config_, 3, GetParam());
  const int64_t rows = 9, heads = config_.num_attention_heads;
  const int64_t kv = config_.num_key_value_heads, d = config_.head_dim;
  std::vector<float> k(static_cast<size_t>(rows * kv * d)), q(static_cast<size_t>(heads * d));
  for (size_t i = 0; i < k.size(); ++i) k[i] = static_cast<float>(i % 7) - 3.0f;
  for (size_t i = 0; i < q.size(); ++i) q[i] = static_cast<float>(i % 5) - 2.0f;
  const int32_t first = 0, second = 2;
  for (int32_t l = 0; l < config_.num_hidden_layers; ++l) {
    const AttentionSequence s{.rows = rows, .pages = &first};
    backend_->kv_append({kv, d, k.data(), k.data(), cache.layer(l), &s, 1});
  }
  cache.copy_page(first, second);
  for (int32_t l = 0; l < config_.num_hidden_layers; ++l) {
    const auto attend = [&](const int32_t& page) {
      std::vector<float> y(q.size());
      const AttentionSequence s{.rows = 1, .context = rows - 1, .pages = &page};
      backend_->attention({heads, kv, d, q.data(), cache.layer(l), &s, 1, 0.5f, y.data()});
      return y;
    };
    EXPECT_EQ(attend(first), attend(second)) << "layer " << l;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, KvCaches, testing::Values(DType::kF32, DType::kF16, DType::kI8),
                         [](const auto& param) { return std::string(kv_type_name(param.param)); });

std::string refusal(const ModelConfig& config, DType type) {
  ThreadPool pool(1);
  const auto backend = value_or_throw(make_cpu_backend(pool));
  try {
    (void)KvCache::bare_pages(*backend, config, 1, type);
  } catch (const Failure& failure) {
    return failure.error().message;
  }
  return {};
}

TEST(KvCache, WhatADeviceOrTypeCannotHoldIsRefused) {
  EXPECT_EQ(refusal(test::tiny_config(), DType::kBF16),
            "KV type bf16 is not available on this device (cpu)");
  ModelConfig wide = test::tiny_config();
  wide.head_dim = 514;
  EXPECT_EQ(refusal(wide, DType::kF16), "");
  EXPECT_EQ(refusal(wide, DType::kI8),
            "KV type int8 takes heads of up to 512; the model's have 514");
}

}  // namespace
}  // namespace spear
