#include "spear/kernels/gemm.h"

namespace spear::ref {
namespace {

float element(const void* data, DType type, int64_t index) {
  if (type == DType::kBF16) return float_from_bf16(static_cast<const uint16_t*>(data)[index]);
  return static_cast<const float*>(data)[index];
}

bool known(DType type) {
  return type == DType::kF32 || type == DType::kBF16;
}

bool supports(const GemmArgs& args) {
  return known(args.a_type) && known(args.b_type);
}

void run(const GemmArgs& g, ThreadPool* /*pool*/) {
  for (int64_t i = 0; i < g.m; ++i) {
    for (int64_t j = 0; j < g.n; ++j) {
      double sum = 0;
      for (int64_t p = 0; p < g.k; ++p) {
        const float a = element(g.a, g.a_type, g.transpose_a ? p * g.lda + i : i * g.lda + p);
        const float b = element(g.b, g.b_type, g.transpose_b ? j * g.ldb + p : p * g.ldb + j);
        sum += static_cast<double>(a) * b;
      }
      float& c = g.c[i * g.ldc + j];
      const double old = g.beta == 0 ? 0.0 : static_cast<double>(g.beta) * c;
      c = static_cast<float>(g.alpha * sum + old);
    }
  }
}

}  // namespace

GemmKernel gemm() {
  return {.name = "ref", .supports = supports, .run = run};
}

}  // namespace spear::ref
