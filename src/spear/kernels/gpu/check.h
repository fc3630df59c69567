// Turns a failed CUDA call into an exception that names the caller's line; no macro. CUDA headers
// only: included by .cu files and by backend/gpu.
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>

#include <cuda_runtime_api.h>

namespace spear::gpu {

class CudaError : public std::runtime_error {
 public:
  CudaError(const char* what, std::source_location at)
      : std::runtime_error(std::string("CUDA: ") + what + " at " + at.file_name() + ":" +
                           std::to_string(at.line())) {}
};

inline void check(cudaError_t code, std::source_location at = std::source_location::current()) {
  if (code != cudaSuccess) [[unlikely]]
    throw CudaError(cudaGetErrorString(code), at);
}

// Right after a launch: reports what the launch itself was refused for.
inline void check_launch(std::source_location at = std::source_location::current()) {
  check(cudaGetLastError(), at);
}

}  // namespace spear::gpu
