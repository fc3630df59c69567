#include "spear/compensate/rounding.h"

#include <cmath>

#include <gtest/gtest.h>

#include "spear/model/decoder.h"

#include "support/closeness.h"
#include "support/temporary_directory.h"
#include "tiny_training.h"

namespace spear {
namespace {

using test::TinyTraining;

// Values off every grid.
std::vector<float> moved(const StudentModel& student) {
  Rng rng(3);
  std::vector<float> values = student.start;
  for (const ParameterSpan& span : student.spans)
    for (int64_t i = span.offset;
         span.kind != ParameterKind::kNorm && i < span.offset + span.count(); ++i)
      values[static_cast<size_t>(i)] +=
          static_cast<float>((span.kind == ParameterKind::kZero ? 0.3 : 0.02) * rng.normal());
  return values;
}

class Rounding : public ::testing::TestWithParam<int32_t> {
 protected:
  test::TemporaryDirectory folder_;
  TinyTraining tiny_{folder_.path(), 4};
};

TEST_P(Rounding, IsWhatStoringDoes) {
  const RoundingOptions options{GetParam()};
  const std::vector<float> values = rounded(tiny_.student, moved(tiny_.student), options);
  EXPECT_NE(values, moved(tiny_.student));
  EXPECT_EQ(rounded(tiny_.student, values, options), values)
      << "rounding twice is not rounding once";
  store_student(tiny_.student, values, {GetParam()}, tiny_.model);
  const StudentModel again = make_student(tiny_.model, {});
  ASSERT_EQ(again.start.size(), values.size());
  for (const ParameterSpan& span : again.spans)
    for (int64_t i = 0; i < span.count(); ++i) {
      const auto at = static_cast<size_t>(span.offset + i);
      if (span.kind != ParameterKind::kScale) {
        ASSERT_EQ(again.start[at], values[at]) << span.name << "[" << i << "]";
        continue;
      }
      const StudentLinear& from = tiny_.student.linear(span.module);
      ASSERT_EQ(again.linear(span.module).scales[static_cast<size_t>(i)],
                float_from_f16(f16_from_float(from.scales[static_cast<size_t>(i)] * values[at])));
    }
}

// The student multiplies codes and applies scales afterwards, the packed kernel may not: FP32
// rounding apart they agree.
TEST_P(Rounding, ThePackedModelComputesWhatTheStudentDid) {
  const std::vector<float> values = rounded(tiny_.student, moved(tiny_.student), {GetParam()});
  const auto pass = tiny_.pass();
  const auto width = static_cast<size_t>(tiny_.model.config.hidden_size);
  std::vector<float> expected(2 * 12 * width);
  const std::span<const int32_t> ids(tiny_.tokens.ids.data(), 24);
  pass->hidden(values, ids, 2, 12, expected);
  store_student(tiny_.student, values, {GetParam()}, tiny_.model);
  Decoder decoder(*tiny_.backend, tiny_.model, Compute::kF32);
  KvCache cache(*tiny_.backend, tiny_.model.config, 2, 12, false);
  const std::vector<AttentionSequence> rows = {cache.append(0, 0, 12), cache.append(1, 12, 12)};
  std::vector<float> hidden(expected.size());
  decoder.forward({ids, rows}, cache, hidden.data());
  EXPECT_TRUE(test::all_close(hidden, expected, {.absolute = 2e-4, .relative = 2e-4}));
}

INSTANTIATE_TEST_SUITE_P(FactorBits, Rounding, ::testing::Values(4, 8, 16));

TEST(RoundingKinds, LeavesTheOthersAlone) {
  const test::TemporaryDirectory folder;
  const TinyTraining tiny(folder.path(), 4);
  const std::vector<float> before = moved(tiny.student);
  const std::vector<float> after = rounded(tiny.student, before, {8, bit(ParameterKind::kZero)});
  for (const ParameterSpan& span : tiny.student.spans)
    for (int64_t i = span.offset; i < span.offset + span.count(); ++i) {
      const float value = after[static_cast<size_t>(i)];
      if (span.kind == ParameterKind::kZero)
        ASSERT_EQ(value * 16, std::round(value * 16)) << span.name;
      else
        ASSERT_EQ(value, before[static_cast<size_t>(i)]) << span.name;
    }
}

}  // namespace
}  // namespace spear
