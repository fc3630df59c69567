// Any bytes as a safetensors file and as an index of shards: refused by a sentence, or the tensors
// fill the data.
#include <cstdlib>
#include <string_view>

#include "spear/formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spear;
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto tensors = parse_safetensors(bytes, "fuzz");
  if (tensors) {
    const std::byte* next = tensors->empty() ? bytes.data() + size : tensors->front().bytes.data();
    for (const SafetensorsTensor& tensor : *tensors) {
      const auto expected =
          static_cast<size_t>(tensor.shape.count() * info_of(tensor.type).block_bytes);
      if (tensor.bytes.data() != next || tensor.bytes.size() != expected) std::abort();
      next += expected;
    }
    if (next != bytes.data() + size) std::abort();
  }
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto index = parse_safetensors_index(text, "fuzz");
  if (index)
    for (const SafetensorsIndexEntry& entry : *index)
      if (entry.shard.find_first_of("/\\") != std::string::npos || entry.shard[0] == '.')
        std::abort();
  return 0;
}
