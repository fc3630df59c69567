// A dense row-major FP64 matrix with one owner: what covariances and factors are computed in.
// Starts as zeros.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace spear {

struct Matrix {
  int64_t rows = 0, columns = 0;
  std::vector<double> values;  // [rows, columns]

  Matrix() = default;
  Matrix(int64_t row_count, int64_t column_count)
      : rows(row_count),
        columns(column_count),
        values(static_cast<size_t>(row_count) * static_cast<size_t>(column_count)) {}

  [[nodiscard]] double* row(int64_t i) {
    return values.data() + static_cast<size_t>(i) * static_cast<size_t>(columns);
  }
  [[nodiscard]] const double* row(int64_t i) const {
    return values.data() + static_cast<size_t>(i) * static_cast<size_t>(columns);
  }
  [[nodiscard]] double& operator()(int64_t i, int64_t j) { return row(i)[j]; }
  [[nodiscard]] double operator()(int64_t i, int64_t j) const { return row(i)[j]; }
};

// The same numbers in FP64.
Matrix widen(std::span<const float> values, int64_t rows, int64_t columns);

}  // namespace spear
