#include "spear/kernels/decoder_ops.h"

#include <cmath>
#include <vector>

namespace spear::ref {

void rms_norm(const RmsNormArgs& a) {
  for (int64_t i = 0; i < a.m; ++i) {
    const float* x = a.x + i * a.n;
    double squares = 0;
    for (int64_t j = 0; j < a.n; ++j) squares += static_cast<double>(x[j]) * x[j];
    const double inverse =
        1.0 / std::sqrt(squares / static_cast<double>(a.n) + static_cast<double>(a.eps));
    if (a.inverse_rms != nullptr) a.inverse_rms[i] = static_cast<float>(inverse);
    for (int64_t j = 0; j < a.n; ++j) {
      const double weight = a.weight == nullptr ? 1.0 : a.weight[j];
      a.y[i * a.n + j] = static_cast<float>(x[j] * inverse * weight);
    }
  }
}

void rope(const RopeArgs& a) {
  const int64_t half = a.head_dim / 2;
  for (int64_t i = 0; i < a.m; ++i) {
    for (int64_t h = 0; h < a.heads; ++h) {
      float* x = a.x + i * a.row_stride + h * a.head_dim;
      for (int64_t j = 0; j < half; ++j) {
        const double angle =
            static_cast<double>(a.positions[i]) * static_cast<double>(a.inverse_frequencies[j]);
        const double c = std::cos(angle);
        const double s = a.inverse ? -std::sin(angle) : std::sin(angle);
        const double low = x[j];
        const double high = x[j + half];
        x[j] = static_cast<float>(low * c - high * s);
        x[j + half] = static_cast<float>(high * c + low * s);
      }
    }
  }
}

void silu_mul(const SiluMulArgs& a) {
  for (int64_t i = 0; i < a.count; ++i) {
    const double gate = a.gate[i];
    a.y[i] = static_cast<float>(gate / (1.0 + std::exp(-gate)) * a.up[i]);
  }
}

namespace {

// (x·F)[i'] = Σ_i x[i] F[i, i'] over the outer index, or x·Fᵀ.
void multiply_factor(const RotationView& r, bool transposed, std::vector<double>& row) {
  if (r.factor == nullptr || r.p == 1) return;
  std::vector<double> out(row.size(), 0.0);
  for (int64_t to = 0; to < r.p; ++to) {
    for (int64_t from = 0; from < r.p; ++from) {
      const double f = transposed ? r.factor[to * r.p + from] : r.factor[from * r.p + to];
      for (int64_t j = 0; j < r.h; ++j) out[to * r.h + j] += f * row[from * r.h + j];
    }
  }
  row = out;
}

// The normalised Walsh-Hadamard transform of each run of h; its own inverse.
void hadamard(const RotationView& r, std::vector<double>& row) {
  for (int64_t width = 1; width < r.h; width *= 2) {
    for (int64_t i = 0; i < r.n; ++i) {
      if ((i % r.h & width) != 0) continue;
      const double a = row[i];
      const double b = row[i + width];
      row[i] = a + b;
      row[i + width] = a - b;
    }
  }
  const double norm = 1.0 / std::sqrt(static_cast<double>(r.h));
  for (double& value : row) value *= norm;
}

}  // namespace

void rotate(const RotateArgs& a) {
  const RotationView& r = a.rotation;
  const float* first = a.inverse ? r.signs_out : r.signs_in;
  const float* last = a.inverse ? r.signs_in : r.signs_out;
  std::vector<double> row(static_cast<size_t>(r.n));
  for (int64_t i = 0; i < a.m; ++i) {
    float* x = a.x + i * r.n;
    for (int64_t j = 0; j < r.n; ++j) row[j] = static_cast<double>(x[j]) * (first ? first[j] : 1);
    multiply_factor(r, a.inverse, row);
    hadamard(r, row);
    for (int64_t j = 0; j < r.n; ++j) x[j] = static_cast<float>(row[j] * (last ? last[j] : 1));
  }
}

}  // namespace spear::ref
