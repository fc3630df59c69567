#include "spear/model/import_gguf.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "spear/base/printable.h"
#include "spear/model/import_names.h"
#include "spear/model/modules.h"

namespace spear {
namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kOuterNames = {{
    {"token_embd.weight", "embed_tokens.weight"},
    {"output_norm.weight", "norm.weight"},
    {"output.weight", "lm_head.weight"},
}};

constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kLayerNames = {{
    {"attn_norm", "input_layernorm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
}};

constexpr std::string_view kRopeFactors = "rope_freqs.weight";

std::string path_of(const GgufFile& file) {
  return file.file().path().string();
}

tl::unexpected<Error> bad(const GgufFile& file, std::string_view sentence) {
  return fail(ErrorCode::kBadFile, fmt::format("{}: {}", path_of(file), sentence));
}

tl::unexpected<Error> unsupported(const GgufFile& file, std::string_view sentence) {
  return fail(ErrorCode::kUnsupported, fmt::format("{}: {}", path_of(file), sentence));
}

// "blk.3.attn_q.weight" to "layers.3.self_attn.q_proj.weight"; nothing for a name that is not in
// the tables.
std::optional<std::string> our_name(std::string_view stored) {
  for (const auto& [theirs, ours] : kOuterNames)
    if (stored == theirs) return std::string(ours);
  constexpr std::string_view kBlock = "blk.";
  if (!stored.starts_with(kBlock)) return std::nullopt;
  const std::string_view rest = stored.substr(kBlock.size());
  int32_t layer = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), layer);
  if (error != std::errc() || layer < 0) return std::nullopt;
  const std::string_view tail = rest.substr(static_cast<size_t>(end - rest.data()));
  const size_t dot = tail.rfind('.');
  if (tail.empty() || tail[0] != '.' || dot == 0) return std::nullopt;
  const std::string_view part = tail.substr(1, dot - 1);
  for (const auto& [theirs, ours] : kLayerNames)
    if (part == theirs) return fmt::format("layers.{}.{}{}", layer, ours, tail.substr(dot));
  return std::nullopt;
}

// Reads the keys under "<architecture>."; the first problem is kept and ends the import.
class Metadata {
 public:
  Metadata(const GgufFile& file, std::string_view architecture)
      : file_(file), prefix_(std::string(architecture) + ".") {}

  int64_t integer(std::string_view key) { return keep(file_.integer(prefix_ + std::string(key))); }
  double real(std::string_view key) { return keep(file_.real(prefix_ + std::string(key))); }
  int64_t integer_or(std::string_view key, int64_t fallback) {
    return has(key) ? integer(key) : fallback;
  }
  double real_or(std::string_view key, double fallback) { return has(key) ? real(key) : fallback; }
  std::string text_or(std::string_view key, std::string_view fallback) {
    return std::string(has(key) ? keep(file_.text(prefix_ + std::string(key))) : fallback);
  }
  [[nodiscard]] bool has(std::string_view key) const {
    return file_.find(prefix_ + std::string(key)) != nullptr;
  }
  [[nodiscard]] const std::optional<Error>& error() const { return error_; }

 private:
  template <class T>
  T keep(Result<T> result) {
    if (result) return *result;
    if (!error_) error_ = result.error();
    return T{};
  }
  const GgufFile& file_;
  std::string prefix_;
  std::optional<Error> error_;
};

