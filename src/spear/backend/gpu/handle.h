// One owner for every kind of CUDA handle; moves, never copies.
#pragma once

#include <utility>

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include "spear/kernels/gpu/check.h"

namespace spear {

template <class H, auto kDestroy>
class Handle {
 public:
  Handle() = default;
  explicit Handle(H h) noexcept : h_(h) {}
  Handle(Handle&& other) noexcept : h_(std::exchange(other.h_, H{})) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(h_, other.h_);
    return *this;
  }
  ~Handle() {
    if (h_ != H{}) (void)kDestroy(h_);  // a destructor neither throws nor skips
  }
  [[nodiscard]] H get() const noexcept { return h_; }

 private:
  H h_{};
};

using EventHandle = Handle<cudaEvent_t, &cudaEventDestroy>;
using OwnedStream = Handle<cudaStream_t, &cudaStreamDestroy>;
using GraphHandle = Handle<cudaGraph_t, &cudaGraphDestroy>;
using GraphExec = Handle<cudaGraphExec_t, &cudaGraphExecDestroy>;
using PinnedMemory = Handle<void*, &cudaFreeHost>;
using BlasHandleOwner = Handle<cublasHandle_t, &cublasDestroy_v2>;

inline EventHandle make_event() {
  cudaEvent_t event = nullptr;
  gpu::check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return EventHandle(event);
}
inline OwnedStream make_stream() {
  cudaStream_t stream = nullptr;
  gpu::check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return OwnedStream(stream);
}

}  // namespace spear
