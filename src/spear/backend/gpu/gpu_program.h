// A decoder compiled for one GPU. Steps of up to 64 sequences with one row each are one CUDA graph,
// kept for each shape; any other batch (prefill, mixed) runs through library products on expanded
// weights, with the compensators as extra columns, their low-rank half on a second stream.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include "spear/backend/backend.h"
#include "spear/backend/decoder_program.h"

namespace spear {

// What a program uses of its backend; the backend outlives it.
struct GpuContext {
  Backend* backend = nullptr;
  cudaStream_t stream = nullptr;  // of the backend's operations
  int32_t multiprocessors = 0;
};

// Null where a module or property has no fused form; `why` names it. Throws Failure where device
// memory does not suffice, with the numbers.
std::unique_ptr<DecoderProgram> make_gpu_program(const DecoderSpec& spec, Activations activations,
                                                 const GpuContext& context, std::string* why);

}  // namespace spear
