#include "spear/quantize/moment_sum.h"

#include <algorithm>

#include "spear/base/check.h"

namespace spear {
namespace {

// An F32 sum of this many squares is exact enough (2^-24 · √rows); more would cost digits, fewer
// cost time.
constexpr int64_t kRowsBetweenFlushes = 8192;
constexpr int64_t kSlabFloats = int64_t{1} << 22;  // of a product on its way to the host
constexpr int64_t kPanels =
    4;  // the product is symmetric: panels of columns, rows down to the diagonal only

int64_t panel_width(int64_t k) {
  const int64_t width = (k + kPanels - 1) / kPanels;
  return std::min(k, std::max<int64_t>(128, (width + 31) / 32 * 32));
}

}  // namespace

MomentSum::MomentSum(Backend& backend, ThreadPool& pool, int64_t k, Compute compute)
    : backend_(backend),
      pool_(pool),
      k_(k),
      compute_(compute),
      product_(backend.allocate(static_cast<size_t>(k * k) * sizeof(float))),
      sum_(static_cast<size_t>(k * k)) {}

const void* MomentSum::as_bf16(const float* x, int64_t m) {
  const auto count = static_cast<size_t>(m * k_);
  staging_.resize(std::max(staging_.size(), count));
  staging_bf16_.resize(std::max(staging_bf16_.size(), count));
  backend_.download(staging_.data(), x, count * sizeof(float));
  pool_.parallel_for(m, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * k_; i < end * k_; ++i)
      staging_bf16_[static_cast<size_t>(i)] = bf16_from_float(staging_[static_cast<size_t>(i)]);
  });
  const size_t bytes = count * sizeof(uint16_t);
  if (rounded_.bytes() < bytes) rounded_ = backend_.allocate(bytes);
  backend_.upload(rounded_.as<uint16_t>(), staging_bf16_.data(), bytes);
  return rounded_.as<uint16_t>();
}

void MomentSum::multiply(const void* x, int64_t m, DType type) {
  const int64_t width = panel_width(k_);
  for (int64_t column = 0; column < k_; column += width) {
    const int64_t end = std::min(k_, column + width);
    GemmArgs args;  // product[0:end, column:end] += x[:, 0:end]ᵀ · x[:, column:end]
    args.m = end;
    args.n = end - column;
    args.k = m;
    args.a = x;
    args.lda = k_;
    args.a_type = type;
    args.transpose_a = true;
    args.b = static_cast<const std::byte*>(x) + static_cast<size_t>(column) * size_of(type);
    args.ldb = k_;
    args.b_type = type;
    args.c = product_.as<float>() + column;
    args.ldc = k_;
    args.beta = pending_rows_ == 0 ? 0.0f : 1.0f;
    backend_.gemm(args);
  }
}

void MomentSum::add(const float* x, int64_t m) {
  if (compute_ == Compute::kBF16) {
    multiply(as_bf16(x, m), m, DType::kBF16);
  } else {
    multiply(x, m, DType::kF32);
  }
  rows_ += m;
  pending_rows_ += m;
  if (pending_rows_ >= kRowsBetweenFlushes) flush();
}

// By slabs: a second copy of a wide site's product would be hundreds of megabytes.
void MomentSum::flush() {
  if (pending_rows_ == 0) return;
  const int64_t slab = std::clamp<int64_t>(kSlabFloats / k_, 1, k_);
  staging_.resize(std::max(staging_.size(), static_cast<size_t>(slab * k_)));
  for (int64_t first = 0; first < k_; first += slab) {
    const int64_t rows = std::min(slab, k_ - first);
    backend_.download(staging_.data(), product_.as<float>() + first * k_,
                      static_cast<size_t>(rows * k_) * sizeof(float));
    pool_.parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        for (int64_t j = first + i; j < k_; ++j)
          sum_[static_cast<size_t>((first + i) * k_ + j)] +=
              static_cast<double>(staging_[static_cast<size_t>(i * k_ + j)]);
    });
  }
  pending_rows_ = 0;
}

HostTensor MomentSum::take() {
  expects(rows_ > 0);
  flush();
  HostTensor mean({k_, k_}, DType::kF32);
  const auto out = mean.as<float>();
  const double scale = 1.0 / static_cast<double>(rows_);
  for (int64_t i = 0; i < k_; ++i)
    for (int64_t j = i; j < k_; ++j) {
      const auto value = static_cast<float>(sum_[static_cast<size_t>(i * k_ + j)] * scale);
      out[static_cast<size_t>(i * k_ + j)] = value;
      out[static_cast<size_t>(j * k_ + i)] = value;
    }
  std::fill(sum_.begin(), sum_.end(), 0.0);
  rows_ = 0;
  return mean;
}

}  // namespace spear
