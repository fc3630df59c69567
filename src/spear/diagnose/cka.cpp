#include "spear/diagnose/cka.h"

#include <algorithm>
#include <cmath>

#include "spear/base/check.h"
#include "spear/base/thread_pool.h"
#include "spear/kernels/gemm.h"

namespace spear {
namespace {

constexpr int64_t kBlock =
    2048;  // tokens whose products are summed in FP32 before they go into double

const GemmKernel& product_kernel(const GemmArgs& args) {
  static const std::vector<GemmKernel> kernels = gemm_kernels();
  for (const GemmKernel& kernel : kernels)
    if (kernel.supports(args)) return kernel;
  expects(false);
  return kernels.back();
}

// rows of `from` minus the shift, and their sum.
void shift_rows(const float* from, int64_t rows, const std::vector<float>& shift, float* to,
                std::vector<double>& sum) {
  const auto width = static_cast<int64_t>(shift.size());
  for (int64_t t = 0; t < rows; ++t)
    for (int64_t j = 0; j < width; ++j) {
      const float value = from[t * width + j] - shift[static_cast<size_t>(j)];
      to[t * width + j] = value;
      sum[static_cast<size_t>(j)] += static_cast<double>(value);
    }
}

}  // namespace

void CrossMoment::add(const float* x, const float* y, int64_t rows, ThreadPool& pool) {
  block_.resize(sums_.size());
  const GemmArgs args{.m = width_,
                      .n = width_,
                      .k = rows,
                      .a = x,
                      .lda = width_,
                      .transpose_a = true,
                      .b = y,
                      .ldb = width_,
                      .c = block_.data(),
                      .ldc = width_};
  product_kernel(args).run(args, &pool);
  for (size_t i = 0; i < sums_.size(); ++i) sums_[i] += static_cast<double>(block_[i]);
}

double CrossMoment::centred_square(const std::vector<double>& sum_x,
                                   const std::vector<double>& sum_y, int64_t tokens) const {
  double total = 0;
  for (int64_t i = 0; i < width_; ++i)
    for (int64_t j = 0; j < width_; ++j) {
      const double centred = sums_[static_cast<size_t>(i * width_ + j)] -
                             sum_x[static_cast<size_t>(i)] * sum_y[static_cast<size_t>(j)] /
                                 static_cast<double>(tokens);
      total += centred * centred;
    }
  return total;
}

CkaReference::CkaReference(const float* x, int64_t tokens, int64_t width, ThreadPool& pool)
    : x_(x), tokens_(tokens), width_(width), pool_(pool), sum_(static_cast<size_t>(width), 0.0) {
  expects(tokens > 0 && width > 0);
  std::vector<double> mean(static_cast<size_t>(width), 0.0);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t j = 0; j < width; ++j)
      mean[static_cast<size_t>(j)] += static_cast<double>(x[t * width + j]);
  for (const double m : mean) shift_.push_back(static_cast<float>(m / static_cast<double>(tokens)));
  CrossMoment own(width);
  std::vector<float> shifted(static_cast<size_t>(std::min(kBlock, tokens) * width));
  for (int64_t begin = 0; begin < tokens; begin += kBlock) {
    const int64_t rows = std::min(kBlock, tokens - begin);
    shift_rows(x + begin * width, rows, shift_, shifted.data(), sum_);
    own.add(shifted.data(), shifted.data(), rows, pool);
  }
  own_square_ = own.centred_square(sum_, sum_, tokens);
}

double CkaReference::damage(const float* y) const {
  CrossMoment cross(width_);
  CrossMoment other(width_);
  std::vector<double> sum_x(static_cast<size_t>(width_), 0.0);
  std::vector<double> sum_y(static_cast<size_t>(width_), 0.0);
  std::vector<float> shifted_x(static_cast<size_t>(std::min(kBlock, tokens_) * width_));
  std::vector<float> shifted_y(shifted_x.size());
  for (int64_t begin = 0; begin < tokens_; begin += kBlock) {
    const int64_t rows = std::min(kBlock, tokens_ - begin);
    shift_rows(x_ + begin * width_, rows, shift_, shifted_x.data(), sum_x);
    shift_rows(y + begin * width_, rows, shift_, shifted_y.data(), sum_y);
    cross.add(shifted_x.data(), shifted_y.data(), rows, pool_);
    other.add(shifted_y.data(), shifted_y.data(), rows, pool_);
  }
  const double norms =
      std::sqrt(own_square_) * std::sqrt(other.centred_square(sum_y, sum_y, tokens_));
  if (norms == 0) return own_square_ == 0 ? 0.0 : 1.0;
  return std::max(0.0, 1.0 - cross.centred_square(sum_x, sum_y, tokens_) / norms);
}

}  // namespace spear
