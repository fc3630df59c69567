// Contract of dense products: c = alpha * op(a) * op(b) + beta * c, row-major, FP32 accumulation
// and output. Implementations stand in kernels/ref (double accumulation), kernels/cpu (oneDNN,
// OpenBLAS, Eigen) and, later, cuBLAS. A product is cut into slices for the threads of the caller's
// pool and each slice runs the library on one thread, so that one pool rules and no library's own
// threads spin beside it. `run` may be called from inside a pool's body, with pool = null.
#pragma once

#include <cstdint>
#include <vector>

#include "spear/base/dtype.h"

namespace spear {

class ThreadPool;

struct GemmArgs {
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;  // op(a) is [m, k]: stored [m, k], or [k, m] when transpose_a
  int64_t lda = 0;          // elements between stored rows
  DType a_type = DType::kF32;
  bool transpose_a = false;
  const void* b =
      nullptr;  // op(b) is [k, n]: stored [k, n], or [n, k] when transpose_b (a weight [out, in])
  int64_t ldb = 0;
  DType b_type = DType::kF32;
  bool transpose_b = false;
  float* c = nullptr;  // [m, n]
  int64_t ldc = 0;
  float alpha = 1.0f;
  float beta = 0.0f;  // 0: c is not read, so it may hold anything
};

struct GemmKernel {
  const char* name;  // "cpu.onednn", "cpu.openblas", "cpu.eigen", "ref"
  // a_type and b_type are equal: F32 or BF16.
  bool (*supports)(const GemmArgs&);
  void (*run)(const GemmArgs&, ThreadPool* pool);  // null: this thread alone
};

// Best first for this machine and build, by measurement (docs/kernels.md); the last one (ref)
// always works.
std::vector<GemmKernel> gemm_kernels();

namespace ref {
GemmKernel gemm();
}

}  // namespace spear
