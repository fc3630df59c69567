// Feeds tokens to a decoder and hands out the logits of the last one. What the KV cache holds
// already is not computed again: a conversation costs its new tokens only. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "spear/model/decoder.h"
#include "spear/model/kv_cache.h"

namespace spear {

class TextGenerator {
 public:
  // `context`: how many tokens the cache has room for. The decoder must outlive this.
  TextGenerator(Decoder& decoder, int64_t context);

  [[nodiscard]] int64_t context() const { return cache_.capacity(); }
  [[nodiscard]] size_t cache_bytes() const { return cache_.bytes(); }
  // Tokens computed by the last advance_to; the rest was in the cache.
  [[nodiscard]] int64_t computed() const { return computed_; }

  // The logits [vocab] after `ids` (1 to context() of them, each in the vocabulary). They may be
  // changed, and hold until the next call. `keep_going` is asked between pieces of a long prompt;
  // false throws Failure(kInterrupted).
  std::span<float> advance_to(std::span<const int32_t> ids,
                              const std::function<bool()>& keep_going);

 private:
  void run(std::span<const int32_t> ids);

  Decoder& decoder_;
  KvCache cache_;
  std::vector<int32_t> held_;  // what the cache has keys and values of
  DeviceBuffer hidden_, device_logits_;
  std::vector<float> logits_;
  int64_t last_rows_ = 0;
  int64_t computed_ = 0;
};

}  // namespace spear
