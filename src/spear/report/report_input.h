// What a report shows: evaluations, a diagnosis, training curves, samples of text, and formats of
// others to compare with. Read from JSON files, which are hostile until checked. Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/diagnose/damage_report.h"
#include "spear/eval/eval_result.h"

namespace spear {

struct CurvePoint {
  int64_t step = 0;
  double loss = 0;
  double held_out_kl = -1;  // negative: not measured at this step
};

struct TrainingCurve {
  std::string name;
  std::vector<CurvePoint> points;
};

// What models say after the same prompt with the same seed.
struct TextSample {
  struct Answer {
    std::string model;  // "reference", "plain W4", "compensated"
    std::string text;
  };
  std::string prompt;
  uint64_t seed = 0;
  std::vector<Answer> answers;
};

// A format of another program, measured by that program.
struct PeerPoint {
  std::string name;
  double bytes = 0;
  double perplexity_ratio = 0;
  double kl = 0;
  double top1 = 0;
};
struct PeerSet {
  std::string text;    // the protocol they were measured by: "wikitext2@512h"
  std::string source;  // who measured what
  std::vector<PeerPoint> points;
};

// llama.cpp's formats of the same reference, measured by its own tool; nothing for other models.
std::optional<PeerSet> llama_cpp_peers(std::string_view reference_name);

struct ReportInput {
  std::string title = "Quality report";
  EvalResult evaluation;
  std::string baseline;  // path of the plainest 4-bit model in it: the gap is closed from there;
                         // empty: not shown
  std::optional<PeerSet> peers;
  std::optional<DamageReport> damage;
  std::vector<TrainingCurve> curves;
  std::vector<TextSample> samples;
};

// Evaluations of the same reference become one; a model that occurs twice counts once. Refuses
// different references, or full figures beside quick ones.
Result<EvalResult> merge_evaluations(const std::vector<EvalResult>& results);

// {"curve": [{"step": 10, "loss": 0.31, "held_out": 0.29}, ...]}, anywhere in an artifact's
// provenance or alone; nothing where there is none.
Result<std::vector<TrainingCurve>> curves_from_json_text(std::string_view text,
                                                         std::string_view source);
// [{"prompt": "...", "seed": 1, "answers": [{"model": "reference", "text": "..."}]}]
Result<std::vector<TextSample>> samples_from_json_text(std::string_view text,
                                                       std::string_view source);
std::string to_json_text(const std::vector<TextSample>& samples);

}  // namespace spear
