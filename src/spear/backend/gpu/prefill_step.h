// Any batch of rows through a fused decoder's weights with library products: each weight is
// expanded to F16 once a step, one product ahead, on a second stream that also works out the
// compensators' low-rank half; these enter the product as extra columns. One thread at a time.
#pragma once

#include <cstddef>

#include "spear/backend/backend.h"
#include "spear/backend/decoder_program.h"
#include "spear/backend/gpu/fused_decoder.h"
#include "spear/backend/gpu/handle.h"

namespace spear {

class PrefillStep {
 public:
  PrefillStep(const FusedDecoder& decoder, Backend& backend, cudaStream_t stream,
              int32_t multiprocessors);

  void run(const StepArgs& args, const gpu::StepTables& tables, const int32_t* every_row,
           const int32_t* logit_rows);
  // logits[rows, vocab] of hidden[rows, hidden]
  void head(const float* hidden, int64_t rows, float* logits);
  // One product as run() does it, for benchmarks: y[m, n] = beta · y + scale · (x · w +
  // compensators) with x f16 rows of k + width entries, the last `width` of them filled here.
  void product(const FusedProduct& product, int64_t m, uint16_t* x, float scale, float beta,
               float* y);

  [[nodiscard]] size_t scratch_bytes() const;

 private:
  float* floats(DeviceBuffer& buffer, int64_t count);
  uint16_t* halves(DeviceBuffer& buffer, int64_t count);
  void layer(const FusedLayer& layer, const StepArgs& args, const gpu::StepTables& tables,
             const KvLayerView& cache, float* x);
  void attention(const FusedLayer& layer, const StepArgs& args, const gpu::StepTables& tables,
                 const KvLayerView& cache, const float* qkv, uint16_t* out, int64_t stride);
  void gemm(int64_t m, int64_t n, int64_t k, const uint16_t* a, int64_t lda, const uint16_t* b,
            int64_t ldb, bool transpose_b, float alpha, float beta, float* c);

  const FusedDecoder& decoder_;
  Backend* backend_;
  cudaStream_t stream_;
  int32_t multiprocessors_;
  OwnedStream side_ = make_stream();
  EventHandle ready_ = make_event();  // x of the product stands
  EventHandle side_done_ = make_event();
  BlasHandleOwner blas_, side_blas_;
  DeviceBuffer weight_[2], residual_, qkv_, input_, wide_, sums_, factor_, query_, attended_,
      angles_, sequences_, normed_;
  EventHandle weight_free_[2] = {make_event(), make_event()};
  size_t next_weight_ = 0;
};

}  // namespace spear
