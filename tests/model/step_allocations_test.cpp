// A decode step of the compiled decoder asks the heap for nothing: operator new is counted.
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

#include <gtest/gtest.h>

#include "spear/base/thread_pool.h"
#include "spear/model/decoder.h"

#include "support/tiny_compressed.h"

namespace {

std::atomic<int64_t> news{0};

void* counted(size_t bytes) {
  news.fetch_add(1, std::memory_order_relaxed);
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(size_t bytes) {
  return counted(bytes);
}
void* operator new[](size_t bytes) {
  return counted(bytes);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, size_t) noexcept {
  std::free(memory);
}

namespace spear {
namespace {

// Across the border of a page, which lies at 64 tokens.
TEST(CompiledStep, ASteadyDecodeStepAllocatesNothing) {
  ThreadPool pool(2);
  const std::unique_ptr<Backend> backend = value_or_throw(make_cpu_backend(pool));
  const QuantizedModel model =
      test::tiny_compressed({.model = {}, .rotated = true, .rank = 3, .gated = true});
  for (const DecoderPath path : {DecoderPath::kFused, DecoderPath::kFusedExact}) {
    Decoder decoder(*backend, model, Compute::kF32, path);
    ASSERT_NE(decoder.program(), nullptr);
    const ModelConfig& config = decoder.config();
    KvCache cache(*backend, config, 1, 128, true);
    std::vector<float> hidden(static_cast<size_t>(config.hidden_size));
    std::vector<float> logits(static_cast<size_t>(config.vocab_size));
    const auto step = [&](int32_t token) {
      const AttentionSequence sequence = cache.append(0, 0, 1);
      decoder.forward({{&token, 1}, {&sequence, 1}}, cache, hidden.data());
      decoder.logits(hidden.data(), 1, logits.data());
    };
    for (int32_t i = 0; i < 100; ++i) step(i % 32);  // memory grows to the longest context seen
    cache.truncate(0, 4);
    const int64_t before = news.load();
    for (int32_t i = 4; i < 100; ++i) step(i % 32);
    EXPECT_EQ(news.load() - before, 0) << decoder.describe();
  }
}

}  // namespace
}  // namespace spear
