// Runs a dense product with the best kernel of this machine that supports it.
#pragma once

#include <vector>

#include "spear/base/thread_pool.h"
#include "spear/kernels/gemm.h"

namespace spear {

class Products {
 public:
  explicit Products(ThreadPool& pool) : kernels_(gemm_kernels()), pool_(&pool) {}
  void run(const GemmArgs& args) const {
    for (const GemmKernel& kernel : kernels_)
      if (kernel.supports(args)) return kernel.run(args, pool_);
  }

 private:
  std::vector<GemmKernel> kernels_;
  ThreadPool* pool_;
};

}  // namespace spear
