// The evaluation of models against their full-precision reference: perplexity, divergence, tasks,
// bytes. One thread at a time; finished parts are cached, so that an interrupted or repeated
// evaluation does no work twice.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "spear/base/progress.h"
#include "spear/eval/eval_result.h"
#include "spear/eval/text_encoder.h"
#include "spear/model/decoder.h"
#include "spear/model/dense_model.h"
#include "spear/model/quantized_model.h"

namespace spear {

struct EvalOptions {
  std::vector<TextSpec> texts;     // empty texts and tasks: default_texts() and known_tasks()
  std::vector<std::string> tasks;  // by name
  std::vector<std::filesystem::path> choice_files;
  std::vector<std::filesystem::path> last_word_files;
  std::filesystem::path data_folder;         // empty: looked for (find_data_folder)
  std::filesystem::path cache_folder;        // empty: nothing is kept on disk
  uint64_t cache_limit = uint64_t{8} << 30;  // bytes; the least recently used is removed
  Compute reference_compute = Compute::kBF16;
  Compute model_compute = Compute::kBF16;
  DType model_kv = DType::kF32;  // their keys and values
  bool quick = false;            // the first windows of each text and every eighth question
  int64_t batch_rows = 2048;     // tokens of one forward pass
  uint64_t seed = 1;             // of the bootstrap
};

// wikitext2@2048 and wikitext2@512h.
std::vector<TextSpec> default_texts();

// A model to evaluate. `content_hash` empty: not known, its scores are not kept on disk.
struct ReferenceModel {
  std::string path;
  const DenseModel* model = nullptr;
};
struct CompressedModel {
  std::string path;
  const QuantizedModel* model = nullptr;
  std::string content_hash;
  DecoderPath decoder_path = DecoderPath::kPlain;
};

// Throws Failure: a text, task or file that cannot be used (kBadFile, kNotFound, kUsage), models
// whose vocabularies differ (kUsage), kInterrupted when asked to stop.
EvalResult evaluate(Backend& backend, const TextEncoder& encoder, const ReferenceModel& reference,
                    std::span<const CompressedModel> models, const EvalOptions& options,
                    Progress& progress);

// Bytes by part, and all stored bits of the linears divided by their number of weights.
ByteParts bytes_of(const QuantizedModel& model);
ByteParts bytes_of(const DenseModel& model);
double bits_per_weight(const QuantizedModel& model);
double bits_per_weight(const DenseModel& model);

}  // namespace spear
