#include "spear/quantize/gptq.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "spear/base/check.h"
#include "spear/base/error.h"
#include "spear/quantize/linalg.h"
#include "spear/quantize/products.h"
#include "spear/quantize/rtn.h"

namespace spear {
namespace {

constexpr int64_t kBlock = 128;  // columns between updates of all that follow

// The diagonal with dead inputs lifted to the mean of the living ones, so that they factor to an
// identity.
std::vector<double> living_diagonal(std::span<const float> diagonal) {
  double sum = 0;
  int64_t living = 0;
  for (const float value : diagonal) {
    if (value <= 0) continue;
    sum += value;
    ++living;
  }
  const double mean = living > 0 ? sum / static_cast<double>(living) : 1.0;
  std::vector<double> lifted(diagonal.begin(), diagonal.end());
  for (double& value : lifted)
    if (value <= 0) value = mean;
  return lifted;
}

Matrix permuted(const float* covariance, const GptqFactor& factor, std::span<const double> diagonal,
                double damping) {
  const int64_t k = factor.k;
  const double mean =
      std::accumulate(diagonal.begin(), diagonal.end(), 0.0) / static_cast<double>(k);
  Matrix h(k, k);
  for (int64_t i = 0; i < k; ++i) {
    const int64_t column = factor.order[static_cast<size_t>(i)];
    const bool dead = factor.importance[static_cast<size_t>(column)] <= 0;
    double* row = h.row(i);
    const float* from = covariance + column * k;
    if (!dead)
      for (int64_t j = 0; j < k; ++j) row[j] = from[factor.order[static_cast<size_t>(j)]];
    for (int64_t j = 0; j < k; ++j)
      if (factor.importance[static_cast<size_t>(factor.order[static_cast<size_t>(j)])] <= 0)
        row[j] = 0;
    row[i] = diagonal[static_cast<size_t>(column)] + damping * mean;
  }
  return h;
}

// The working state of one sweep: weights in rounding order, changed as errors are spread.
struct Sweep {
  int64_t n, k, group, groups;
  const GptqFactor& factor;
  const GridOptions* moving;  // null: all grids stand in `result`
  UnpackedMatrix& result;
  std::vector<float> weights;  // [n, k]
  std::vector<float> errors;   // [n, kBlock or group]
  std::vector<double> totals;  // [n]: Σ errors² = what the row's rounding costs under R + damping

