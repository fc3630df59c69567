#include <omp.h>
#include <oneapi/dnnl/dnnl.hpp>

#include "spear/base/host_buffer.h"
#include "spear/kernels/cpu/gemm_few_rows.h"
#include "spear/kernels/cpu/gemm_slices.h"
#include "spear/kernels/cpu/gemm_tables.h"

namespace spear::cpu {
namespace {

dnnl::memory::desc matrix(int64_t rows, int64_t columns, DType type, int64_t stride,
                          bool transposed) {
  using Strides = dnnl::memory::dims;
  const auto kind =
      type == DType::kBF16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  return {{rows, columns}, kind, transposed ? Strides{1, stride} : Strides{stride, 1}};
}

dnnl::primitive_attr attributes(const GemmArgs& g) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (g.alpha != 1.0f) attr.set_output_scales(0, {g.alpha});
  if (g.beta != 0.0f) {
    dnnl::post_ops after;
    after.append_sum(g.beta);
    attr.set_post_ops(after);
  }
  return attr;
}

// The primitive is made anew for each call: the library keeps generated code in a cache of its own,
// and a hit costs 3 to 30 µs (docs/kernels.md), less than any product that is sent here.
void run_slice(const GemmArgs& g) {
  omp_set_num_threads(1);  // of this thread only: slices are the parallelism
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const dnnl::memory::desc a = matrix(g.m, g.k, g.a_type, g.lda, g.transpose_a);
  const dnnl::memory::desc b = matrix(g.k, g.n, g.b_type, g.ldb, g.transpose_b);
  const dnnl::memory::desc c = matrix(g.m, g.n, DType::kF32, g.ldc, false);
  const dnnl::matmul::primitive_desc plan(dnnl::matmul::desc(a, b, c), attributes(g), engine);
  HostBuffer scratch(plan.scratchpad_desc().get_size());
  dnnl::matmul(plan).execute(
      stream,
      {{DNNL_ARG_SRC, dnnl::memory(a, engine, const_cast<void*>(g.a))},
       {DNNL_ARG_WEIGHTS, dnnl::memory(b, engine, const_cast<void*>(g.b))},
       {DNNL_ARG_DST, dnnl::memory(c, engine, g.c)},
       {DNNL_ARG_SCRATCHPAD, dnnl::memory(plan.scratchpad_desc(), engine, scratch.data())}});
  stream.wait();
}

bool supports(const GemmArgs& g) {
  return g.a_type == g.b_type && (g.a_type == DType::kF32 || g.a_type == DType::kBF16);
}

void run(const GemmArgs& g, ThreadPool* pool) {
  if (g.m == 0 || g.n == 0) return;
  if (has_few_rows(g)) return run_few_rows(g, pool, simd_loops());
  if (g.k == 0) return scale_output(g);
  run_in_slices(g, pool, run_slice);
}

}  // namespace

GemmKernel gemm_onednn() {
  return {.name = "cpu.onednn", .supports = supports, .run = run};
}

}  // namespace spear::cpu
