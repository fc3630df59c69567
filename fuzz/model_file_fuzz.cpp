// Any bytes, checksums made right, as a compressed model: refused by a sentence, or a model whose
// every row and compensator can be read.
#include <cstdlib>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#include "spear/model/model_file.h"

#include "repair_artifact.h"

namespace {

using namespace spear;

void read_matrix(const QuantizedMatrix& matrix) {
  if (matrix.empty()) return;
  std::vector<float> row(static_cast<size_t>(matrix.k));
  for (int32_t i = 0; i < matrix.n; ++i) dequantize_rows(matrix.view(), i, i + 1, row.data());
}

void load(const std::string& path) {
  const auto file = load_model(path);
  if (!file) {
    if (file.error().message.empty()) std::abort();
    return;
  }
  read_matrix(file->model.embedding);
  read_matrix(file->model.head);
  for (const QuantizedLayer& layer : file->model.layers)
    for (const QuantizedLinear& linear : layer.linears) {
      read_matrix(linear.weight);
      if (linear.compensator)
        (void)unpack(linear.compensator->view(), linear.weight.n, linear.weight.k);
    }
  (void)count_bytes(file->model);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = fuzz::repaired_artifact(std::as_bytes(std::span(data, size)));
  const int file = memfd_create("fuzz", MFD_CLOEXEC);
  if (file < 0 || write(file, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
    std::abort();
  load("/proc/self/fd/" + std::to_string(file));
  close(file);
  return 0;
}
