#include "spear/model/import_names.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "spear/base/printable.h"
#include "spear/model/modules.h"

namespace spear {
namespace {

constexpr std::array<std::string_view, 4> kArchitectures = {"llama", "mistral", "qwen2", "qwen3"};

void add_layer(const ModelConfig& config, int32_t layer, std::vector<ExpectedTensor>& out) {
  const std::string prefix = fmt::format("layers.{}.", layer);
  out.push_back({prefix + "input_layernorm.weight", {config.hidden_size}});
  out.push_back({prefix + "post_attention_layernorm.weight", {config.hidden_size}});
  if (config.qk_norm) {
    out.push_back({prefix + "self_attn.q_norm.weight", {config.head_dim}});
    out.push_back({prefix + "self_attn.k_norm.weight", {config.head_dim}});
  }
  for (const Module module : kModules) {
    const std::string name = name_of(ModuleId{layer, module});
    const int64_t n = out_features(config, module);
    out.push_back({name + ".weight", {n, in_features(config, module)}});
    const bool qkv = module == Module::kQ || module == Module::kK || module == Module::kV;
    if (qkv && config.attention_bias) out.push_back({name + ".bias", {n}});
  }
}

// "layers.3.mlp.down_proj" for a weight, the whole name for anything else.
std::string_view spoken(std::string_view name) {
  constexpr std::string_view kSuffix = ".weight";
  return name.ends_with(kSuffix) ? name.substr(0, name.size() - kSuffix.size()) : name;
}

}  // namespace

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config) {
  std::vector<ExpectedTensor> out;
  out.push_back({"embed_tokens.weight", {config.vocab_size, config.hidden_size}});
  out.push_back({"norm.weight", {config.hidden_size}});
  if (!config.tie_word_embeddings)
    out.push_back({"lm_head.weight", {config.vocab_size, config.hidden_size}});
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    add_layer(config, static_cast<int32_t>(layer), out);
  return out;
}

std::string known_architectures() {
  return fmt::format("{}", fmt::join(kArchitectures, ", "));
}

bool is_known_architecture(std::string_view name) {
  return std::find(kArchitectures.begin(), kArchitectures.end(), name) != kArchitectures.end();
}

std::string plain_name(std::string_view text) {
  std::string out(text.substr(0, 80));
  for (char& c : out)
    if (c < 0x20 || c >= 0x7f) c = '?';
  return out;
}

Result<void> check_tensors(const ModelConfig& config, const std::vector<StoredTensor>& tensors,
                           std::string_view source) {
  std::vector<ExpectedTensor> expected = expected_tensors(config);
  std::sort(expected.begin(), expected.end(),
            [](const ExpectedTensor& a, const ExpectedTensor& b) { return a.name < b.name; });
  auto next = tensors.begin();
  for (const ExpectedTensor& wanted : expected) {
    if (next == tensors.end() || next->name > wanted.name)
      return fail(ErrorCode::kBadFile,
                  fmt::format("{}: missing, the config asks for shape {} ({})", spoken(wanted.name),
                              wanted.shape.text(), source));
    if (next->name < wanted.name) break;
    const std::string file = next->file->path().filename().string();
    if (!(next->shape == wanted.shape))
      return fail(ErrorCode::kBadFile,
                  fmt::format("{}: shape {}, config says {} ({})", spoken(wanted.name),
                              next->shape.text(), wanted.shape.text(), file));
    ++next;
  }
  if (next != tensors.end())
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: a {} model of {} layers has no such tensor ({})",
                            printable(next->name), config.architecture, config.num_hidden_layers,
                            next->file->path().filename().string()));
  return {};
}

}  // namespace spear
