// Any bytes as a GGUF file: refused by a sentence, or every value and every row of every tensor can
// be read.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "spear/formats/gguf.h"

namespace {

using namespace spear;

void read_value(const GgufValue& value) {
  (void)value.as_integer();
  (void)value.as_real();
  (void)value.as_bool();
  (void)value.as_text();
  for (const uint64_t index : {uint64_t{0}, value.count / 2, value.count - 1, value.count}) {
    (void)value.integer_at(index);
    (void)value.real_at(index);
  }
  for (const GgufValue& inner : value.arrays) read_value(inner);
}

void read_tensor(const GgufTensor& tensor) {
  const int64_t columns = tensor.shape[tensor.shape.rank() - 1];
  const int64_t rows = tensor.shape.count() / columns;
  const int64_t stride = row_bytes(tensor.type, columns);
  if (static_cast<uint64_t>(rows * stride) != tensor.bytes.size()) std::abort();
  std::vector<float> values(static_cast<size_t>(columns));
  for (int64_t row = 0; row < rows; ++row)
    dequantize_rows(tensor.type, 1, columns, tensor.bytes.data() + row * stride, values.data());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto index = parse_gguf(std::as_bytes(std::span(data, size)), "fuzz");
  if (!index) {
    if (index.error().message.empty()) std::abort();
    return 0;
  }
  for (const GgufEntry& entry : index->entries) read_value(entry.value);
  for (const GgufTensor& tensor : index->tensors) read_tensor(tensor);
  return 0;
}
