// Tiny quantized models with everything that a compressed one may have: groups, zero kinds,
// compensators of both factor widths with and without gates, biases, a rotation, heads of 4, 8 and
// 16 bits.
#pragma once

#include "spear/model/quantized_model.h"

#include "support/tiny_model.h"

namespace spear::test {

struct CompressedShape {
  TinyShape model;
  int32_t bits = 4, group = 0;  // 0: per channel
  ZeroKind zero_kind = ZeroKind::kU8;
  int32_t head_bits = 8;  // of the embedding, too, where tied; 16: BF16
  bool rotated = false;
  int32_t rank = 0;  // of every second module, 1 less each third; 0: no compensators
  int32_t factor_bits = 8;
  bool gated = false;
};

QuantizedModel tiny_compressed(const CompressedShape& shape, uint64_t seed = 1);

}  // namespace spear::test
