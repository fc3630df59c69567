// The exponential that softmax, SiLU and KL stand on, measured through an operation that shows it:
// the gradient of KL with a teacher that has all its weight elsewhere is the student's softmax.
#include <cmath>

#include "spear/kernels/loss.h"
#include "spear/kernels/reverse_ops.h"

#include "kernels/each_isa.h"
#include "support/closeness.h"
#include "support/guarded_buffer.h"

namespace spear {
namespace {

TEST(Exponential, IsWithinItsStatedErrorOverItsWholeRange) {
  constexpr int64_t kCount = 1 << 16;
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    for (const double from : {0.0, 0.5, 10.0, 40.0, 80.0}) {
      // Entry 0 is the largest by far; the others lie `from` to `from` + 7 below it.
      std::vector<float> teacher(kCount, -1000.0f), student(kCount);
      teacher[0] = 0;
      student[0] = 0;
      double sum = 1;
      for (int64_t j = 1; j < kCount; ++j) {
        student[j] = static_cast<float>(-from - 7.0 * static_cast<double>(j) / kCount);
        sum += std::exp(static_cast<double>(student[j]));
      }
      auto gradient = student;
      float kl = 0;
      cpu::kl_divergence({.m = 1,
                          .vocab = kCount,
                          .teacher = teacher.data(),
                          .student = gradient.data(),
                          .gradient_scale = 1,
                          .kl = &kl},
                         pool, loops);
      for (int64_t j = 1; j < kCount; ++j) {
        const double exact = std::exp(static_cast<double>(student[j])) / sum;
        // e^x in 4 roundoffs; the sum's terms likewise and 64 additions of a lane; the scale and
        // the product.
        ASSERT_NEAR(gradient[j], exact, (2 * test::kExpError + 70 + 2) * test::kRoundoffF32 * exact)
            << "e^" << student[j];
      }
    }
  });
}

// A row of one entry that matters: the sum is exactly 1, so only the exponential's own error is
// seen.
TEST(Exponential, AloneIsWithinFourRoundoffs) {
  test::each_isa([&](ThreadPool& pool, const cpu::SimdLoops& loops) {
    for (float x = -20; x > -86; x -= 0.0137f) {
      const std::vector<float> teacher = {0, -1000.0f};
      std::vector<float> student = {0, x};
      float kl = 0;
      cpu::kl_divergence({.m = 1,
                          .vocab = 2,
                          .teacher = teacher.data(),
                          .student = student.data(),
                          .gradient_scale = 1,
                          .kl = &kl},
                         pool, loops);
      const double exact = std::exp(static_cast<double>(x));
      ASSERT_NEAR(student[1], exact, (test::kExpError + 2) * test::kRoundoffF32 * exact + 0x1p-149)
          << x;
    }
  });
}

}  // namespace
}  // namespace spear
