#include "spear/cli/diagnosis_job.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "spear/base/hash.h"
#include "spear/base/log.h"
#include "spear/model/calibration.h"
#include "spear/quantize/rtn.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

std::string quantizer_name(const GridOptions& grid) {
  const std::string group =
      grid.group == 0 ? "per channel" : fmt::format("groups of {}", grid.group);
  return fmt::format("rtn, {} bits, {}{}{}", grid.bits, group, grid.symmetric ? ", symmetric" : "",
                     grid.search ? ", range search" : "");
}

std::string short_hash(const std::string& text) {
  return sha256_hex(std::as_bytes(std::span(text))).substr(0, 16);
}

TokenSequences sampled(Decoder& decoder, const DenseModel& model, const DiagnosisSettings& s,
                       ThreadPool& pool, Progress& progress) {
  const fs::path file =
      s.cache.empty()
          ? fs::path()
          : s.cache / fmt::format("samples-{}.tokens",
                                  short_hash(fmt::format("{} {} {} {}", model.content_hash,
                                                         s.sequences, s.length, s.seed)));
  if (!file.empty() && fs::exists(file)) {
    Result<TokenSequences> kept = load_sequences(file, model.config.vocab_size);
    if (kept && kept->count == s.sequences && kept->length == s.length) return std::move(*kept);
    log(LogLevel::kWarning, fmt::format("{}: not usable, sampled again", file.string()));
  }
  TokenSequences tokens = sample_self(
      decoder, {.count = s.sequences, .length = s.length, .seed = s.seed}, pool, progress);
  if (!file.empty()) {
    fs::create_directories(s.cache);
    save_sequences(file, tokens);
  }
  return tokens;
}

// The module's weight as F32, [n, k].
std::vector<float> weights_of(const HostTensor& weight) {
  std::vector<float> out(static_cast<size_t>(weight.count()));
  if (weight.dtype() == DType::kF32) {
    std::copy(weight.as<float>().begin(), weight.as<float>().end(), out.begin());
  } else {
    const auto from = weight.as<uint16_t>();
    for (size_t i = 0; i < out.size(); ++i) out[i] = float_from_bf16(from[i]);
  }
  return out;
}

HostTensor rounded_alone(const HostTensor& weight, const GridOptions& grid, ThreadPool& pool) {
  const int64_t n = weight.shape()[0];
  const int64_t k = weight.shape()[1];
  const std::vector<float> values = weights_of(weight);
  const QuantizedMatrix packed =
      pack(rtn(values.data(), n, k, grid, nullptr, pool), stored_zero_kind(grid));
  HostTensor out({n, k}, DType::kF32);
  dequantize_rows(packed.view(), 0, n, out.as<float>().data());
  return out;
}

void check_settings(const DiagnosisSettings& s, const ModelConfig& config) {
  const auto refuse = [](const std::string& text) { throw Failure(ErrorCode::kUsage, text); };
  if (s.sequences < 2 || s.sequences > 100000)
    refuse(fmt::format("--sequences: 2 to 100000 expected, found {}", s.sequences));
  if (s.length < 8 || s.length > config.max_position_embeddings)
    refuse(fmt::format("--length: 8 to {} (the model's context) expected, found {}",
                       config.max_position_embeddings, s.length));
  for (const int64_t k : {config.hidden_size, config.q_size(), config.intermediate_size})
    if (s.grid.group > 0 && k % s.grid.group != 0)
      refuse(fmt::format("--group: {} does not divide the {} inputs of a module", s.grid.group, k));
}

}  // namespace

void make_quick(DiagnosisSettings& settings) {
  settings.sequences = 16;
  settings.length = 96;
  settings.kl_stride = 4;
}

DamageReport run_diagnosis(const DenseModel& model, const DiagnosisSettings& settings,
                           Machine& machine, Compute compute, Progress& progress) {
  check_settings(settings, model.config);
  Decoder decoder(*machine.backend, model, compute);
  const TokenSequences tokens = sampled(decoder, model, settings, *machine.pool, progress);
  DamageReport report;
  report.model = model.config.name;
  report.model_hash = model.content_hash;
  report.quantizer = quantizer_name(settings.grid);
  DiagnoseOptions options{.kl_stride = settings.kl_stride, .batch = 8, .state_file = {}};
  if (!settings.cache.empty()) {
    fs::create_directories(settings.cache);
    options.state_file =
        settings.cache /
        fmt::format("state-{}.json",
                    short_hash(fmt::format("{} {} {} {} {}", model.content_hash, report.quantizer,
                                           tokens.hash(), settings.kl_stride,
                                           compute == Compute::kF32 ? "f32" : "bf16")));
  }
  const auto quantize = [&](const ModuleId& id) {
    const DenseLinear& linear = model.layers[static_cast<size_t>(id.layer)].linear(id.module);
    return rounded_alone(linear.weight, settings.grid, *machine.pool);
  };
  diagnose(decoder, tokens, quantize, options, *machine.pool, progress, report);
  return report;
}

Placement place_compensators(const DamageReport& report, const ModelConfig& config,
                             const PlacementSettings& settings) {
  const std::vector<double> damage = report.cka_damages();
  std::vector<double> cost;
  for (const ModuleDamage& m : report.modules)
    cost.push_back(settings.costs.microseconds(config, m.id.module, settings.rank));
  Placement placement;
  placement.cover = choose_cover(damage, settings.cover);
  placement.modules = place(damage, cost, placement.cover.count, settings.options);
  return placement;
}

}  // namespace spear
