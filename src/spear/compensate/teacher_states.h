// The reference model's hidden states after its final norm, for every token of a set of sequences:
// what a student is trained towards. BF16, in checked files of a cache folder (32 sequences each),
// so that gathering goes on where it was interrupted and a second training costs no second pass.
// Reads from any thread once complete.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "spear/base/mapped_file.h"
#include "spear/base/progress.h"
#include "spear/base/thread_pool.h"
#include "spear/model/calibration.h"
#include "spear/model/decoder.h"

namespace spear {

class TeacherStates {
 public:
  static constexpr int64_t kSequencesPerFile = 32;

  // Fills what the folder of these sequences under `cache` lacks, then maps it. `decoder` runs the
  // reference, `model_hash` names it. Throws Failure: kInterrupted when progress asks to stop
  // (finished files stay), kIo.
  static TeacherStates gather(Decoder& decoder, const std::string& model_hash,
                              const TokenSequences& tokens, Compute compute,
                              const std::filesystem::path& cache, ThreadPool& pool,
                              Progress& progress);

  [[nodiscard]] int64_t count() const { return count_; }
  // bf16 [length, hidden]
  [[nodiscard]] std::span<const uint16_t> row(int64_t sequence) const;

 private:
  int64_t count_ = 0, length_ = 0, hidden_ = 0;
  std::vector<MappedFile> files_;
};

}  // namespace spear
