// The token sequences of a compression: sampled by the reference itself, cut from the texts a user
// gives, and some that are never trained on. Everything is kept in the cache and named by what
// determines it. One thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "spear/base/progress.h"
#include "spear/base/thread_pool.h"
#include "spear/compensate/recipes.h"
#include "spear/model/calibration.h"
#include "spear/model/decoder.h"
#include "spear/tokenizer/tokenizer.h"

namespace spear {

// A text of the user's, as tokens.
struct CalibrationText {
  std::string name;    // file name
  std::string sha256;  // of the file
  int64_t tokens = 0;
  TokenSequences sequences;
};
// kBadFile / kUsage: not UTF-8, or fewer tokens than one sequence. Throws Failure.
CalibrationText read_calibration_text(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                      int64_t length);

struct CalibrationSet {
  TokenSequences covariance;  // what second moments are gathered on
  TokenSequences training;    // what is trained on (held-out sequences are split off it)
  TokenSequences unseen;      // sampled by the reference, in neither of the two: to measure on
};

inline constexpr int64_t kUnseenSequences = 24;

// `decoder` is asked for the reference only when samples are not in the cache.
CalibrationSet make_calibration_set(const RecipePlan& plan, uint64_t seed,
                                    const std::string& model_hash,
                                    const std::vector<CalibrationText>& texts, int64_t vocab_size,
                                    const std::function<Decoder&()>& decoder,
                                    const std::filesystem::path& cache, ThreadPool& pool,
                                    Progress& progress);

}  // namespace spear
