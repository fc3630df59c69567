// Scratch memory of a compiled step: what all threads share, and what each has for itself. Grows to
// the largest batch seen, between steps; never inside one.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "spear/backend/cpu/program_layout.h"
#include "spear/base/host_buffer.h"
#include "spear/kernels/cpu/simd/simd.h"

namespace spear {

// Room for quantized tokens of any job of a layout.
class TokenMemory {
 public:
  // Returns false where the room was there already.
  bool reserve(const ProgramLayout& layout, int64_t tokens);
  [[nodiscard]] cpu::QuantizedTokens of(const Job& job) const;
  [[nodiscard]] size_t bytes() const { return memory_.bytes(); }

 private:
  HostBuffer memory_;
  int64_t tokens_ = 0;
  cpu::QuantizedTokens all_;
};

struct ThreadMemory {
  TokenMemory tokens;
  HostBuffer h;            // [own tokens at a time, intermediate]
  HostBuffer u;            // [own tokens at a time, rows of A]
  HostBuffer rank_panels;  // of the four jobs of a layer, for many tokens
  HostBuffer scratch;      // of rotation
};

struct SharedMemory {
  TokenMemory tokens;
  HostBuffer x;         // [m, hidden] the residual stream
  HostBuffer q, kv;     // [m, heads * head_dim], [m, 2 * kv_heads * head_dim]: keys, then values
  HostBuffer attended;  // [m, heads * head_dim]
  HostBuffer h;         // [m, intermediate], where threads share tokens
  HostBuffer u;         // [m, rows of A], likewise
  HostBuffer wanted;    // [rows, hidden] whose logits are wanted, after the final norm
  HostBuffer angles;    // [m, head_dim] cosines, sines
  std::vector<int32_t> positions;              // [m]
  std::vector<int64_t> slots;                  // [m] page · page_size + place
  std::atomic<int64_t> next_item[2] = {0, 0};  // of even and odd layers
};

}  // namespace spear
