#include "spear/cli/served_facts.h"

#include <chrono>
#include <span>
#include <system_error>

#include <fmt/format.h>

#include "spear/base/hash.h"
#include "spear/base/json.h"
#include "spear/model/modules.h"

namespace spear {
namespace {

int64_t seconds_since_epoch(const std::filesystem::path& path) {
  std::error_code problem;
  const auto time = std::filesystem::last_write_time(path, problem);
  if (problem) return 0;
  const auto system = std::chrono::file_clock::to_sys(time);
  return std::chrono::duration_cast<std::chrono::seconds>(system.time_since_epoch()).count();
}

// Changes with any byte of an artifact; of other files, with their name and time.
std::string fingerprint(const OpenedModel& model, int64_t created) {
  std::string seen = fmt::format("{}:{}", model.path.filename().string(), created);
  if (model.file != nullptr) {
    seen.clear();
    for (const ArtifactSection& section : model.file->artifact->sections())
      seen += fmt::format("{}:{:016x} ", section.name, section.checksum);
  }
  return fmt::format("spear-{:08x}", xxh3(std::as_bytes(std::span(seen))) & 0xffffffffU);
}

Json facts_of(const OpenedModel& model) {
  const ModelConfig& c = model.config();
  Json facts = {{"format", model.file != nullptr ? "spear" : "full precision"},
                {"architecture", c.architecture},
                {"n_vocab", c.vocab_size},
                {"n_ctx_train", c.max_position_embeddings},
                {"n_embd", c.hidden_size},
                {"n_layer", c.num_hidden_layers}};
  if (model.file == nullptr) return facts;
  const QuantizedModel& quantized = model.file->model;
  int64_t compensators = 0;
  for (const QuantizedLayer& layer : quantized.layers)
    for (const QuantizedLinear& linear : layer.linears)
      compensators += linear.compensator.has_value() ? 1 : 0;
  facts["size"] = count_bytes(quantized).total();
  facts["compensators"] = compensators;
  return facts;
}

}  // namespace

ModelFacts served_facts(const OpenedModel& model, const std::string& name) {
  ModelFacts facts;
  facts.name = name.empty() ? model.path.stem().string() : name;
  facts.created = seconds_since_epoch(model.path);
  facts.fingerprint = fingerprint(model, facts.created);
  facts.chat_template = model.chat_template;
  if (model.file != nullptr) facts.certificate = model.file->texts.certificate;
  facts.facts = one_line(facts_of(model));
  return facts;
}

}  // namespace spear