  void round_block(int64_t row, int64_t begin, int64_t end, int64_t stride);
  void refit_group(int64_t row, int64_t column);
};

// The grid of the group that starts at `column`, from the weights as they stand.
void Sweep::refit_group(int64_t row, int64_t column) {
  const Grid grid =
      grid_of(weights.data() + row * k + column, factor.importance.data() + column, group, *moving);
  const auto at = static_cast<size_t>(row * groups + column / group);
  result.scales[at] = grid.scale;
  result.zeros[at] = grid.zero;
}

void Sweep::round_block(int64_t row, int64_t begin, int64_t end, int64_t stride) {
  const float max_code = largest_code(result.bits);
  float* w = weights.data() + row * k;
  float* error_row = errors.data() + row * stride;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t column = factor.order[static_cast<size_t>(i)];
    if (moving != nullptr && i % group == 0) refit_group(row, i);
    const auto at = static_cast<size_t>(row * groups + column / group);
    const Grid grid{result.scales[at], result.zeros[at]};
    const float code = code_of(w[i], grid, max_code);
    result.codes[static_cast<size_t>(row * k + column)] = static_cast<uint8_t>(code);
    const float* u = factor.upper.data() + i * k;
    const float error = (w[i] - value_of(code, grid)) / u[i];
    error_row[i - begin] = error;
    totals[static_cast<size_t>(row)] += static_cast<double>(error) * static_cast<double>(error);
    for (int64_t j = i + 1; j < end; ++j) w[j] -= error * u[j];
  }
}

std::vector<float> reordered(const float* weight, int64_t n, const GptqFactor& factor,
                             ThreadPool& pool) {
  std::vector<float> out(static_cast<size_t>(n * factor.k));
  pool.parallel_for(n, 16, [&](int64_t row_begin, int64_t row_end) {
    for (int64_t row = row_begin; row < row_end; ++row)
      for (int64_t i = 0; i < factor.k; ++i)
        out[static_cast<size_t>(row * factor.k + i)] =
            weight[row * factor.k + factor.order[static_cast<size_t>(i)]];
  });
  return out;
}

// `moving`: how grids are fitted on the way; null: they stand in `result`. Returns the rows' costs.
std::vector<double> sweep_columns(const float* weight, int64_t n, const GptqFactor& factor,
                                  const GridOptions* moving, ThreadPool& pool,
                                  UnpackedMatrix& result) {
  const int64_t k = factor.k;
  const int64_t group = result.group;
  // A group whose grid is fitted on the way must lie inside one block, or part of it would be
  // stale.
  const int64_t block = moving == nullptr ? kBlock : std::max(kBlock, group);
  Sweep sweep{n,      k,
              group,  k / group,
              factor, moving,
              result, reordered(weight, n, factor, pool),
              {},     std::vector<double>(static_cast<size_t>(n))};
  sweep.errors.resize(static_cast<size_t>(n * block));
  const Products products(pool);
  for (int64_t begin = 0; begin < k; begin += block) {
    const int64_t end = std::min(k, begin + block);
    pool.parallel_for(n, 8, [&](int64_t row_begin, int64_t row_end) {
      for (int64_t row = row_begin; row < row_end; ++row) sweep.round_block(row, begin, end, block);
    });
    if (end == k) break;
    GemmArgs update;  // weights[:, end:] −= errors · U[begin:end, end:]
    update.m = n;
    update.n = k - end;
    update.k = end - begin;
    update.a = sweep.errors.data();
    update.lda = block;
    update.b = factor.upper.data() + begin * k + end;
    update.ldb = k;
    update.c = sweep.weights.data() + end;
    update.ldc = k;
    update.alpha = -1.0f;
    update.beta = 1.0f;
    products.run(update);
  }
  return std::move(sweep.totals);
}

void copy_row(const UnpackedMatrix& from, int64_t row, UnpackedMatrix& to) {
  const int64_t k = from.k;
  const int64_t groups = k / from.group;
  std::copy_n(from.codes.begin() + row * k, k, to.codes.begin() + row * k);
  std::copy_n(from.scales.begin() + row * groups, groups, to.scales.begin() + row * groups);
  std::copy_n(from.zeros.begin() + row * groups, groups, to.zeros.begin() + row * groups);
}

// Ranges found for plain rounding are not quite those for rounding with feedback: sweeps on grids a
// little narrower and wider, and each row keeps its cheapest.
void try_other_ranges(const float* weight, int64_t n, const GptqFactor& factor, ThreadPool& pool,
                      const UnpackedMatrix& grids, std::vector<double>& costs,
                      UnpackedMatrix& result) {
  for (const float width : {0.92f, 0.96f, 1.04f, 1.08f}) {
    UnpackedMatrix other = grids;
    for (float& scale : other.scales) scale = stored_scale(scale * width);
    const std::vector<double> other_costs = sweep_columns(weight, n, factor, nullptr, pool, other);
    for (int64_t row = 0; row < n; ++row) {
      const auto at = static_cast<size_t>(row);
      if (!(other_costs[at] < costs[at])) continue;
      costs[at] = other_costs[at];
      copy_row(other, row, result);
    }
  }
}

}  // namespace

GptqFactor make_gptq_factor(const float* covariance, int64_t k, double damping,
                            bool activation_order, std::string_view where) {
  expects(k > 0 && damping >= 0);
  for (int64_t i = 0; i < k * k; ++i)
    if (!std::isfinite(covariance[i]))
      throw Failure(ErrorCode::kBadFile,
                    std::string(where) +
                        ": the covariance of the inputs holds a value that is not finite; the "
                        "model's weights overflow on the calibration text");
  GptqFactor factor;
  factor.k = k;
  factor.activation_order = activation_order;
  for (int64_t i = 0; i < k; ++i) factor.importance.push_back(covariance[i * k + i]);
  factor.order.resize(static_cast<size_t>(k));
  std::iota(factor.order.begin(), factor.order.end(), 0);
  const auto importance_of = [&](int32_t i) { return factor.importance[static_cast<size_t>(i)]; };
  if (activation_order)
    std::stable_sort(factor.order.begin(), factor.order.end(),
                     [&](int32_t a, int32_t b) { return importance_of(a) > importance_of(b); });
  const std::vector<double> diagonal = living_diagonal(factor.importance);
  for (double share = damping; share <= 1.0; share = std::max(share * 10, 1e-6)) {
    Matrix h = permuted(covariance, factor, diagonal, share);
    if (!inverse_cholesky_upper_in_place(h)) continue;
    factor.damping = share;
    factor.upper.assign(h.values.begin(), h.values.end());
    return factor;
  }
  throw Failure(ErrorCode::kBadFile,
                std::string(where) +
                    ": the covariance of the inputs is not positive definite even with its whole "
                    "mean diagonal added; it is damaged: remove the cached covariances and gather "
                    "them again");
}

UnpackedMatrix gptq(const float* weight, int64_t n, const GptqFactor& factor,
                    const GridOptions& options, ThreadPool& pool) {
  const UnpackedMatrix grids =
      fit_grids(weight, n, factor.k, options, factor.importance.data(), pool);
  UnpackedMatrix result = grids;
  const bool moving = !factor.activation_order && result.group < factor.k;
  std::vector<double> costs =
      sweep_columns(weight, n, factor, moving ? &options : nullptr, pool, result);
  if (options.search && !moving) try_other_ranges(weight, n, factor, pool, grids, costs, result);
  return result;
}

}  // namespace spear
