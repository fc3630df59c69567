#include "spear/quantize/rtn.h"

#include "spear/base/check.h"

namespace spear {
namespace {

UnpackedMatrix empty_matrix(int64_t n, int64_t k, const GridOptions& options) {
  const int64_t group = options.group == 0 ? k : options.group;
  expects(n > 0 && k > 0 && k % group == 0 && options.bits >= 2 && options.bits <= 8);
  UnpackedMatrix matrix;
  matrix.n = static_cast<int32_t>(n);
  matrix.k = static_cast<int32_t>(k);
  matrix.bits = options.bits;
  matrix.group = static_cast<int32_t>(group);
  matrix.symmetric = options.symmetric;
  matrix.codes.resize(static_cast<size_t>(n * k));
  matrix.scales.resize(static_cast<size_t>(n * (k / group)));
  matrix.zeros.resize(static_cast<size_t>(n * (k / group)));
  return matrix;
}

}  // namespace

UnpackedMatrix fit_grids(const float* weight, int64_t n, int64_t k, const GridOptions& options,
                         const float* importance, ThreadPool& pool) {
  UnpackedMatrix matrix = empty_matrix(n, k, options);
  const int64_t group = matrix.group, groups = k / group;
  pool.parallel_for(n * groups, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t column = (i % groups) * group;
      const Grid grid =
          grid_of(weight + i * group, importance == nullptr ? nullptr : importance + column, group,
                  options);
      matrix.scales[static_cast<size_t>(i)] = grid.scale;
      matrix.zeros[static_cast<size_t>(i)] = grid.zero;
    }
  });
  return matrix;
}

UnpackedMatrix rtn(const float* weight, int64_t n, int64_t k, const GridOptions& options,
                   const float* importance, ThreadPool& pool) {
  UnpackedMatrix matrix = fit_grids(weight, n, k, options, importance, pool);
  const int64_t group = matrix.group;
  const float max_code = largest_code(options.bits);
  pool.parallel_for(n * (k / group), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Grid grid{matrix.scales[static_cast<size_t>(i)], matrix.zeros[static_cast<size_t>(i)]};
      for (int64_t j = i * group; j < (i + 1) * group; ++j)
        matrix.codes[static_cast<size_t>(j)] =
            static_cast<uint8_t>(code_of(weight[j], grid, max_code));
    }
  });
  return matrix;
}

}  // namespace spear
