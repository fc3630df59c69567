// Small random decoders, the same on every machine: what tests of the model and the workshops run
// on.
#pragma once

#include <cstdint>

#include "spear/model/dense_model.h"
#include "spear/model/quantized_model.h"

namespace spear::test {

struct TinyShape {
  int64_t hidden_size = 24;  // 3 · 8: not a power of two, as SmolLM2's 576 = 9 · 64
  int64_t intermediate_size = 40;
  int64_t num_hidden_layers = 2;
  int64_t num_attention_heads = 4;
  int64_t num_key_value_heads = 2;
  int64_t head_dim = 8;
  int64_t vocab_size = 48;
  int64_t max_position_embeddings = 128;
  bool tied = true;
  bool attention_bias = false;
  bool qk_norm = false;
};

ModelConfig tiny_config(const TinyShape& shape = {});
// Weights normal with deviation 1/√k, norms near 1, so that activations stay of order one. F32 or
// BF16.
DenseModel tiny_model(const TinyShape& shape = {}, uint64_t seed = 1, DType dtype = DType::kF32);
// Every matrix rounded to `bits` per channel with real zero points: a student without a quantizer.
// Not rotated.
QuantizedModel tiny_quantized(const DenseModel& dense, int32_t bits = 8);

}  // namespace spear::test