void read_geometry(const GgufFile& file, Metadata& meta, ModelConfig& config) {
  config.num_hidden_layers = meta.integer("block_count");
  config.hidden_size = meta.integer("embedding_length");
  config.intermediate_size = meta.integer("feed_forward_length");
  config.num_attention_heads = meta.integer("attention.head_count");
  config.num_key_value_heads =
      meta.integer_or("attention.head_count_kv", config.num_attention_heads);
  const int64_t heads = std::max<int64_t>(config.num_attention_heads, 1);
  // Without the key the heads share the hidden size evenly; where they cannot, 0 makes validate()
  // refuse.
  config.head_dim = meta.integer_or(
      "attention.key_length", config.hidden_size % heads == 0 ? config.hidden_size / heads : 0);
  config.max_position_embeddings = meta.integer("context_length");
  config.rms_norm_eps = meta.real("attention.layer_norm_rms_epsilon");
  config.rope_theta = meta.real_or("rope.freq_base", 10000.0);
  config.sliding_window = meta.integer_or("attention.sliding_window", 0);
  config.tie_word_embeddings = file.find_tensor("output.weight") == nullptr;
  config.attention_bias = file.find_tensor("blk.0.attn_q.bias") != nullptr;
  config.qk_norm = file.find_tensor("blk.0.attn_q_norm.weight") != nullptr;
}

Result<void> refuse_other_shapes(const GgufFile& file, Metadata& meta, const ModelConfig& config) {
  if (meta.integer_or("expert_count", 0) > 0)
    return unsupported(file, "a mixture of experts; spear reads dense models");
  if (const int64_t v = meta.integer_or("attention.value_length", config.head_dim);
      v != config.head_dim)
    return unsupported(file,
                       fmt::format("value heads of {} and key heads of {}; spear reads models "
                                   "where they are equal",
                                   v, config.head_dim));
  if (const int64_t d = meta.integer_or("rope.dimension_count", config.head_dim);
      d != config.head_dim)
    return unsupported(file, fmt::format("RoPE on {} of {} dimensions; spear reads models where it "
                                         "covers the whole head",
                                         d, config.head_dim));
  return {};
}

Result<void> read_rope(const GgufFile& file, Metadata& meta, ModelConfig& config) {
  const std::string kind = meta.text_or("rope.scaling.type", "none");
  if (kind == "linear") {
    config.rope_scaling.kind = RopeScalingKind::kLinear;
    config.rope_scaling.factor = meta.real("rope.scaling.factor");
  } else if (kind != "none") {
    return unsupported(
        file, fmt::format("RoPE scaling {}; spear knows none, linear and llama3", printable(kind)));
  } else if (meta.has("rope.scale_linear")) {
    config.rope_scaling.factor = meta.real("rope.scale_linear");
    if (config.rope_scaling.factor != 1.0) config.rope_scaling.kind = RopeScalingKind::kLinear;
  }
  const GgufTensor* factors = file.find_tensor(kRopeFactors);
  if (factors == nullptr) return {};
  if (!(factors->shape == Shape{config.head_dim / 2}))
    return bad(file, fmt::format("{}: shape {}, config says [{}]", kRopeFactors,
                                 factors->shape.text(), config.head_dim / 2));
  config.rope_factors.resize(static_cast<size_t>(config.head_dim / 2));
  dequantize_rows(factors->type, 1, config.head_dim / 2, factors->bytes.data(),
                  config.rope_factors.data());
  return {};
}

Result<void> read_vocabulary_size(const GgufFile& file, Metadata& meta, ModelConfig& config) {
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (embedding == nullptr)
    return bad(file, "tensor \"token_embd.weight\" is missing: a vocabulary without a model?");
  config.vocab_size = embedding->shape[0];
  if (const int64_t said = meta.integer_or("vocab_size", config.vocab_size);
      said != config.vocab_size)
    return bad(file, fmt::format("metadata says a vocabulary of {}, the embedding has {} rows",
                                 said, config.vocab_size));
  const GgufValue* tokens = file.find("tokenizer.ggml.tokens");
  if (tokens != nullptr && tokens->count != static_cast<uint64_t>(config.vocab_size))
    return bad(file, fmt::format("the tokenizer has {} tokens, the embedding {} rows",
                                 tokens->count, config.vocab_size));
  return {};
}

Result<int32_t> read_token_id(const GgufFile& file, std::string_view key, int64_t vocab_size) {
  if (file.find(key) == nullptr) return -1;
  const auto id = file.integer(key);
  if (!id) return tl::unexpected(id.error());
  if (*id < 0 || *id >= vocab_size)
    return bad(file, fmt::format("metadata \"{}\": token {} is outside the vocabulary of {}", key,
                                 *id, vocab_size));
  return static_cast<int32_t>(*id);
}

