// Every product kernel of this build against the plain twin, over every small shape.
#include "spear/kernels/gemm.h"

#include <cmath>
#include <string>

#include "spear/base/rng.h"
#include "spear/base/thread_pool.h"
#include "spear/kernels/cpu/gemm_few_rows.h"

#include "kernels/each_isa.h"
#include "support/closeness.h"
#include "support/guarded_buffer.h"
#include "support/random_tensors.h"

namespace spear {
namespace {

struct Case {
  int64_t m, n, k;
  DType type = DType::kF32;
  bool transpose_a = false, transpose_b = false;
  float alpha = 1, beta = 0;
  int64_t slack = 0;  // elements between the end of a row and the next
};

// The stored matrix with rows `stride` apart, in the type of the case.
std::vector<uint16_t> as_bf16(const std::vector<float>& values) {
  std::vector<uint16_t> bits;
  for (const float v : values) bits.push_back(bf16_from_float(v));
  return bits;
}

void check(const GemmKernel& kernel, const Case& c, ThreadPool* pool) {
  Rng rng(static_cast<uint64_t>(c.m * 10007 + c.n * 101 + c.k));
  const int64_t lda = (c.transpose_a ? c.m : c.k) + c.slack;
  const int64_t ldb = (c.transpose_b ? c.k : c.n) + c.slack;
  const int64_t ldc = c.n + c.slack;
  const auto a = test::rounded_to_bf16(test::normal_values((c.transpose_a ? c.k : c.m) * lda, rng));
  const auto b = test::rounded_to_bf16(test::normal_values((c.transpose_b ? c.n : c.k) * ldb, rng));
  const auto old = test::normal_values(c.m * ldc, rng);
  const auto a16 = as_bf16(a);
  const auto b16 = as_bf16(b);
  const bool half = c.type == DType::kBF16;
  GemmArgs args{.m = c.m,
                .n = c.n,
                .k = c.k,
                .a = half ? static_cast<const void*>(a16.data()) : a.data(),
                .lda = lda,
                .a_type = c.type,
                .transpose_a = c.transpose_a,
                .b = half ? static_cast<const void*>(b16.data()) : b.data(),
                .ldb = ldb,
                .b_type = c.type,
                .transpose_b = c.transpose_b,
                .ldc = ldc,
                .alpha = c.alpha,
                .beta = c.beta};
  if (!kernel.supports(args)) return;
  test::GuardedBuffer<float> actual(c.m * ldc);
  std::vector<float> expected(static_cast<size_t>(c.m * ldc));
  if (c.beta != 0) std::copy(old.begin(), old.end(), actual.data());
  if (c.beta != 0) expected = old;
  args.c = expected.data();
  ref::gemm().run(args, nullptr);
  args.c = actual.data();
  kernel.run(args, pool);
  std::vector<double> got, want, bounds;
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = 0; j < c.n; ++j) {
      double magnitude = std::abs(c.beta * old[i * ldc + j]);
      for (int64_t p = 0; p < c.k; ++p)
        magnitude +=
            std::abs(static_cast<double>(c.alpha) * a[c.transpose_a ? p * lda + i : i * lda + p] *
                     b[c.transpose_b ? j * ldb + p : p * ldb + j]);
      got.push_back(actual.data()[i * ldc + j]);
      want.push_back(expected[i * ldc + j]);
      bounds.push_back(test::dot_bound(c.k + 4, test::kRoundoffF32, magnitude));
    }
  }
  const std::string name = std::string(kernel.name) + " m " + std::to_string(c.m) + " n " +
                           std::to_string(c.n) + " k " + std::to_string(c.k) +
                           (c.transpose_a ? " T" : " N") + (c.transpose_b ? "T " : "N ") +
                           name_of(c.type);
  EXPECT_TRUE(test::within_bounds(got, want, bounds, c.n)) << name;
  EXPECT_TRUE(actual.intact()) << name;
  // What lies between rows is not the kernel's.
  for (int64_t i = 0; c.beta == 0 && i < c.m; ++i)
    for (int64_t j = c.n; j < ldc; ++j) EXPECT_TRUE(std::isnan(actual.data()[i * ldc + j])) << name;
}

