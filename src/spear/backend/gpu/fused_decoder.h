// A decoder in device memory as its fused step reads it, and the step itself: four products a layer
// (q k v; o; gate up; down), attention between the first two, one kernel at either end. Plain
// pointers: whoever made them owns them. queue_decode_step() puts kernels into a stream, so it may
// be captured into a graph; it allocates nothing and waits for nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "spear/kernels/gpu/decode_step.h"
#include "spear/kernels/gpu/rows.h"

namespace spear {

struct FusedProduct {
  gpu::DeviceMatrix w;
  gpu::DeviceCompensators ec = {};
  const int8_t* a = nullptr;    // [k, ec.width], for the kernel that makes this product's input
  const float* bias = nullptr;  // [n] in packed order, or null
};

struct FusedLayer {
  const float* input_norm = nullptr;           // [hidden] or null: ones
  const float* post_attention_norm = nullptr;  // [hidden] or null
  const float* q_norm = nullptr;               // [head_dim] or null
  const float* k_norm = nullptr;
  FusedProduct qkv, o, gate_up, down;
};

struct FusedDecoder {
  int32_t hidden = 0, intermediate = 0, vocab = 0, heads = 0, kv_heads = 0, head_dim = 0;
  float eps = 0;
  std::vector<FusedLayer> layers;
  QuantizedView embedding;  // canonical layout on the device
  gpu::DeviceMatrix head;
  const float* final_norm = nullptr;           // [hidden] or null
  const float* inverse_frequencies = nullptr;  // [head_dim / 2]
  RotationView rotation;                       // n = 0: none
};

// Scratch memory of a step of m rows.
struct StepBuffers {
  float* x = nullptr;             // [m, hidden]
  float* qkv = nullptr;           // [m, (heads + 2 kv_heads) head_dim]
  uint16_t* attended = nullptr;   // f16 [m, heads head_dim]
  uint16_t* activated = nullptr;  // f16 [m, intermediate]
  uint16_t* normed = nullptr;     // f16 [m, hidden]
  float* angles = nullptr;        // [m, head_dim]
  // Partial sums of u for the input of q k v, o, gate up and down: [m, parts, width]
  float* partials[4] = {};
};

// The same numbers twice: bytes to allocate for m rows, then the buffers within them.
size_t step_buffer_bytes(const FusedDecoder& decoder, int32_t m, int32_t multiprocessors);
StepBuffers place_step_buffers(const FusedDecoder& decoder, int32_t m, int32_t multiprocessors,
                               void* memory);

struct DecodeStepArgs {
  int32_t m = 0;
  gpu::StepTables tables;
  const KvLayerView* cache = nullptr;   // [layers], host
  const int32_t* logit_rows = nullptr;  // [logit_count], device
  int32_t logit_count = 0;
  float* hidden = nullptr;  // [logit_count, hidden] after the final norm, or null
  float* logits = nullptr;  // [logit_count, vocab] or null
  bool attention = true;    // false: products alone, to time them
};
void queue_decode_step(const FusedDecoder& decoder, const StepBuffers& buffers,
                       const DecodeStepArgs& args, int32_t multiprocessors, gpu::Stream stream);

// logits[rows, vocab] of normed[rows, hidden] in f16.
void queue_head(const FusedDecoder& decoder, const uint16_t* normed, int32_t rows, float* logits,
                int32_t multiprocessors, gpu::Stream stream);

// Bytes of weights, scales and compensators that one step of few tokens reads.
size_t product_bytes(const FusedProduct& product);
size_t matrix_bytes(const gpu::DeviceMatrix& matrix);

}  // namespace spear
