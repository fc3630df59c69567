// Any bytes as a .spear file, and the same with the checksums made right, so that what stands
// behind them is reached: refused by a sentence, or every section and tensor lies inside the file.
#include <cstdlib>

#include "spear/formats/artifact.h"
#include "spear/formats/artifact_layout.h"

#include "repair_artifact.h"

namespace {

using namespace spear;
using namespace artifact_layout;

void check(std::span<const std::byte> bytes) {
  const auto index = parse_artifact(bytes, "fuzz");
  if (!index) {
    if (index.error().message.empty()) std::abort();
    return;
  }
  const auto inside = [](std::span<const std::byte> part, std::span<const std::byte> whole) {
    return part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size();
  };
  for (const ArtifactSection& section : index->sections)
    if (!inside(section.bytes, bytes)) std::abort();
  for (const ArtifactTensor& tensor : index->tensors)
    if (!inside(tensor.bytes, bytes) ||
        tensor_bytes(tensor.dtype, tensor.shape) != static_cast<int64_t>(tensor.bytes.size()))
      std::abort();
  (void)verify_artifact(*index, bytes, "fuzz");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  check(bytes);
  check(fuzz::repaired_artifact(bytes));
  return 0;
}
