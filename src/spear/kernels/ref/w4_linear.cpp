#include "spear/kernels/w4_linear.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "spear/kernels/ref/quantized_view.h"

namespace spear::ref {
namespace {

// γ(u) ⊙ u
std::vector<double> gated(const CompensatorView& ec, const std::vector<double>& u) {
  if (ec.gate_hidden == 0) return u;
  std::vector<double> hidden(static_cast<size_t>(ec.gate_hidden));
  for (int64_t i = 0; i < ec.gate_hidden; ++i) {
    double sum = float_from_f16(ec.b1[i]);
    for (int64_t r = 0; r < ec.rank; ++r) sum += float_from_f16(ec.w1[i * ec.rank + r]) * u[r];
    hidden[i] = std::max(sum, 0.0);
  }
  std::vector<double> out(u.size());
  for (int64_t r = 0; r < ec.rank; ++r) {
    double sum = float_from_f16(ec.b2[r]);
    for (int64_t i = 0; i < ec.gate_hidden; ++i)
      sum += float_from_f16(ec.w2[r * ec.gate_hidden + i]) * hidden[i];
    out[r] = (1.0 + std::tanh(sum)) * u[r];
  }
  return out;
}

double weight_at(const QuantizedView& w, const uint8_t* codes, int64_t row, int64_t j) {
  if (w.bits == 16)
    return float_from_bf16(static_cast<uint16_t>(codes[2 * j] | codes[2 * j + 1] << 8));
  const int64_t g = j / (w.k / w.groups());
  return (code_at(codes, w.bits, j) - static_cast<double>(zero_at(w, row, g))) *
         scale_at(w, row, g);
}

}  // namespace

void w4_linear(const W4LinearArgs& args) {
  const QuantizedView& w = args.w;
  const CompensatorView& ec = args.ec;
  for (int64_t i = 0; i < args.m; ++i) {
    const float* x = args.x + i * w.k;
    std::vector<double> u(static_cast<size_t>(ec.rank), 0.0);
    for (int64_t r = 0; r < ec.rank; ++r)
      for (int64_t j = 0; j < w.k; ++j)
        u[r] += static_cast<double>(factor_at(ec, ec.a, ec.a_scales, r, j, w.k)) * x[j];
    u = gated(ec, u);
    for (int64_t row = 0; row < w.n; ++row) {
      const uint8_t* codes = w.codes + static_cast<size_t>(row) * w.row_bytes();
      double sum = args.bias == nullptr ? 0.0 : args.bias[row];
      for (int64_t j = 0; j < w.k; ++j) sum += weight_at(w, codes, row, j) * x[j];
      for (int64_t r = 0; r < ec.rank; ++r)
        sum += static_cast<double>(factor_at(ec, ec.b, ec.b_scales, r, row, w.n)) * u[r];
      args.y[i * w.n + row] = static_cast<float>(sum);
    }
  }
}

}  // namespace spear::ref
