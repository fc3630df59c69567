#include "support/tiny_model.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "spear/base/rng.h"

namespace spear::test {
namespace {

HostTensor random_tensor(Shape shape, DType dtype, float mean, float deviation, Rng& rng) {
  HostTensor tensor(shape, dtype);
  for (int64_t i = 0; i < shape.count(); ++i) {
    const auto value = mean + deviation * static_cast<float>(rng.normal());
    if (dtype == DType::kBF16)
      tensor.as<uint16_t>()[static_cast<size_t>(i)] = bf16_from_float(value);
    else
      tensor.as<float>()[static_cast<size_t>(i)] = value;
  }
  return tensor;
}

std::vector<float> floats_of(const HostTensor& tensor) {
  std::vector<float> out(static_cast<size_t>(tensor.count()));
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = tensor.dtype() == DType::kBF16 ? float_from_bf16(tensor.as<uint16_t>()[i])
                                            : tensor.as<float>()[i];
  return out;
}

QuantizedMatrix round_rows(const HostTensor& weight, int32_t bits) {
  UnpackedMatrix m;
  m.n = static_cast<int32_t>(weight.shape()[0]);
  m.k = static_cast<int32_t>(weight.shape()[1]);
  m.bits = bits;
  m.group = m.k;
  const std::vector<float> values = floats_of(weight);
  const auto top = static_cast<float>((1 << bits) - 1);
  for (int32_t i = 0; i < m.n; ++i) {
    const float* row = values.data() + int64_t{i} * m.k;
    const auto [low, high] = std::minmax_element(row, row + m.k);
    const float scale = float_from_f16(f16_from_float((*high - *low) / top));
    const float zero = float_from_f16(f16_from_float(-*low / scale));
    m.scales.push_back(scale);
    m.zeros.push_back(zero);
    for (int32_t j = 0; j < m.k; ++j)
      m.codes.push_back(
          static_cast<uint8_t>(std::clamp(std::nearbyint(row[j] / scale + zero), 0.0f, top)));
  }
  return pack(m, ZeroKind::kF16);
}

HostTensor to_f16(const HostTensor& from) {
  if (from.empty()) return {};
  HostTensor out(from.shape(), DType::kF16);
  for (size_t i = 0; i < static_cast<size_t>(from.count()); ++i)
    out.as<uint16_t>()[i] = f16_from_float(from.as<float>()[i]);
  return out;
}

}  // namespace

ModelConfig tiny_config(const TinyShape& shape) {
  ModelConfig c;
  c.architecture = shape.qk_norm ? "qwen3" : shape.attention_bias ? "qwen2" : "llama";
  c.name = "tiny";
  c.hidden_size = shape.hidden_size;
  c.intermediate_size = shape.intermediate_size;
  c.num_hidden_layers = shape.num_hidden_layers;
  c.num_attention_heads = shape.num_attention_heads;
  c.num_key_value_heads = shape.num_key_value_heads;
  c.head_dim = shape.head_dim;
  c.vocab_size = shape.vocab_size;
  c.max_position_embeddings = shape.max_position_embeddings;
  c.tie_word_embeddings = shape.tied;
  c.attention_bias = shape.attention_bias;
  c.qk_norm = shape.qk_norm;
  c.bos_token_id = 1;
  c.eos_token_ids = {2};
  return c;
}

DenseModel tiny_model(const TinyShape& shape, uint64_t seed, DType dtype) {
  Rng rng(seed);
  DenseModel model;
  model.config = tiny_config(shape);
  const ModelConfig& c = model.config;
  const auto matrix = [&](int64_t n, int64_t k) {
    return random_tensor({n, k}, dtype, 0, 1 / std::sqrt(static_cast<float>(k)), rng);
  };
  const auto norm = [&](int64_t n) { return random_tensor({n}, DType::kF32, 1, 0.2f, rng); };
  model.embedding = random_tensor({c.vocab_size, c.hidden_size}, dtype, 0, 1, rng);
  if (!shape.tied) model.head = matrix(c.vocab_size, c.hidden_size);
  model.final_norm = norm(c.hidden_size);
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    DenseLayer& layer = model.layers.emplace_back();
    layer.input_norm = norm(c.hidden_size);
    layer.post_attention_norm = norm(c.hidden_size);
    if (c.qk_norm) {
      layer.q_norm = norm(c.head_dim);
      layer.k_norm = norm(c.head_dim);
    }
    for (const Module module : kModules) {
      DenseLinear& linear = layer.linear(module);
      linear.weight = matrix(out_features(c, module), in_features(c, module));
      if (c.attention_bias && input_site(module) == InputSite::kAttention)
        linear.bias = random_tensor({out_features(c, module)}, DType::kF32, 0, 0.3f, rng);
    }
  }
  model.content_hash = "tiny-" + std::to_string(seed);
  return model;
}

QuantizedModel tiny_quantized(const DenseModel& dense, int32_t bits) {
  QuantizedModel model;
  model.config = dense.config;
  model.embedding = keep_bf16(dense.embedding.view());
  if (!dense.head.empty()) model.head = keep_bf16(dense.head.view());
  model.final_norm = dense.final_norm.clone();
  for (const DenseLayer& from : dense.layers) {
    QuantizedLayer& layer = model.layers.emplace_back();
    layer.input_norm = to_f16(from.input_norm);
    layer.post_attention_norm = to_f16(from.post_attention_norm);
    layer.q_norm = from.q_norm.clone();
    layer.k_norm = from.k_norm.clone();
    for (const Module module : kModules) {
      layer.linear(module).weight = round_rows(from.linear(module).weight, bits);
      layer.linear(module).bias = to_f16(from.linear(module).bias);
    }
  }
  return model;
}

}  // namespace spear::test
