// Token sequences to calibrate and train on: sampled by the reference model itself, or cut from
// real text. Reproducible from a seed on any machine whose logits are the same; the ids are kept,
// so that nothing depends on that.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "spear/base/error.h"
#include "spear/base/progress.h"
#include "spear/model/decoder.h"

namespace spear {

// `count` sequences of `length` tokens, one after another.
struct TokenSequences {
  int64_t count = 0, length = 0;
  std::vector<int32_t> ids;  // [count, length]

  [[nodiscard]] std::span<const int32_t> row(int64_t i) const {
    return std::span(ids).subspan(static_cast<size_t>(i * length), static_cast<size_t>(length));
  }
  [[nodiscard]] std::string hash()
      const;  // sha256 over lengths and ids: names caches, stands in artifacts
};

struct SampleOptions {
  int64_t count = 500, length = 256;
  uint64_t seed = 1;
  double temperature =
      1.0;  // no top-k, no top-p: then the mean KL per token estimates the KL between sequences
  int64_t batch = 128;  // sequences decoded together; does not change the result but for rounding
};

// Ancestral sampling from BOS (where the model has none: from its first end token). Sequence i
// draws from stream i of the seed. Sequences do not stop at end tokens: the model goes on as it
// would after one. Throws Failure(kInterrupted) when progress asks to stop.
TokenSequences sample_self(Decoder& decoder, const SampleOptions& options, ThreadPool& pool,
                           Progress& progress);

// Consecutive pieces of `length`, the remainder dropped. kUsage when there are fewer than `length`
// tokens: `source` is named in the sentence.
Result<TokenSequences> cut_into_sequences(std::span<const int32_t> ids, int64_t length,
                                          const std::string& source);
// `count` different sequences in a seeded random order; all of them when there are fewer.
TokenSequences choose_sequences(const TokenSequences& from, int64_t count, uint64_t seed);
TokenSequences concatenate(const TokenSequences& a, const TokenSequences& b);

void save_sequences(const std::filesystem::path& path, const TokenSequences& sequences);
Result<TokenSequences> load_sequences(const std::filesystem::path& path, int64_t vocab_size);

}  // namespace spear
