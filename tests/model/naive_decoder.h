// A decoder in plain double loops, written from the equations of the architecture and sharing no
// code with the product: what the product's forward pass is compared with. One sequence at a time,
// no cache.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "spear/model/dense_model.h"

namespace spear::test {

using Rows = std::vector<std::vector<double>>;

inline double element(const HostTensor& t, int64_t i) {
  return t.dtype() == DType::kBF16
             ? static_cast<double>(float_from_bf16(t.as<uint16_t>()[static_cast<size_t>(i)]))
             : static_cast<double>(t.as<float>()[static_cast<size_t>(i)]);
}

inline std::vector<double> apply_linear(const DenseLinear& linear, const std::vector<double>& x) {
  const auto n = linear.weight.shape()[0];
  const auto k = linear.weight.shape()[1];
  std::vector<double> y(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    double sum = linear.bias.empty() ? 0.0 : element(linear.bias, i);
    for (int64_t j = 0; j < k; ++j)
      sum += element(linear.weight, i * k + j) * x[static_cast<size_t>(j)];
    y[static_cast<size_t>(i)] = sum;
  }
  return y;
}

inline void normalize(const HostTensor& weight, double eps, double* x, int64_t n) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += x[i] * x[i];
  const double inverse = 1 / std::sqrt(squares / static_cast<double>(n) + eps);
  for (int64_t i = 0; i < n; ++i) x[i] *= inverse * element(weight, i);
}

inline void rotate_heads(const ModelConfig& c, int64_t position, std::vector<double>& x) {
  for (size_t head = 0; head < x.size(); head += static_cast<size_t>(c.head_dim))
    for (int64_t j = 0; j < c.head_dim / 2; ++j) {
      const double angle =
          static_cast<double>(position) *
          std::pow(c.rope_theta, -2.0 * static_cast<double>(j) / static_cast<double>(c.head_dim));
      double& low = x[head + static_cast<size_t>(j)];
      double& high = x[head + static_cast<size_t>(j + c.head_dim / 2)];
      const double a = low;
      const double b = high;
      low = a * std::cos(angle) - b * std::sin(angle);
      high = b * std::cos(angle) + a * std::sin(angle);
    }
}

// Hidden states after the final norm, [tokens][hidden].
inline Rows naive_hidden(const DenseModel& model, std::span<const int32_t> tokens) {
  const ModelConfig& c = model.config;
  const auto d = static_cast<size_t>(c.head_dim);
  const auto group = static_cast<size_t>(c.num_attention_heads / c.num_key_value_heads);
  Rows x;
  for (const int32_t token : tokens) {
    std::vector<double>& row = x.emplace_back();
    for (int64_t j = 0; j < c.hidden_size; ++j)
      row.push_back(element(model.embedding, token * c.hidden_size + j));
  }
  for (const DenseLayer& layer : model.layers) {
    Rows q, k, v;
    for (size_t t = 0; t < x.size(); ++t) {
      std::vector<double> normed = x[t];
      normalize(layer.input_norm, c.rms_norm_eps, normed.data(), c.hidden_size);
      q.push_back(apply_linear(layer.linear(Module::kQ), normed));
      k.push_back(apply_linear(layer.linear(Module::kK), normed));
      v.push_back(apply_linear(layer.linear(Module::kV), normed));
      if (c.qk_norm) {
        for (size_t h = 0; h < q[t].size(); h += d)
          normalize(layer.q_norm, c.rms_norm_eps, q[t].data() + h, c.head_dim);
        for (size_t h = 0; h < k[t].size(); h += d)
          normalize(layer.k_norm, c.rms_norm_eps, k[t].data() + h, c.head_dim);
      }
      rotate_heads(c, static_cast<int64_t>(t), q[t]);
      rotate_heads(c, static_cast<int64_t>(t), k[t]);
    }
    for (size_t t = 0; t < x.size(); ++t) {
      std::vector<double> attended(q[t].size(), 0.0);
      for (size_t h = 0; h < q[t].size() / d; ++h) {
        std::vector<double> weight;
        double sum = 0;
        for (size_t s = 0; s <= t; ++s) {
          double score = 0;
          for (size_t j = 0; j < d; ++j) score += q[t][h * d + j] * k[s][h / group * d + j];
          weight.push_back(std::exp(score / std::sqrt(static_cast<double>(d))));
          sum += weight.back();
        }
        for (size_t s = 0; s <= t; ++s)
          for (size_t j = 0; j < d; ++j)
            attended[h * d + j] += weight[s] / sum * v[s][h / group * d + j];
      }
      const std::vector<double> out = apply_linear(layer.linear(Module::kO), attended);
      for (size_t j = 0; j < out.size(); ++j) x[t][j] += out[j];
      std::vector<double> normed = x[t];
      normalize(layer.post_attention_norm, c.rms_norm_eps, normed.data(), c.hidden_size);
      std::vector<double> gate = apply_linear(layer.linear(Module::kGate), normed);
      const std::vector<double> up = apply_linear(layer.linear(Module::kUp), normed);
      for (size_t j = 0; j < gate.size(); ++j) gate[j] = gate[j] / (1 + std::exp(-gate[j])) * up[j];
      const std::vector<double> down = apply_linear(layer.linear(Module::kDown), gate);
      for (size_t j = 0; j < down.size(); ++j) x[t][j] += down[j];
    }
  }
  for (std::vector<double>& row : x)
    normalize(model.final_norm, c.rms_norm_eps, row.data(), c.hidden_size);
  return x;
}

inline std::vector<double> naive_logits(const DenseModel& model,
                                        const std::vector<double>& hidden) {
  const HostTensor& head = model.head_weight();
  std::vector<double> out;
  for (int64_t v = 0; v < model.config.vocab_size; ++v) {
    double sum = 0;
    for (int64_t j = 0; j < model.config.hidden_size; ++j)
      sum += element(head, v * model.config.hidden_size + j) * hidden[static_cast<size_t>(j)];
    out.push_back(sum);
  }
  return out;
}

}  // namespace spear::test
