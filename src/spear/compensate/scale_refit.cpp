#include "spear/compensate/scale_refit.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "spear/base/check.h"
#include "spear/base/dtype.h"
#include "spear/quantize/products.h"

namespace spear {
namespace {

constexpr size_t kSlabFloats = size_t{1} << 24;  // of products with R that are held at one time
constexpr double kRidge =
    1e-9;  // of the diagonal: two alike groups must not make a system singular

float rounded_scale(double scale) {
  return float_from_f16(f16_from_float(static_cast<float>(scale)));
}

bool usable(float scale) {
  return scale > 0 && std::isfinite(scale);
}

float rounded_zero(double zero, ZeroKind kind, int32_t bits) {
  const double largest = static_cast<double>((1 << bits) - 1);
  if (kind == ZeroKind::kU8)
    return static_cast<float>(
        std::nearbyint(std::clamp(zero, 0.0, std::min(largest, 255.0 / 16)) * 16) / 16);
  return float_from_f16(f16_from_float(static_cast<float>(std::clamp(zero, 0.0, largest))));
}

double dot(const float* a, const float* b, int64_t count) {
  double sums[4] = {};
  int64_t j = 0;
  for (; j + 4 <= count; j += 4)
    for (int64_t lane = 0; lane < 4; ++lane)
      sums[lane] += static_cast<double>(a[j + lane]) * static_cast<double>(b[j + lane]);
  for (; j < count; ++j) sums[0] += static_cast<double>(a[j]) * static_cast<double>(b[j]);
  return sums[0] + sums[1] + sums[2] + sums[3];
}

// Solves the symmetric positive definite a·x = b in place by Cholesky; false when a pivot is not
// positive.
bool solve(std::vector<double>& a, std::vector<double>& b) {
  const size_t n = b.size();
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j <= i; ++j) {
      double sum = a[i * n + j];
      for (size_t l = 0; l < j; ++l) sum -= a[i * n + l] * a[j * n + l];
      if (i == j && !(sum > 0)) return false;
      a[i * n + j] = i == j ? std::sqrt(sum) : sum / a[j * n + j];
    }
  for (size_t i = 0; i < n; ++i) {
    for (size_t l = 0; l < i; ++l) b[i] -= a[i * n + l] * b[l];
    b[i] /= a[i * n + i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t l = i + 1; l < n; ++l) b[i] -= a[l * n + i] * b[l];
    b[i] /= a[i * n + i];
  }
  return true;
}

struct RowErrors {
  double before = 0, after = 0;
};

// The least squares of one row over the scales of its groups: energy − 2·right·s + sᵀ·normal·s.
struct ScaleProblem {
  double energy = 0;           // wᵀ·R·w
  std::vector<double> right;   // [groups]: wᵀ·R·u_g
  std::vector<double> normal;  // [groups, groups]: u_gᵀ·R·u_h

  template <class Scales>
  [[nodiscard]] double error(const Scales& s) const {
    const size_t n = right.size();
    double sum = energy;
    for (size_t g = 0; g < n; ++g) {
      const auto scale = static_cast<double>(s[g]);
      sum -= 2 * scale * right[g];
      for (size_t h = 0; h < n; ++h) sum += scale * static_cast<double>(s[h]) * normal[g * n + h];
    }
    return sum;
  }
};

RowErrors fit_scales(const ScaleProblem& problem, float* scales) {
  const size_t n = problem.right.size();
  const double before = problem.error(scales);
  std::vector<double> matrix = problem.normal, solution = problem.right;
  for (size_t g = 0; g < n; ++g) matrix[g * n + g] *= 1 + kRidge;
  if (!solve(matrix, solution)) return {before, before};
  std::vector<float> rounded(n);
  std::transform(solution.begin(), solution.end(), rounded.begin(), rounded_scale);
  const double after = problem.error(rounded);
  if (!std::all_of(rounded.begin(), rounded.end(), usable) || !(after < before))
    return {before, before};
  std::copy(rounded.begin(), rounded.end(), scales);
  return {before, after};
}

// Scale and zero of one row: w ≈ s·(u − d·1), where d is how far the zero moves.
struct ZeroProblem {
  double energy, uu, u1, ones, wu, w1;

  [[nodiscard]] double error(double s, double d) const {
    return energy - 2 * s * (wu - d * w1) + s * s * (uu - 2 * d * u1 + d * d * ones);
  }
};

RowErrors fit_scale_and_zero(const ZeroProblem& p, ZeroKind kind, int32_t bits, float& scale,
                             float& zero) {
  const float zero_before = zero;
  const double before = p.error(scale, 0);
  double best = before;
  const auto consider = [&](double shift) {
    const float new_zero = rounded_zero(zero_before + shift, kind, bits);
    const double d = static_cast<double>(new_zero) - static_cast<double>(zero_before);
    const double energy = p.uu - 2 * d * p.u1 + d * d * p.ones;
    const float new_scale = rounded_scale((p.wu - d * p.w1) / energy);
    if (!usable(new_scale) || !(p.error(new_scale, d) < best)) return;
    best = p.error(new_scale, d);
    scale = new_scale;
    zero = new_zero;
  };
  consider(0);
  const double determinant = p.uu * p.ones - p.u1 * p.u1;
  const double s = (p.wu * p.ones - p.w1 * p.u1) / determinant;
  const double t = (p.wu * p.u1 - p.w1 * p.uu) / determinant;
  if (determinant > 1e-9 * p.uu * p.ones && s > 0) consider(t / s);
  return {before, best};
}

// Some rows on their way: u = q − z, and the products of u and the target with R.
class Slab {
 public:
  Slab(const float* target, const float* covariance, UnpackedMatrix& q, ThreadPool& pool)
      : target_(target),
        covariance_(covariance),
        q_(q),
        pool_(pool),
        products_(pool),
        groups_(q.k / q.group) {
    const std::vector<float> ones(static_cast<size_t>(q.k), 1.0f);
    ones_weighted_.resize(ones.size());
    product(1, q.k, ones.data(), q.k, covariance, ones_weighted_.data());
    ones_energy_ = dot(ones.data(), ones_weighted_.data(), q.k);
  }
  [[nodiscard]] int64_t rows_at_once() const {
    const auto per_row = static_cast<size_t>((groups_ + 2) * q_.k);
    return std::clamp<int64_t>(static_cast<int64_t>(kSlabFloats / per_row), 1, q_.n);
  }

