// A quantized decoder compiled by a backend into one fused step: modules that share an input run as
// one, small operations live in their neighbours, and between two operations there is no more than
// a barrier. Decode, prefill and mixed batches are the same call. What a program computes is what
// the operations of backend.h compute one by one (model/decoder.cpp is the definition); only
// rounding differs, by the bounds of docs/numerics.md. Used by one thread at a time; works with the
// backend's threads or streams inside. step() allocates nothing once it has seen its largest batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "spear/kernels/attention.h"
#include "spear/kernels/decoder_ops.h"
#include "spear/kernels/w4_linear.h"

namespace spear {

// Host memory in the canonical layout; on a backend that shares the host's memory it must outlive
// the program where no packed copy is made.
struct ProgramLinear {
  QuantizedView weight;
  CompensatorView ec;           // rank 0: none
  const float* bias = nullptr;  // [n] or null
};

struct ProgramLayer {
  const float* input_norm = nullptr;           // [hidden], null: ones
  const float* post_attention_norm = nullptr;  // [hidden], null: ones
  const float* q_norm = nullptr;               // [head_dim], null: no norm of queries and keys
  const float* k_norm = nullptr;               // [head_dim]
  ProgramLinear q, k, v, o, gate, up, down;
};

struct DecoderSpec {
  int64_t hidden = 0, intermediate = 0, vocab = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  float norm_eps = 1e-5f;
  std::vector<ProgramLayer> layers;
  QuantizedView embedding;
  QuantizedView head;                          // the embedding's view again where tied
  const float* final_norm = nullptr;           // [hidden]
  const float* inverse_frequencies = nullptr;  // [head_dim / 2]
  RotationView rotation;                       // n = 0: the residual stream is not rotated
};

// How activations enter the integer products of a program.
enum class Activations : uint8_t {
  kInt8,   // 8 bits a token (or finer where a kernel needs it), the fast default
  kExact,  // at least 15 bits: the rounding of weights is all that is left
};

struct StepArgs {
  std::span<const int32_t> tokens;               // [m], host
  std::span<const AttentionSequence> sequences;  // cover all rows in order
  std::span<const KvLayerView> cache;            // one a layer
  std::span<const int32_t> logit_rows;  // rows of the batch whose logits are wanted, ascending
  std::span<const uint8_t> bare = {};   // [m], 1: no compensator runs for this row; empty: all do
  float* hidden = nullptr;              // [m, hidden] after the final norm on the backend, or null
  float* logits = nullptr;              // [logit_rows, vocab] on the backend, or null
};

class DecoderProgram {
 public:
  virtual ~DecoderProgram() = default;
  virtual void step(const StepArgs& args) = 0;
  // logits[rows, vocab] of hidden[rows, hidden] as step() gave them, both on the backend.
  virtual void logits(const float* hidden, int64_t rows, float* logits) = 0;
  // Whether StepArgs::bare is understood; where not, it must be empty.
  [[nodiscard]] virtual bool runs_bare_rows() const { return false; }
  // Kernels in use and modules that run through a plain path, one line for the log.
  [[nodiscard]] virtual std::string describe() const = 0;
  // Everything the program owns: packed weights, and scratch memory of the largest step so far.
  [[nodiscard]] virtual size_t weight_bytes() const = 0;
  [[nodiscard]] virtual size_t scratch_bytes() const = 0;
  // Bytes of weights, scales, compensators and head that one decode step of few tokens reads.
  [[nodiscard]] virtual size_t step_bytes() const = 0;
};

}  // namespace spear