void check_all(const Case& c, ThreadPool* pool) {
  for (const GemmKernel& kernel : gemm_kernels()) {
    for (int form = 0; form < 8; ++form) {
      Case with = c;
      with.transpose_a = (form & 1) != 0;
      with.transpose_b = (form & 2) != 0;
      with.type = (form & 4) != 0 ? DType::kBF16 : DType::kF32;
      check(kernel, with, pool);
    }
  }
}

TEST(Gemm, AgreesWithThePlainTwinOnEverySmallShape) {
  for (int64_t m = 1; m <= 17; ++m)
    for (const int64_t n : {1, 2, 7, 15, 16, 17, 33})
      for (const int64_t k : {1, 3, 16, 31, 65}) check_all({.m = m, .n = n, .k = k}, nullptr);
}

// What all of them use for a few rows, on every instruction set.
TEST(Gemm, AFewRowsAgreeOnEveryInstructionSet) {
  Rng rng(5);
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    for (int64_t m = 1; m <= cpu::kFewTokens; ++m)
      for (const int64_t k : {1, 15, 16, 17, 64, 130})
        for (const bool half : {false, true}) {
          const int64_t n = 19;
          const auto a = test::rounded_to_bf16(test::normal_values(m * k, rng));
          const auto b = test::rounded_to_bf16(test::normal_values(n * k, rng));
          const auto a16 = as_bf16(a);
          const auto b16 = as_bf16(b);
          test::GuardedBuffer<float> y(m * n);
          std::vector<float> want(static_cast<size_t>(m * n));
          const DType type = half ? DType::kBF16 : DType::kF32;
          GemmArgs g{.m = m,
                     .n = n,
                     .k = k,
                     .a = half ? static_cast<const void*>(a16.data()) : a.data(),
                     .lda = k,
                     .a_type = type,
                     .b = half ? static_cast<const void*>(b16.data()) : b.data(),
                     .ldb = k,
                     .b_type = type,
                     .transpose_b = true,
                     .c = want.data(),
                     .ldc = n};
          ASSERT_TRUE(cpu::has_few_rows(g));
          ref::gemm().run(g, nullptr);
          g.c = y.data();
          cpu::run_few_rows(g, &pool, loops);
          EXPECT_TRUE(test::all_within(
              y.span(), want, test::product_bounds(a, b, m, n, k, test::kRoundoffF32), {n}));
          EXPECT_TRUE(y.intact());
        }
  });
}

TEST(Gemm, ScalesAndAddsToWhatIsThere) {
  for (const float alpha : {1.0f, -0.5f})
    for (const float beta : {0.0f, 1.0f, 0.25f})
      check_all({.m = 9, .n = 21, .k = 40, .alpha = alpha, .beta = beta}, nullptr);
}

TEST(Gemm, LeavesTheSpaceBetweenRowsAlone) {
  check_all({.m = 7, .n = 18, .k = 33, .slack = 5}, nullptr);
  check_all({.m = 7, .n = 18, .k = 33, .alpha = 2, .beta = 1, .slack = 5}, nullptr);
}

TEST(Gemm, SlicesForThreadsCoverTheWholeResult) {
  ThreadPool pool(3);
  check_all({.m = 150, .n = 97, .k = 131, .slack = 3}, &pool);
  check_all({.m = 61, .n = 253, .k = 129, .beta = 1}, &pool);
}

TEST(Gemm, AProductOverNothingIsTheScaledOutput) {
  for (const GemmKernel& kernel : gemm_kernels()) {
    float c[2] = {3, NAN};
    GemmArgs args{.m = 1, .n = 1, .k = 0, .lda = 1, .ldb = 1, .c = c, .ldc = 1, .beta = 2};
    kernel.run(args, nullptr);
    EXPECT_EQ(c[0], 6.0f) << kernel.name;
    args.c = c + 1;
    args.beta = 0;
    kernel.run(args, nullptr);
    EXPECT_EQ(c[1], 0.0f) << kernel.name;
  }
}

TEST(Gemm, TheLastKernelOfTheTableTakesEverything) {
  const auto kernels = gemm_kernels();
  ASSERT_FALSE(kernels.empty());
  EXPECT_STREQ(kernels.back().name, "ref");
  EXPECT_TRUE(kernels.back().supports({.a_type = DType::kBF16, .b_type = DType::kBF16}));
}

}  // namespace
}  // namespace spear
