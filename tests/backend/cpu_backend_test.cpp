#include <vector>

#include <gtest/gtest.h>

#include "spear/backend/backend.h"
#include "spear/base/thread_pool.h"

namespace spear {
namespace {

// A kernel that multiplies F32 alone, if this build has one.
std::string f32_only_kernel() {
  const GemmArgs bf16{.a_type = DType::kBF16, .b_type = DType::kBF16};
  const GemmArgs f32{.a_type = DType::kF32, .b_type = DType::kF32};
  for (const GemmKernel& kernel : gemm_kernels())
    if (kernel.supports(f32) && !kernel.supports(bf16)) return std::string(kernel.name);
  return {};
}

TEST(CpuBackend, RefusesAKernelThisBuildDoesNotKnowAndNamesThoseItDoes) {
  ThreadPool pool(1);
  const Result<std::unique_ptr<Backend>> backend = make_cpu_backend(pool, "cpu.nothing");
  ASSERT_FALSE(backend);
  EXPECT_EQ(backend.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(backend.error().message.find("'cpu.nothing'"), std::string::npos);
  EXPECT_NE(backend.error().message.find("ref"), std::string::npos);
}

TEST(CpuBackend, RefusesProductsThatTheForcedKernelDoesNotDo) {
  const std::string kernel = f32_only_kernel();
  if (kernel.empty()) GTEST_SKIP() << "every kernel of this build multiplies BF16";
  ThreadPool pool(1);
  const auto backend = value_or_throw(make_cpu_backend(pool, kernel));
  const std::vector<float> weight(64, 0.5f);
  const TensorView view{weight.data(), Shape{8, 8}, DType::kF32};
  EXPECT_EQ(backend->prepare_dense(view, nullptr, Compute::kF32)->kernel(), kernel);
  try {
    backend->prepare_dense(view, nullptr, Compute::kBF16);
    FAIL() << "BF16 products were accepted by " << kernel;
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(failure.error().message.find(kernel), std::string::npos);
    EXPECT_NE(failure.error().message.find("bf16"), std::string::npos);
  }
}

}  // namespace
}  // namespace spear
