// A full-precision decoder in host memory: what importers deliver and the workshops read. Weights
// are BF16 or F32, [out, in] row-major; norms and biases F32. No device, no threads: plain data.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "spear/base/host_tensor.h"
#include "spear/model/config.h"
#include "spear/model/modules.h"

namespace spear {

struct DenseLinear {
  HostTensor weight;  // [n, k] bf16 or f32
  HostTensor bias;    // [n] f32, or empty
};

struct DenseLayer {
  HostTensor input_norm;           // [hidden] f32, before attention
  HostTensor post_attention_norm;  // [hidden] f32, before the MLP
  HostTensor q_norm;               // [head_dim] f32, or empty
  HostTensor k_norm;               // [head_dim] f32, or empty
  std::array<DenseLinear, kModulesPerLayer> linears;
  [[nodiscard]] const DenseLinear& linear(Module m) const {
    return linears[static_cast<size_t>(m)];
  }
  [[nodiscard]] DenseLinear& linear(Module m) { return linears[static_cast<size_t>(m)]; }
};

struct DenseModel {
  ModelConfig config;
  HostTensor embedding;   // [vocab, hidden] bf16 or f32
  HostTensor head;        // [vocab, hidden], empty when tied to the embedding
  HostTensor final_norm;  // [hidden] f32
  std::vector<DenseLayer> layers;
  std::string content_hash;  // sha256 of the files it came from: names caches, stands in artifacts

  [[nodiscard]] const HostTensor& head_weight() const { return head.empty() ? embedding : head; }
};

}  // namespace spear
