// A report's input with something of everything, hostile text included.
#pragma once

#include <cmath>

#include "spear/report/report_input.h"

namespace spear::test {

inline TextResult sample_text(const std::string& name, double perplexity, double kl) {
  TextResult text;
  text.name = name;
  text.tokens = 304978;
  text.windows = 148;
  text.scored = 302956;
  text.perplexity = perplexity;
  text.perplexity_stderr = 0.4;
  if (kl <= 0) return text;
  Divergence& d = text.divergence.emplace();
  d.kl = {kl, kl / 50, kl * 0.96, kl * 1.04};
  d.kl_median = kl / 4;
  d.kl_p99 = kl * 9;
  d.top1_agreement = {1 - std::sqrt(kl) / 2.2, 0.002, 0, 0};
  for (int bin = 0; bin < KlHistogram::kBins; ++bin) {
    const double place = (bin - 18 - 3 * std::log10(kl)) / 5.5;
    d.histogram.counts[static_cast<size_t>(bin)] =
        static_cast<int64_t>(30000 * std::exp(-place * place));
  }
  return text;
}

inline ModelResult sample_model(const std::string& path, uint64_t bytes, double factor, double kl) {
  ModelResult model;
  model.path = path;
  model.content_hash = path;
  model.compute = "bf16";
  model.bytes = {bytes, bytes / 2, bytes / 50, bytes / 100, bytes / 200, 0, 1000, bytes / 3, 0, 0};
  model.bits_per_weight = 4.03;
  model.texts = {sample_text("wikitext2@2048", 21.64 * factor, kl),
                 sample_text("wikitext2@512h", 23.38 * factor, kl * 0.95)};
  TaskResult task;
  task.name = "piqa";
  task.n = 1838;
  task.accuracy = 0.68 / factor;
  task.accuracy_stderr = 0.011;
  task.accuracy_norm = 0.67 / factor;
  task.accuracy_norm_stderr = 0.011;
  model.tasks = {task};
  return model;
}

inline DamageReport sample_damage(int32_t layers) {
  DamageReport report;
  report.model = "tiny";
  report.quantizer = "rtn, 4 bits, per channel";
  report.sequences = 64;
  report.length = 256;
  for (int32_t layer = 0; layer < layers; ++layer)
    for (const Module module : kModules) {
      const double wave = std::sin(layer * 0.7 + static_cast<int>(module) * 1.3);
      report.modules.push_back(
          {{layer, module}, 0.002 * std::exp(2 * wave), 0.01 * std::exp(1.5 * wave)});
    }
  return report;
}

inline ReportInput sample_input() {
  ReportInput input;
  input.title = "SmolLM2-135M <script>alert('x')</script> & co";
  input.evaluation.backend = "cpu";
  input.evaluation.reference_states = "bf16, logits recomputed by the head";
  input.evaluation.reference = sample_model("smollm2-135m.gguf", 269100288, 1, 0);
  input.evaluation.models = {sample_model("out/rtn-pc.spear", 81600000, 1.80, .679),
                             sample_model("out/rotated-gptq-pc.spear", 81620000, 1.208, .195),
                             sample_model("out/closed.spear", 82300000, 1.18, .17),
                             sample_model("out/fast.spear", 82350000, 1.12, .145),
                             sample_model("out/best-4.5-bits.spear", 88100000, 1.047, .075)};
  input.baseline = "out/rtn-pc.spear";
  input.peers = llama_cpp_peers("smollm2-135m.gguf");
  input.damage = sample_damage(30);
  TrainingCurve curve;
  curve.name = "fast, seed 1";
  for (int64_t step = 0; step <= 150; ++step) {
    CurvePoint point;
    point.step = step;
    point.loss = 0.14 + 0.25 * std::exp(-static_cast<double>(step) / 30) +
                 0.01 * std::sin(static_cast<double>(step) * 2.1);
    if (step % 15 == 0) point.held_out_kl = 0.15 + 0.24 * std::exp(-static_cast<double>(step) / 33);
    curve.points.push_back(point);
  }
  input.curves = {curve};
  input.samples = {{"The cause of the tides is",
                    7,
                    {{"reference", "the gravity of the moon and,\nto a lesser extent, of the sun."},
                     {"plain W4", "the tides of the tides <b>of</b> the \xff\x01 tides"},
                     {"compensated", "the gravity of the moon on the oceans."}}}};
  return input;
}

}  // namespace spear::test
