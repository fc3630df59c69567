// Any bytes as a GGUF model: refused by a sentence, or a whole decoder and perhaps its tokenizer
// can be loaded.
#include <cstdlib>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

#include "spear/model/checkpoint.h"
#include "spear/model/import_tokenizer.h"

namespace {

using namespace spear;

void load(const std::string& path) {
  const auto checkpoint = Checkpoint::open(path);
  if (!checkpoint) {
    if (checkpoint.error().message.empty()) std::abort();
    return;
  }
  ThreadPool pool(1);
  SilentProgress progress;
  try {
    const DenseModel model = load_dense(*checkpoint, DType::kBF16, pool, progress);
    if (model.layers.size() != static_cast<size_t>(checkpoint->config().num_hidden_layers))
      std::abort();
    if (const auto tokenizer = load_tokenizer(*checkpoint))
      (void)tokenizer->encode("a b 12 \xc3\xa4");
  } catch (const Failure& failure) {
    if (failure.error().message.empty()) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int file = memfd_create("fuzz", MFD_CLOEXEC);
  if (file < 0 || write(file, data, size) != static_cast<ssize_t>(size)) std::abort();
  load("/proc/self/fd/" + std::to_string(file));
  close(file);
  return 0;
}
