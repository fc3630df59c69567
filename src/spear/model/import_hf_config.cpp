// config.json of the Hugging Face families that spear reads. Defaults are those of the families'
// own classes.
#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/base/printable.h"
#include "spear/model/import_hf.h"
#include "spear/model/import_names.h"

namespace spear {
namespace {

constexpr int64_t kMaxWhole = int64_t{1} << 53;

// Reads the fields of one object; the first problem is kept and ends the import.
class Fields {
 public:
  Fields(const Json& json, std::string source) : json_(json), source_(std::move(source)) {}

  [[nodiscard]] bool has(const char* key) const {
    const auto at = json_.find(key);
    return at != json_.end() && !at->is_null();
  }
  int64_t whole(const char* key) {
    if (!has(key)) return refuse(key, "a whole number"), 0;
    const Json& value = json_.at(key);
    if (value.is_number_unsigned() && value.get<uint64_t>() <= uint64_t{kMaxWhole})
      return value.get<int64_t>();
    if (value.is_number_integer() && !value.is_number_unsigned() &&
        value.get<int64_t>() >= -kMaxWhole)
      return value.get<int64_t>();
    return refuse(key, "a whole number"), 0;
  }
  int64_t whole_or(const char* key, int64_t fallback) { return has(key) ? whole(key) : fallback; }
  double real(const char* key) {
    if (has(key) && json_.at(key).is_number()) return json_.at(key).get<double>();
    return refuse(key, "a number"), 0.0;
  }
  double real_or(const char* key, double fallback) { return has(key) ? real(key) : fallback; }
  bool flag_or(const char* key, bool fallback) {
    if (!has(key)) return fallback;
    if (json_.at(key).is_boolean()) return json_.at(key).get<bool>();
    return refuse(key, "true or false"), false;
  }
  std::string text_or(const char* key, std::string_view fallback) {
    if (!has(key)) return std::string(fallback);
    if (json_.at(key).is_string()) return json_.at(key).get<std::string>();
    return refuse(key, "a string"), "";
  }
  // One token or a list of them.
  std::vector<int64_t> tokens(const char* key) {
    if (!has(key)) return {};
    if (!json_.at(key).is_array()) return {whole(key)};
    std::vector<int64_t> out;
    for (const Json& value : json_.at(key)) {
      if (!value.is_number_unsigned() || value.get<uint64_t>() > uint64_t{kMaxWhole} ||
          out.size() >= 64)
        return refuse(key, "at most 64 token numbers"), std::vector<int64_t>{};
      out.push_back(value.get<int64_t>());
    }
    return out;
  }
  [[nodiscard]] const Json* object(const char* key) {
    if (!has(key)) return nullptr;
    if (json_.at(key).is_object()) return &json_.at(key);
    return refuse(key, "an object"), nullptr;
  }
  [[nodiscard]] const std::string& source() const { return source_; }
  [[nodiscard]] const std::optional<Error>& error() const { return error_; }

  void refuse(const char* key, std::string_view expected) {
    const std::string found =
        has(key) ? json_.at(key).dump(-1, ' ', true).substr(0, 80) : "nothing";
    refuse_with(ErrorCode::kBadFile,
                fmt::format("\"{}\": {} expected, found {}", key, expected, found));
  }
  void refuse_with(ErrorCode code, const std::string& sentence) {
    if (!error_) error_ = Error{code, fmt::format("{}: {}", source_, sentence)};
  }

