#include "spear/eval/evaluate.h"

namespace spear {
namespace {

uint64_t weight_count(const ModelConfig& config) {
  uint64_t each = 0;
  for (const Module module : kModules)
    each += static_cast<uint64_t>(out_features(config, module) * in_features(config, module));
  return each * static_cast<uint64_t>(config.num_hidden_layers);
}

double bits_of(const ByteParts& linears, const ModelConfig& config) {
  const uint64_t stored =
      linears.weights + linears.scales + linears.zeros + linears.compensators + linears.biases;
  return static_cast<double>(stored) * 8 / static_cast<double>(weight_count(config));
}

}  // namespace

ByteParts bytes_of(const QuantizedModel& model) {
  const ByteCount count = count_bytes(model);
  return {.total = count.total(),
          .weights = count.weights,
          .scales = count.scales,
          .zeros = count.zeros,
          .compensators = count.compensators,
          .biases = count.biases,
          .norms = count.norms,
          .embedding = count.embedding,
          .head = count.head,
          .other = count.other};
}

ByteParts bytes_of(const DenseModel& model) {
  ByteParts parts;
  for (const DenseLayer& layer : model.layers) {
    parts.norms += layer.input_norm.bytes() + layer.post_attention_norm.bytes() +
                   layer.q_norm.bytes() + layer.k_norm.bytes();
    for (const DenseLinear& linear : layer.linears) {
      parts.weights += linear.weight.bytes();
      parts.biases += linear.bias.bytes();
    }
  }
  parts.norms += model.final_norm.bytes();
  parts.embedding = model.embedding.bytes();
  parts.head = model.head.bytes();
  parts.total = parts.weights + parts.biases + parts.norms + parts.embedding + parts.head;
  return parts;
}

double bits_per_weight(const QuantizedModel& model) {
  return bits_of(bytes_of(model), model.config);
}
double bits_per_weight(const DenseModel& model) {
  return bits_of(bytes_of(model), model.config);
}

}  // namespace spear
