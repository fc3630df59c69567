// Sums x·xᵀ over rows that live on a backend: products there, F32 within a few chunks, F64 on the
// host between them.
#pragma once

#include <cstdint>
#include <vector>

#include "spear/backend/backend.h"
#include "spear/base/host_tensor.h"
#include "spear/base/thread_pool.h"

namespace spear {

class MomentSum {
 public:
  MomentSum(Backend& backend, ThreadPool& pool, int64_t k, Compute compute);

  void add(const float* x, int64_t m);  // x: [m, k] on the backend
  // The mean over all rows added, [k, k], symmetric; starts anew.
  HostTensor take();

 private:
  void multiply(const void* x, int64_t m, DType type);
  const void* as_bf16(const float* x, int64_t m);
  void flush();

  Backend& backend_;
  ThreadPool& pool_;
  int64_t k_;
  Compute compute_;
  DeviceBuffer product_;  // [k, k] f32: rows since the last flush; the upper triangle by panels
  DeviceBuffer rounded_;  // [m, k] bf16
  std::vector<float> staging_;  // host copies, at least [k, k]
  std::vector<uint16_t> staging_bf16_;
  std::vector<double> sum_;   // [k, k]
  int64_t rows_ = 0;          // since the last take()
  int64_t pending_rows_ = 0;  // in product_
};

}  // namespace spear