 private:
  const Json& json_;
  std::string source_;
  std::optional<Error> error_;
};

void read_geometry(Fields& f, ModelConfig& c) {
  c.hidden_size = f.whole("hidden_size");
  c.intermediate_size = f.whole("intermediate_size");
  c.num_hidden_layers = f.whole("num_hidden_layers");
  c.num_attention_heads = f.whole("num_attention_heads");
  const bool mistral = c.architecture == "mistral";
  c.num_key_value_heads = f.whole_or("num_key_value_heads", mistral ? 8 : c.num_attention_heads);
  const int64_t heads = c.num_attention_heads;
  const bool even = heads > 0 && c.hidden_size % heads == 0;
  if (!f.has("head_dim") && heads > 0 && !even)
    f.refuse_with(
        ErrorCode::kBadFile,
        fmt::format("hidden_size {} is not a multiple of num_attention_heads {} and there is "
                    "no head_dim",
                    c.hidden_size, heads));
  c.head_dim =
      f.whole_or("head_dim", c.architecture == "qwen3" ? 128 : (even ? c.hidden_size / heads : 0));
  c.vocab_size = f.whole("vocab_size");
  c.max_position_embeddings = f.whole_or("max_position_embeddings", mistral ? 131072 : 32768);
  c.rms_norm_eps = f.real_or("rms_norm_eps", 1e-6);
  c.tie_word_embeddings = f.flag_or("tie_word_embeddings", false);
}

// What changes the function of the model and spear does not have is refused, never ignored.
void refuse_what_we_lack(Fields& f, const ModelConfig& c) {
  const auto lacks = [&](const std::string& sentence) {
    f.refuse_with(ErrorCode::kUnsupported, sentence);
  };
  if (f.has("quantization_config"))
    lacks("the weights are already quantized (\"quantization_config\"); give the original model");
  if (const std::string act = f.text_or("hidden_act", "silu"); act != "silu")
    lacks(fmt::format("hidden_act {}; spear knows silu", printable(act)));
  if (f.flag_or("mlp_bias", false)) lacks("mlp_bias: biases in the MLP are not read");
  if (f.flag_or("attention_bias", false) && c.architecture != "qwen2")
    lacks("attention_bias: a bias on the attention's output is not read");
  if (const double share = f.real_or("partial_rotary_factor", 1.0); share != 1.0)
    lacks(fmt::format("partial_rotary_factor {}; RoPE must cover the whole head", share));
  if (f.whole_or("num_local_experts", 0) > 0 || f.whole_or("num_experts", 0) > 0)
    lacks("a mixture of experts; spear reads dense models");
}

// A window on all layers or on none.
void read_window(Fields& f, ModelConfig& c) {
  if (c.architecture == "mistral") {
    c.sliding_window = f.whole_or("sliding_window", 0);
  } else if (c.architecture != "llama" && f.flag_or("use_sliding_window", false)) {
    if (f.whole_or("max_window_layers", 0) > 0)
      f.refuse_with(
          ErrorCode::kUnsupported,
          "a sliding window on some layers (max_window_layers); spear reads models with one "
          "on all layers or on none");
    c.sliding_window = f.whole_or("sliding_window", 0);
  }
}

void read_rope(Fields& f, ModelConfig& c) {
  c.rope_theta = f.real_or("rope_theta", 10000.0);
  const Json* newer = f.object("rope_parameters");
  const Json* object = newer != nullptr ? newer : f.object("rope_scaling");
  if (object == nullptr) return;
  Fields s(*object, f.source() + (newer != nullptr ? ": rope_parameters" : ": rope_scaling"));
  if (newer != nullptr) c.rope_theta = s.real_or("rope_theta", c.rope_theta);
  const std::string kind = s.text_or("rope_type", s.text_or("type", "default"));
  RopeScaling& out = c.rope_scaling;
  if (kind == "linear" || kind == "llama3") {
    out.kind = kind == "linear" ? RopeScalingKind::kLinear : RopeScalingKind::kLlama3;
    out.factor = s.real("factor");
  } else if (kind != "default") {
    s.refuse_with(
        ErrorCode::kUnsupported,
        fmt::format("{} is not known; spear knows default, linear and llama3", printable(kind)));
  }
  if (kind == "llama3") {
    out.low_freq_factor = s.real("low_freq_factor");
    out.high_freq_factor = s.real("high_freq_factor");
    out.original_max_position_embeddings = s.whole("original_max_position_embeddings");
  }
  if (s.error()) f.refuse_with(s.error()->code, s.error()->message.substr(f.source().size() + 2));
}

void add_tokens(Fields& f, ModelConfig& c) {
  const auto inside = [&](int64_t id, const char* key) {
    if (id >= 0 && id < c.vocab_size) return true;
    f.refuse_with(
        ErrorCode::kBadFile,
        fmt::format("\"{}\": token {} is outside the vocabulary of {}", key, id, c.vocab_size));
    return false;
  };
  for (const int64_t id : f.tokens("bos_token_id"))
    if (inside(id, "bos_token_id") && c.bos_token_id < 0) c.bos_token_id = static_cast<int32_t>(id);
  auto& ends = c.eos_token_ids;
  for (const int64_t id : f.tokens("eos_token_id"))
    if (inside(id, "eos_token_id") && std::find(ends.begin(), ends.end(), id) == ends.end())
      ends.push_back(static_cast<int32_t>(id));
}

Result<std::string> architecture_of(Fields& f) {
  const std::string type = f.text_or("model_type", "");
  if (f.error()) return tl::unexpected(*f.error());
  if (type.empty())
    return fail(ErrorCode::kBadFile, fmt::format("{}: \"model_type\" is missing; spear reads {}",
                                                 f.source(), known_architectures()));
  if (!is_known_architecture(type))
    return fail(ErrorCode::kUnsupported,
                fmt::format("{}: architecture {} is not known; spear reads {}", f.source(),
                            printable(type), known_architectures()));
  return type;
}

}  // namespace

Result<ModelConfig> config_from_hf_text(std::string_view text, std::string_view generation_text,
                                        std::string_view source) {
  const auto json = parse_json(text, source);
  if (!json) return tl::unexpected(json.error());
  if (!json->is_object())
    return fail(ErrorCode::kBadFile, fmt::format("{}: a JSON object expected", source));
  Fields f(*json, std::string(source));
  const auto architecture = architecture_of(f);
  if (!architecture) return tl::unexpected(architecture.error());
  ModelConfig c;
  c.architecture = *architecture;
  c.name = plain_name(f.text_or("_name_or_path", ""));
  c.attention_bias = c.architecture == "qwen2";
  c.qk_norm = c.architecture == "qwen3";
  read_geometry(f, c);
  refuse_what_we_lack(f, c);
  read_window(f, c);
  read_rope(f, c);
  if (f.error()) return tl::unexpected(*f.error());
  if (auto ok = validate(c, std::string(source)); !ok) return tl::unexpected(ok.error());
  // What generates text knows more ends of a turn than config.json does; it goes first.
  if (!generation_text.empty()) {
    const std::string name = "generation_config.json";
    const auto generation = parse_json(generation_text, name);
    if (!generation) return tl::unexpected(generation.error());
    if (!generation->is_object())
      return fail(ErrorCode::kBadFile, name + ": a JSON object expected");
    Fields g(*generation, name);
    add_tokens(g, c);
    if (g.error()) return tl::unexpected(*g.error());
  }
  add_tokens(f, c);
  if (f.error()) return tl::unexpected(*f.error());
  return c;
}

}  // namespace spear
