// Shape, TensorView, HostBuffer, expects(), Result and Failure, the log and the silent progress.
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "spear/base/check.h"
#include "spear/base/cpu_features.h"
#include "spear/base/error.h"
#include "spear/base/host_buffer.h"
#include "spear/base/log.h"
#include "spear/base/progress.h"
#include "spear/base/tensor_view.h"

namespace spear {
namespace {

TEST(Shape, CountsComparesAndPrints) {
  const Shape shape = {49152, 576};
  EXPECT_EQ(shape.rank(), 2);
  EXPECT_EQ(shape[1], 576);
  EXPECT_EQ(shape.count(), 49152 * 576);
  EXPECT_EQ(shape.text(), "[49152, 576]");
  EXPECT_EQ(Shape{}.text(), "[]");
  EXPECT_EQ(Shape{}.count(), 1);
  EXPECT_EQ(shape, (Shape{49152, 576}));
  EXPECT_FALSE(shape == (Shape{49152, 577}));
  EXPECT_FALSE(shape == (Shape{49152}));
}

TEST(ShapeDeathTest, RefusesAnAxisItLacks) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH((Shape{2, 3}[2]), "broken promise");
  EXPECT_DEATH((Shape{1, 2, 3, 4, 5}), "broken promise");
}

TEST(TensorView, KnowsRowsColumnsAndBytes) {
  const std::vector<uint16_t> data(24);
  const TensorView view{data.data(), {2, 3, 4}, DType::kBF16};
  EXPECT_EQ(view.rows(), 6);
  EXPECT_EQ(view.columns(), 4);
  EXPECT_EQ(view.bytes(), 48u);
  EXPECT_FALSE(view.empty());
  EXPECT_TRUE(TensorView{}.empty());
  EXPECT_EQ(TensorView{}.rows(), 0);
}

TEST(HostBuffer, IsAlignedAndMoves) {
  for (const size_t bytes : {1u, 63u, 64u, 65u, 4097u}) {
    HostBuffer buffer(bytes);
    EXPECT_EQ(buffer.bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % HostBuffer::kAlignment, 0u);
  }
  HostBuffer a(8);
  *a.as<int>() = 5;
  HostBuffer b = std::move(a);
  EXPECT_EQ(*b.as<int>(), 5);
  HostBuffer c(16);
  c = std::move(b);
  EXPECT_EQ(*c.as<int>(), 5);
  EXPECT_EQ(c.bytes(), 8u);
  EXPECT_EQ(HostBuffer(0).data(), nullptr);
}

TEST(HostBuffer, ReserveGrowsOnly) {
  HostBuffer buffer(64);
  void* const before = buffer.data();
  buffer.reserve(10);
  EXPECT_EQ(buffer.data(), before);
  buffer.reserve(100);
  EXPECT_EQ(buffer.bytes(), 100u);
}

TEST(HostBuffer, SaysWhenMemoryIsNotToBeHad) {
  EXPECT_THROW(HostBuffer(size_t{1} << 60), std::bad_alloc);
}

TEST(ExpectsDeathTest, SaysWhereThePromiseWasBroken) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  expects(true);
  EXPECT_DEATH(expects(false), "broken promise at .*views_test.cpp:[0-9]+");
}

TEST(Error, AResultBecomesAFailureAtABoundary) {
  EXPECT_EQ(value_or_throw(Result<int>(3)), 3);
  const Result<int> bad = fail(ErrorCode::kBadFile, "model.gguf: truncated");
  try {
    value_or_throw(bad);
    FAIL() << "no exception";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.error().code, ErrorCode::kBadFile);
    EXPECT_STREQ(failure.what(), "model.gguf: truncated");
  }
  value_or_throw(Result<void>());
  EXPECT_THROW(value_or_throw(Result<void>(fail(ErrorCode::kIo, "x"))), Failure);
}

TEST(Log, GoesWhereTheProgramSaysOrNowhere) {
  log(LogLevel::kInfo, "dropped");
  std::vector<std::pair<LogLevel, std::string>> lines;
  set_log_sink([&](LogLevel level, std::string_view line) { lines.emplace_back(level, line); });
  log(LogLevel::kWarning, "kept");
  set_log_sink({});
  log(LogLevel::kWarning, "dropped again");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0], std::make_pair(LogLevel::kWarning, std::string("kept")));
}

TEST(Progress, TheSilentOneNeverStops) {
  SilentProgress silent;
  silent.begin("phase", 3);
  silent.advance(3, "note");
  silent.end();
  EXPECT_FALSE(silent.stop_requested());
}

TEST(CpuFeatures, AreConsistent) {
  const CpuFeatures features = detect_cpu_features();
  EXPECT_TRUE(!features.avx512_bf16 || features.avx512_vnni);
  EXPECT_EQ(features.model, detect_cpu_features().model);
}

}  // namespace
}  // namespace spear
