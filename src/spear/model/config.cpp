#include "spear/model/config.h"

#include <cmath>
#include <numbers>

#include <fmt/format.h>

#include "spear/base/json.h"

namespace spear {
namespace {

constexpr int64_t kMaxExtent = int64_t{1}
                               << 24;  // of any one size: products of two stay far inside int64

tl::unexpected<Error> bad(const std::string& source, const std::string& what) {
  return fail(ErrorCode::kBadFile, fmt::format("{}: {}", source, what));
}

struct NamedExtent {
  const char* name;
  int64_t value;
};

bool positive_real(double value) {
  return std::isfinite(value) && value > 0;
}

}  // namespace

Result<void> validate(const ModelConfig& c, const std::string& source) {
  const NamedExtent extents[] = {{"hidden_size", c.hidden_size},
                                 {"intermediate_size", c.intermediate_size},
                                 {"num_hidden_layers", c.num_hidden_layers},
                                 {"num_attention_heads", c.num_attention_heads},
                                 {"num_key_value_heads", c.num_key_value_heads},
                                 {"head_dim", c.head_dim},
                                 {"vocab_size", c.vocab_size},
                                 {"max_position_embeddings", c.max_position_embeddings}};
  for (const NamedExtent& e : extents)
    if (e.value < 1 || e.value > kMaxExtent)
      return bad(source, fmt::format("{} is {}, expected 1 to {}", e.name, e.value, kMaxExtent));
  if (c.num_hidden_layers > 1024)
    return bad(source,
               fmt::format("num_hidden_layers is {}, expected at most 1024", c.num_hidden_layers));
  if (c.num_attention_heads % c.num_key_value_heads != 0)
    return bad(source,
               fmt::format("num_attention_heads {} is not a multiple of num_key_value_heads {}",
                           c.num_attention_heads, c.num_key_value_heads));
  if (c.head_dim % 2 != 0 || c.head_dim > 1024)
    return bad(source,
               fmt::format("head_dim is {}, expected an even number up to 1024", c.head_dim));
  if (c.q_size() > kMaxExtent)
    return bad(source, fmt::format("num_attention_heads {} x head_dim {} is too large",
                                   c.num_attention_heads, c.head_dim));
  if (!std::isfinite(c.rms_norm_eps) || c.rms_norm_eps < 0 || c.rms_norm_eps > 1)
    return bad(source, fmt::format("rms_norm_eps is {}, expected 0 to 1", c.rms_norm_eps));
  if (!positive_real(c.rope_theta))
    return bad(source, fmt::format("rope_theta is {}, expected a positive number", c.rope_theta));
  const RopeScaling& s = c.rope_scaling;
  if (s.kind != RopeScalingKind::kNone && !positive_real(s.factor))
    return bad(source,
               fmt::format("rope_scaling factor is {}, expected a positive number", s.factor));
  if (s.kind == RopeScalingKind::kLlama3 &&
      (!positive_real(s.low_freq_factor) || !positive_real(s.high_freq_factor) ||
       s.high_freq_factor <= s.low_freq_factor || s.original_max_position_embeddings < 1))
    return bad(
        source,
        fmt::format("rope_scaling llama3 has low_freq_factor {}, high_freq_factor {}, "
                    "original_max_position_embeddings {}; expected 0 < low < high and >= 1",
                    s.low_freq_factor, s.high_freq_factor, s.original_max_position_embeddings));
  if (!c.rope_factors.empty() && static_cast<int64_t>(c.rope_factors.size()) != c.head_dim / 2)
    return bad(source, fmt::format("rope factors: {} values, expected head_dim / 2 = {}",
                                   c.rope_factors.size(), c.head_dim / 2));
  for (const float f : c.rope_factors)
    if (!positive_real(f))
      return bad(source, fmt::format("a rope factor is {}, expected positive", f));
  if (c.sliding_window < 0)
    return bad(source, fmt::format("sliding_window is {}, expected 0 or more", c.sliding_window));
  return {};
}

std::string to_json_text(const ModelConfig& c) {
  Json json = {{"architecture", c.architecture},
               {"name", c.name},
               {"hidden_size", c.hidden_size},
               {"intermediate_size", c.intermediate_size},
               {"num_hidden_layers", c.num_hidden_layers},
               {"num_attention_heads", c.num_attention_heads},
               {"num_key_value_heads", c.num_key_value_heads},
               {"head_dim", c.head_dim},
               {"vocab_size", c.vocab_size},
               {"max_position_embeddings", c.max_position_embeddings},
               {"sliding_window", c.sliding_window},
               {"rms_norm_eps", c.rms_norm_eps},
               {"rope_theta", c.rope_theta},
               {"tie_word_embeddings", c.tie_word_embeddings},
               {"attention_bias", c.attention_bias},
               {"qk_norm", c.qk_norm},
               {"bos_token_id", c.bos_token_id},
               {"eos_token_ids", c.eos_token_ids}};
  const RopeScaling& s = c.rope_scaling;
  if (s.kind == RopeScalingKind::kLinear)
    json["rope_scaling"] = {{"rope_type", "linear"}, {"factor", s.factor}};
  if (s.kind == RopeScalingKind::kLlama3)
    json["rope_scaling"] = {
        {"rope_type", "llama3"},
        {"factor", s.factor},
        {"low_freq_factor", s.low_freq_factor},
        {"high_freq_factor", s.high_freq_factor},
        {"original_max_position_embeddings", s.original_max_position_embeddings}};
  if (!c.rope_factors.empty()) json["rope_factors"] = c.rope_factors;
  return json.dump();
}

namespace {

// Reads one field into `out`; false when it is missing or of another type.
template <class T>
bool take(const Json& json, const char* key, T& out) {
  const auto it = json.find(key);
  if (it == json.end()) return false;
  if constexpr (std::is_same_v<T, std::string>) {
    if (!it->is_string()) return false;
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!it->is_boolean()) return false;
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!it->is_number()) return false;
  } else if constexpr (std::is_integral_v<T>) {
    if (!it->is_number_integer()) return false;
  } else {
    if (!it->is_array()) return false;
    for (const Json& item : *it)
      if (!item.is_number()) return false;
  }
  out = it->get<T>();
  return true;
}

