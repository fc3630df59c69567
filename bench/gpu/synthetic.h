// Decoders of well-known shapes with random weights, made on the device in the layout of the fused
// kernels: for timing, where values matter only in that they are random and finite.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "spear/backend/gpu/fused_decoder.h"

namespace spear::bench {

struct ModelShape {
  std::string name;
  int32_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocab;
};
std::vector<ModelShape> paper_shapes();  // 1B, 3B, 7B, 13B

enum class EcLayout : uint8_t {
  kNone,
  kRank2,    // rank 2 on all modules, no gate
  kGated16,  // rank 16 with a gate of 64 on 38 % of the modules, chosen by a seed over all kinds
};
const char* layout_name(EcLayout layout);

// Owns device memory; frees it all at once.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory();
  void* take(size_t bytes);
  template <class T>
  T* take_array(size_t count) {
    return static_cast<T*>(take(count * sizeof(T)));
  }

 private:
  std::vector<void*> blocks_;
};

// group: 0, 64 or 128 of the linear layers; head_bits: 4, 8 or 16.
FusedDecoder random_decoder(const ModelShape& shape, int32_t group, EcLayout layout,
                            int32_t head_bits, Memory& memory);
// A matrix whose every copy is distinct.
gpu::DeviceMatrix random_matrix(int32_t n, int32_t k, int32_t bits, int32_t group, Memory& memory);

// Random fills (fill.cu): whole words; f16 pairs (scale, zero) at a stride; values in ±range.
void fill_words(void* memory, size_t bytes, uint64_t seed);
void fill_pairs(void* first, int64_t count, int64_t per_block, int64_t block_stride, float scale,
                float zero);
void fill_halves(void* memory, int64_t count, float range, uint64_t seed);
void fill_floats(float* memory, int64_t count, float range, uint64_t seed);
// A kernel that does nothing but read `bytes`, with dependent launch: what streaming costs.
void read_bytes(const void* memory, size_t bytes, int32_t multiprocessors, gpu::Stream stream);

}  // namespace spear::bench
