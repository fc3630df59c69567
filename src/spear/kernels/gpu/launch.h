// Launches a kernel with its attributes: more than 48 KiB of shared memory, a cluster, and
// programmatic dependent launch, by which the kernel may start (and fetch constant weights) before
// its predecessor in the stream has ended. Host code of .cu files.
#pragma once

#include <source_location>

#include <cuda_runtime.h>

#include "spear/kernels/gpu/check.h"

namespace spear::gpu {

struct LaunchShape {
  dim3 grid;
  unsigned block = 256;
  size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
  bool dependent = true;  // programmatic dependent launch
  unsigned cluster = 1;   // blocks along x that form a cluster
};

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, std::source_location at,
            const Arguments&... arguments) {
  // Kernels of a chain ask for the same split of L1 and shared memory, or an SM drains in between.
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributePreferredSharedMemoryCarveout,
                             cudaSharedmemCarveoutMaxShared),
        at);
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shape.shared_bytes)),
        at);
  cudaLaunchAttribute attributes[2];
  unsigned count = 0;
  if (shape.dependent) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = shape.cluster;
    attributes[count].val.clusterDim.y = 1;
    attributes[count++].val.clusterDim.z = 1;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = dim3(shape.block);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = shape.stream;
  config.attrs = attributes;
  config.numAttrs = count;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), at);
}

}  // namespace spear::gpu
