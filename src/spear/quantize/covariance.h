// Second moments E[x·xᵀ] of what every linear reads, of the full-precision model on calibration
// tokens. Gathered layer by layer: all tokens pass through one layer before the next, so memory
// holds the residual streams and the moments of one layer. Each (layer, site) is one F32 file in a
// cache folder, written atomically, so an interrupted gathering goes on where it stopped and every
// workshop reads the same numbers. One thread; works on the backend.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "spear/base/error.h"
#include "spear/base/host_tensor.h"
#include "spear/base/progress.h"
#include "spear/model/calibration.h"
#include "spear/model/decoder.h"

namespace spear {

// The covariances of one model on one set of tokens, on disk.
class Covariances {
 public:
  // The folder is named by what determines the numbers; it need not exist.
  Covariances(const std::filesystem::path& cache, const ModelConfig& config,
              const std::string& model_hash, const std::string& token_hash, Compute compute);

  [[nodiscard]] bool has(int32_t layer, InputSite site) const;
  [[nodiscard]] bool complete() const;
  // [k, k] f32, symmetric. Throws Failure when the file is missing or damaged.
  [[nodiscard]] HostTensor load(int32_t layer, InputSite site) const;
  void store(int32_t layer, InputSite site, const HostTensor& covariance) const;
  [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

 private:
  [[nodiscard]] std::filesystem::path file_of(int32_t layer, InputSite site) const;

  std::filesystem::path folder_;
  ModelConfig config_;
};

struct GatherOptions {
  Compute compute =
      Compute::kBF16;  // how X·Xᵀ is multiplied; sums are F32 in a chunk, F64 between chunks
  int64_t tokens_per_chunk = 2048;  // rows that pass through a layer together
};

// Fills what `covariances` lacks. `decoder` runs the full-precision model. Throws Failure: kUsage
// when there are no tokens, kInterrupted when progress asks to stop (finished layers stay).
void gather_covariances(Decoder& decoder, const TokenSequences& tokens,
                        const GatherOptions& options, const Covariances& covariances,
                        ThreadPool& pool, Progress& progress);

}  // namespace spear
