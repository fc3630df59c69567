// Packs a decoder's host weights into the layout of the fused GPU kernels and copies them to the
// device. Owns the device memory.
#pragma once

#include <string>
#include <vector>

#include "spear/backend/backend.h"
#include "spear/backend/decoder_program.h"
#include "spear/backend/gpu/fused_decoder.h"

namespace spear {

class ProgramWeights {
 public:
  // False where something has no fused form; `why` then names it. Throws Failure where device
  // memory does not suffice.
  bool load(const DecoderSpec& spec, Backend& backend, std::string* why);

  [[nodiscard]] const FusedDecoder& decoder() const { return decoder_; }
  [[nodiscard]] size_t bytes() const { return bytes_; }
  // Modules whose codes have no packed layout and are kept as f16 values.
  [[nodiscard]] int32_t expanded() const { return expanded_; }

 private:
  template <class T>
  const T* put(const T* host, size_t count);
  template <class T>
  const T* put(const std::vector<T>& host) {
    return host.empty() ? nullptr : put(host.data(), host.size());
  }
  bool product(std::vector<const ProgramLinear*> parts, bool interleaved, const std::string& name,
               FusedProduct* out, std::string* why);

  Backend* backend_ = nullptr;
  std::vector<DeviceBuffer> buffers_;
  FusedDecoder decoder_;
  size_t bytes_ = 0;
  int32_t expanded_ = 0;
};

}  // namespace spear