bool take_scaling(const Json& json, RopeScaling& s) {
  std::string type;
  if (!take(json, "rope_type", type)) return false;
  if (type == "linear") {
    s.kind = RopeScalingKind::kLinear;
    return take(json, "factor", s.factor);
  }
  s.kind = RopeScalingKind::kLlama3;
  return type == "llama3" && take(json, "factor", s.factor) &&
         take(json, "low_freq_factor", s.low_freq_factor) &&
         take(json, "high_freq_factor", s.high_freq_factor) &&
         take(json, "original_max_position_embeddings", s.original_max_position_embeddings);
}

}  // namespace

Result<ModelConfig> config_from_json_text(std::string_view text, std::string_view source) {
  Result<Json> parsed = parse_json(text, source);
  if (!parsed) return tl::unexpected(parsed.error());
  const Json& json = *parsed;
  const std::string where(source);
  if (!json.is_object()) return bad(where, "expected an object");
  ModelConfig c;
  const char* wrong = nullptr;
  const auto need = [&](const char* key, auto& out) {
    if (wrong == nullptr && !take(json, key, out)) wrong = key;
  };
  need("architecture", c.architecture);
  need("name", c.name);
  need("hidden_size", c.hidden_size);
  need("intermediate_size", c.intermediate_size);
  need("num_hidden_layers", c.num_hidden_layers);
  need("num_attention_heads", c.num_attention_heads);
  need("num_key_value_heads", c.num_key_value_heads);
  need("head_dim", c.head_dim);
  need("vocab_size", c.vocab_size);
  need("max_position_embeddings", c.max_position_embeddings);
  need("sliding_window", c.sliding_window);
  need("rms_norm_eps", c.rms_norm_eps);
  need("rope_theta", c.rope_theta);
  need("tie_word_embeddings", c.tie_word_embeddings);
  need("attention_bias", c.attention_bias);
  need("qk_norm", c.qk_norm);
  need("bos_token_id", c.bos_token_id);
  need("eos_token_ids", c.eos_token_ids);
  if (json.contains("rope_factors")) need("rope_factors", c.rope_factors);
  if (wrong != nullptr)
    return bad(where, fmt::format("field '{}' is missing or of the wrong type", wrong));
  if (json.contains("rope_scaling") && !take_scaling(json["rope_scaling"], c.rope_scaling))
    return bad(where, "field 'rope_scaling' is not one of linear, llama3 with its numbers");
  if (Result<void> ok = validate(c, where); !ok) return tl::unexpected(ok.error());
  return c;
}

// Llama 3's smoothing between kept and divided frequencies follows the published reference of the
// model.
std::vector<float> rope_inverse_frequencies(const ModelConfig& c) {
  std::vector<float> out(static_cast<size_t>(c.head_dim / 2));
  const RopeScaling& s = c.rope_scaling;
  for (size_t i = 0; i < out.size(); ++i) {
    double f =
        std::pow(c.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(c.head_dim));
    if (s.kind == RopeScalingKind::kLinear) f /= s.factor;
    if (s.kind == RopeScalingKind::kLlama3) {
      const double wavelength = 2 * std::numbers::pi / f;
      const auto original = static_cast<double>(s.original_max_position_embeddings);
      const double smooth =
          (original / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
      if (wavelength > original / s.low_freq_factor)
        f /= s.factor;
      else if (wavelength >= original / s.high_freq_factor)
        f = (1 - smooth) * f / s.factor + smooth * f;
    }
    if (!c.rope_factors.empty()) f /= static_cast<double>(c.rope_factors[i]);
    out[i] = static_cast<float>(f);
  }
  return out;
}

}  // namespace spear
