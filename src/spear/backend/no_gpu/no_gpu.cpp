// Stands in for the GPU backend in builds without CUDA: the same symbol, answering what is missing.
#include "spear/backend/backend.h"

namespace spear {

Result<std::unique_ptr<Backend>> make_gpu_backend(int, std::string_view /*force_kernel*/) {
  return fail(
      ErrorCode::kUnsupported,
      "this build of spear has no CUDA: configure with the preset 'cuda' where nvcc is installed, "
      "or use --device cpu");
}

}  // namespace spear