  void load(int64_t first, int64_t rows) {
    first_ = first;
    rows_ = rows;
    const int64_t k = q_.k;
    centred_.resize(static_cast<size_t>(rows * k));
    weighted_.resize(static_cast<size_t>(groups_ * rows * k));
    target_weighted_.resize(static_cast<size_t>(rows * k));
    pool_.parallel_for(rows, 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * k; i < end * k; ++i) {
        const int64_t at = first * k + i;
        centred_[static_cast<size_t>(i)] = static_cast<float>(q_.codes[static_cast<size_t>(at)]) -
                                           q_.zeros[static_cast<size_t>(at / q_.group)];
      }
    });
    for (int64_t g = 0; g < groups_; ++g)
      product(rows, q_.group, centred_.data() + g * q_.group, k, covariance_ + g * q_.group * k,
              weighted_.data() + g * rows * k);
    product(rows, k, target_ + first * k, k, covariance_, target_weighted_.data());
  }

  RowErrors refit_scales(int64_t i) {
    const int64_t k = q_.k, group = q_.group;
    const auto count = static_cast<size_t>(groups_);
    ScaleProblem problem{dot(target_ + (first_ + i) * k, target_row(i), k), {}, {}};
    for (int64_t g = 0; g < groups_; ++g)
      problem.right.push_back(
          dot(target_row(i) + g * group, centred_.data() + i * k + g * group, group));
    problem.normal.resize(count * count);
    for (int64_t g = 0; g < groups_; ++g)
      for (int64_t h = 0; h < groups_; ++h)
        problem.normal[static_cast<size_t>(g * groups_ + h)] =
            dot(weighted_row(g, i) + h * group, centred_.data() + i * k + h * group, group);
    return fit_scales(problem, q_.scales.data() + (first_ + i) * groups_);
  }

  RowErrors refit_scale_and_zero(int64_t i, ZeroKind kind) {
    const int64_t k = q_.k;
    const float* u = centred_.data() + i * k;
    const float* w = target_ + (first_ + i) * k;
    const ZeroProblem problem{dot(w, target_row(i), k),         dot(u, weighted_row(0, i), k),
                              dot(u, ones_weighted_.data(), k), ones_energy_,
                              dot(u, target_row(i), k),         dot(w, ones_weighted_.data(), k)};
    const auto row = static_cast<size_t>(first_ + i);
    return fit_scale_and_zero(problem, kind, q_.bits, q_.scales[row], q_.zeros[row]);
  }

 private:
  [[nodiscard]] const float* target_row(int64_t i) const {
    return target_weighted_.data() + i * q_.k;
  }
  [[nodiscard]] const float* weighted_row(int64_t g, int64_t i) const {
    return weighted_.data() + (g * rows_ + i) * q_.k;
  }
  // c[m, k] = a[m, inner] · b[inner, k]
  void product(int64_t m, int64_t inner, const float* a, int64_t lda, const float* b,
               float* c) const {
    GemmArgs args;
    args.m = m;
    args.n = q_.k;
    args.k = inner;
    args.a = a;
    args.lda = lda;
    args.b = b;
    args.ldb = q_.k;
    args.c = c;
    args.ldc = q_.k;
    products_.run(args);
  }

  const float* target_;
  const float* covariance_;
  UnpackedMatrix& q_;
  ThreadPool& pool_;
  Products products_;
  int64_t groups_, first_ = 0, rows_ = 0;
  std::vector<float> ones_weighted_;    // [k]: R·1
  double ones_energy_ = 0;              // 1ᵀ·R·1
  std::vector<float> centred_;          // [rows, k]
  std::vector<float> weighted_;         // [groups, rows, k]: u's group times R
  std::vector<float> target_weighted_;  // [rows, k]
};

}  // namespace

ScaleRefit refit_scales(const float* target, const float* covariance, ZeroKind zero_kind,
                        ThreadPool& pool, UnpackedMatrix& quantized) {
  const bool real_zeros = zero_kind == ZeroKind::kU8 || zero_kind == ZeroKind::kF16;
  const bool move_zeros = real_zeros && !quantized.symmetric && quantized.group == quantized.k;
  Slab slab(target, covariance, quantized, pool);
  std::vector<RowErrors> errors(static_cast<size_t>(quantized.n));
  const int64_t step = slab.rows_at_once();
  for (int64_t first = 0; first < quantized.n; first += step) {
    const int64_t rows = std::min<int64_t>(step, quantized.n - first);
    slab.load(first, rows);
    pool.parallel_for(rows, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        errors[static_cast<size_t>(first + i)] =
            move_zeros ? slab.refit_scale_and_zero(i, zero_kind) : slab.refit_scales(i);
    });
  }
  ScaleRefit total;
  for (const RowErrors& row : errors) {
    total.error_before += row.before;
    total.error_after += row.after;
  }
  return total;
}

}  // namespace spear