Result<void> read_special_tokens(const GgufFile& file, ModelConfig& config) {
  const auto bos = read_token_id(file, "tokenizer.ggml.bos_token_id", config.vocab_size);
  if (!bos) return tl::unexpected(bos.error());
  config.bos_token_id = *bos;
  for (const std::string_view key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    const auto id = read_token_id(file, key, config.vocab_size);
    if (!id) return tl::unexpected(id.error());
    auto& ids = config.eos_token_ids;
    if (*id >= 0 && std::find(ids.begin(), ids.end(), *id) == ids.end()) ids.push_back(*id);
  }
  return {};
}

// llama.cpp's converter stores q and k of llama models with the two halves of each head
// interleaved.
int64_t interleaved_heads(const ModelConfig& config, std::string_view name) {
  if (config.architecture != "llama") return 0;
  if (name.find(".self_attn.q_proj.") != std::string_view::npos) return config.num_attention_heads;
  if (name.find(".self_attn.k_proj.") != std::string_view::npos) return config.num_key_value_heads;
  return 0;
}

std::string text_or_empty(const GgufFile& file, std::string_view key) {
  const GgufValue* value = file.find(key);
  return value == nullptr ? "" : std::string(value->as_text().value_or(""));
}

}  // namespace

Result<ModelConfig> config_from_gguf(const GgufFile& file) {
  const auto architecture = file.text("general.architecture");
  if (!architecture) return tl::unexpected(architecture.error());
  if (!is_known_architecture(*architecture))
    return unsupported(file, fmt::format("architecture {} is not known; spear reads {}",
                                         printable(*architecture), known_architectures()));
  ModelConfig config;
  config.architecture = *architecture;
  config.name = plain_name(text_or_empty(file, "general.name"));
  Metadata meta(file, *architecture);
  read_geometry(file, meta, config);
  if (meta.error()) return tl::unexpected(*meta.error());
  if (auto ok = read_vocabulary_size(file, meta, config); !ok) return tl::unexpected(ok.error());
  if (auto ok = validate(config, path_of(file)); !ok) return tl::unexpected(ok.error());
  if (auto ok = refuse_other_shapes(file, meta, config); !ok) return tl::unexpected(ok.error());
  if (auto ok = read_rope(file, meta, config); !ok) return tl::unexpected(ok.error());
  if (auto ok = read_special_tokens(file, config); !ok) return tl::unexpected(ok.error());
  if (meta.error()) return tl::unexpected(*meta.error());
  if (auto ok = validate(config, path_of(file)); !ok) return tl::unexpected(ok.error());
  return config;
}

Result<CheckpointParts> import_gguf(const std::filesystem::path& path) {
  auto opened = GgufFile::open(path);
  if (!opened) return tl::unexpected(opened.error());
  CheckpointParts parts;
  parts.gguf = std::make_unique<GgufFile>(std::move(*opened));
  const GgufFile& file = *parts.gguf;
  auto config = config_from_gguf(file);
  if (!config) return tl::unexpected(config.error());
  parts.config = std::move(*config);
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.name == kRopeFactors) continue;
    StoredTensor stored;
    // An unknown name keeps its own: check_tensors() refuses it as one too many.
    stored.name = our_name(tensor.name).value_or(std::string(tensor.name));
    stored.shape = tensor.shape;
    stored.type = tensor.type;
    stored.bytes = tensor.bytes;
    stored.file = &file.file();
    stored.interleaved_heads = interleaved_heads(parts.config, stored.name);
    parts.tensors.push_back(std::move(stored));
  }
  parts.chat_template = text_or_empty(file, "tokenizer.chat_template");
  parts.license = text_or_empty(file, "general.license");
  parts.files = {path};
  return parts;
}

}  // namespace spear
