#include "spear/backend/gpu/prefill_step.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <fmt/format.h>

#include "spear/base/check.h"
#include "spear/base/error.h"
#include "spear/kernels/gpu/gpu_kernels.h"
#include "spear/kernels/gpu/prefill.h"

namespace spear {
namespace {

void check_blas(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Failure(ErrorCode::kInternal, fmt::format("cuBLAS: {}", cublasGetStatusString(status)));
}

BlasHandleOwner make_blas(cudaStream_t stream) {
  cublasHandle_t handle = nullptr;
  check_blas(cublasCreate(&handle));
  BlasHandleOwner owner(handle);
  check_blas(cublasSetStream(handle, stream));
  return owner;
}

}  // namespace

PrefillStep::PrefillStep(const FusedDecoder& decoder, Backend& backend, cudaStream_t stream,
                         int32_t multiprocessors)
    : decoder_(decoder),
      backend_(&backend),
      stream_(stream),
      multiprocessors_(multiprocessors),
      blas_(make_blas(stream)),
      side_blas_(make_blas(side_.get())) {}

size_t PrefillStep::scratch_bytes() const {
  size_t bytes = 0;
  for (const DeviceBuffer* b :
       {&weight_[0], &weight_[1], &residual_, &qkv_, &input_, &wide_, &sums_, &factor_, &query_,
        &attended_, &angles_, &sequences_, &normed_})
    bytes += b->bytes();
  return bytes;
}

float* PrefillStep::floats(DeviceBuffer& buffer, int64_t count) {
  const size_t bytes = static_cast<size_t>(count) * sizeof(float);
  if (buffer.bytes() < bytes) {
    backend_->synchronize();
    gpu::check(cudaStreamSynchronize(side_.get()));
    buffer = backend_->allocate(bytes);
  }
  return buffer.as<float>();
}

uint16_t* PrefillStep::halves(DeviceBuffer& buffer, int64_t count) {
  return reinterpret_cast<uint16_t*>(floats(buffer, (count + 1) / 2));
}

// Row-major c[m, n] = alpha · a[m, k] · op(b) + beta · c: the library is column-major and computes
// the transpose.
void PrefillStep::gemm(int64_t m, int64_t n, int64_t k, const uint16_t* a, int64_t lda,
                       const uint16_t* b, int64_t ldb, bool transpose_b, float alpha, float beta,
                       float* c) {
  cublasHandle_t handle = transpose_b ? blas_.get() : side_blas_.get();
  check_blas(cublasGemmEx(handle, transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, CUBLAS_OP_N,
                          static_cast<int>(n), static_cast<int>(m), static_cast<int>(k), &alpha, b,
                          CUDA_R_16F, static_cast<int>(ldb), a, CUDA_R_16F, static_cast<int>(lda),
                          &beta, c, CUDA_R_32F, static_cast<int>(n), CUBLAS_COMPUTE_32F,
                          CUBLAS_GEMM_DEFAULT));
}

void PrefillStep::product(const FusedProduct& p, int64_t m, uint16_t* x, float scale, float beta,
                          float* y) {
  const int64_t k = p.w.k;
  const int64_t n = p.w.n;
  const int64_t width = p.ec.width;
  const size_t turn = next_weight_++ % 2;
  uint16_t* weight = halves(weight_[turn], n * (k + width));
  gpu::check(cudaStreamWaitEvent(side_.get(), weight_free_[turn].get()));
  gpu::expand_matrix(p.w, p.ec, weight, side_.get());
  if (width > 0) {
    uint16_t* factor = halves(factor_, k * width);
    float* sums = floats(sums_, m * width);
    gpu::expand_codes(p.a, k * width, factor, side_.get());
    gpu::check(cudaEventRecord(ready_.get(), stream_));
    gpu::check(cudaStreamWaitEvent(side_.get(), ready_.get()));
    gemm(m, width, k, x, k + width, factor, width, false, 1.0f, 0.0f, sums);
    gpu::gate_rows(p.ec, m, sums, 1.0f / scale, x + k, k + width, side_.get());
  }
  gpu::check(cudaEventRecord(side_done_.get(), side_.get()));
  gpu::check(cudaStreamWaitEvent(stream_, side_done_.get()));
  gemm(m, n, k + width, x, k + width, weight, k + width, true, scale, beta, y);
  gpu::check(cudaEventRecord(weight_free_[turn].get(), stream_));
  if (p.bias != nullptr) gpu::add_bias(m, n, p.bias, y, stream_);
}

void PrefillStep::attention(const FusedLayer& layer, const StepArgs& args,
                            const gpu::StepTables& tables, const KvLayerView& cache,
                            const float* qkv, uint16_t* out, int64_t stride) {
  const FusedDecoder& d = decoder_;
  const auto m = static_cast<int64_t>(args.tokens.size());
  const int64_t width = static_cast<int64_t>(d.heads) * d.head_dim;
  float* query = floats(query_, m * width);
  gpu::DecodeAttentionArgs rows{.m = static_cast<int32_t>(m),
                                .heads = d.heads,
                                .kv_heads = d.kv_heads,
                                .head_dim = d.head_dim,
                                .tables = tables,
                                .angles = angles_.as<float>(),
                                .qkv = qkv,
                                .q_norm = layer.q_norm,
                                .k_norm = layer.k_norm,
                                .eps = d.eps,
                                .cache = cache,
                                .append = false,
                                .y = out,
                                .y_stride = stride};
  gpu::rope_append(rows, query, stream_);
  if (cache.type != DType::kF32) {
    gpu::decode_attention(rows, multiprocessors_, stream_);
    return;
  }
  int64_t most = 0;
  for (const AttentionSequence& s : args.sequences) most = std::max(most, s.rows);
  float* attended = floats(attended_, m * width);
  gpu::attention({.heads = d.heads,
                  .kv_heads = d.kv_heads,
                  .head_dim = d.head_dim,
                  .q = query,
                  .cache = cache,
                  .sequences = sequences_.as<AttentionSequence>(),
                  .sequence_count = static_cast<int64_t>(args.sequences.size()),
                  .scale = 1.0f / std::sqrt(static_cast<float>(d.head_dim)),
                  .y = attended},
                 most, stream_);
  gpu::half_rows(m, static_cast<int32_t>(width), attended, out, stride, stream_);
}

void PrefillStep::layer(const FusedLayer& layer, const StepArgs& args,
                        const gpu::StepTables& tables, const KvLayerView& cache, float* x) {
  const FusedDecoder& d = decoder_;
  const auto m = static_cast<int64_t>(args.tokens.size());
  const auto input = [&](const FusedProduct& p) {
    return halves(input_, m * (p.w.k + p.ec.width));
  };
  const auto stride = [](const FusedProduct& p) {
    return static_cast<int64_t>(p.w.k) + p.ec.width;
  };

  uint16_t* in = input(layer.qkv);
  gpu::norm_rows(m, d.hidden, x, layer.input_norm, d.eps, in, stride(layer.qkv), stream_);
  float* qkv = floats(qkv_, m * layer.qkv.w.n);
  product(layer.qkv, m, in, 1.0f, 0.0f, qkv);
  in = input(layer.o);
  attention(layer, args, tables, cache, qkv, in, stride(layer.o));
  product(layer.o, m, in, 1.0f, 1.0f, x);

  in = input(layer.gate_up);
  gpu::norm_rows(m, d.hidden, x, layer.post_attention_norm, d.eps, in, stride(layer.gate_up),
                 stream_);
  float* wide = floats(wide_, m * layer.gate_up.w.n);
  product(layer.gate_up, m, in, 1.0f, 0.0f, wide);
  in = input(layer.down);
  gpu::silu_rows(m, d.intermediate, wide, in, stride(layer.down), stream_);
  product(layer.down, m, in, gpu::kSiluScale, 1.0f, x);
}

void PrefillStep::run(const StepArgs& args, const gpu::StepTables& tables, const int32_t* every_row,
                      const int32_t* logit_rows) {
  const FusedDecoder& d = decoder_;
  const auto m = static_cast<int64_t>(args.tokens.size());
  float* x = floats(residual_, m * d.hidden);
  float* angles = floats(angles_, m * d.head_dim);
  // Sequences with device addresses of their block tables, which begin where their first row's
  // does.
  std::vector<AttentionSequence> sequences(args.sequences.begin(), args.sequences.end());
  int64_t entry = 0;
  for (AttentionSequence& s : sequences) {
    s.pages = tables.pages + entry;
    const int64_t size = args.cache.front().page_size;
    entry += (s.context + s.rows + size - 1) / size;
  }
  floats(sequences_, static_cast<int64_t>(sequences.size() * sizeof(AttentionSequence) / 4));
  backend_->upload(sequences_.as<void>(), sequences.data(),
                   sequences.size() * sizeof(AttentionSequence));
  gpu::begin_step({.m = static_cast<int32_t>(m),
                   .tables = tables,
                   .embedding = d.embedding,
                   .rotation = d.rotation,
                   .head_dim = d.head_dim,
                   .inverse_frequencies = d.inverse_frequencies,
                   .x = x,
                   .angles = angles},
                  stream_);
  for (size_t l = 0; l < d.layers.size(); ++l) layer(d.layers[l], args, tables, args.cache[l], x);
  const auto finish = [&](const int32_t* rows, int64_t count, float* hidden, uint16_t* normed) {
    gpu::finish_step({.rows = static_cast<int32_t>(count),
                      .hidden = d.hidden,
                      .row_of = rows,
                      .x = x,
                      .rotation = d.rotation,
                      .weight = d.final_norm,
                      .eps = d.eps,
                      .normed = hidden,
                      .half_y = normed},
                     stream_);
  };
  if (args.hidden != nullptr) finish(every_row, m, args.hidden, nullptr);
  const auto wanted = static_cast<int64_t>(args.logit_rows.size());
  if (args.logits == nullptr || wanted == 0) return;
  float* normed = floats(normed_, wanted * d.hidden);
  finish(logit_rows, wanted, normed, nullptr);
  head(normed, wanted, args.logits);
}

void PrefillStep::head(const float* hidden, int64_t rows, float* logits) {
  const FusedDecoder& d = decoder_;
  uint16_t* in = halves(input_, rows * d.hidden);
  gpu::half_rows(rows, d.hidden, hidden, in, d.hidden, stream_);
  if (rows <= gpu::kMaxRowTokens) {
    queue_head(d, in, static_cast<int32_t>(rows), logits, multiprocessors_, stream_);
    return;
  }
  const FusedProduct head{.w = d.head};
  product(head, rows, in, 1.0f, 0.0f, logits);
}

}  // namespace spear
