#include "spear/compensate/removal.h"

#include <gtest/gtest.h>

#include "support/temporary_directory.h"
#include "tiny_training.h"

namespace spear {
namespace {

using test::TinyTraining;

class Removal : public ::testing::Test {
 protected:
  test::TemporaryDirectory folder_;
  TinyTraining tiny_{folder_.path()};
  std::unique_ptr<ReversePass> pass_ = tiny_.pass();
  std::vector<int64_t> sequences_ = {1, 5, 9, 13, 17};
  SilentProgress silent_;
  [[nodiscard]] double kl() {
    return mean_kl(*pass_, tiny_.student.start, tiny_.data(), sequences_, 24, 1.0f);
  }
};

TEST_F(Removal, IsTheKlWithoutOneLessTheKlWithAll) {
  const std::vector<double> damage = removal_damage(tiny_.student, *pass_, tiny_.student.start,
                                                    tiny_.data(), sequences_, 24, 1.0f, silent_);
  const double whole = kl();
  for (int64_t index = 0; index < tiny_.student.module_count(); ++index) {
    tiny_.student.linear(index).compensate = false;
    EXPECT_NEAR(damage[static_cast<size_t>(index)], kl() - whole, 1e-9) << index;
    tiny_.student.linear(index).compensate = true;
  }
}

// Random compensators mostly hurt, so some go; the KL without them is not above the KL with all.
TEST_F(Removal, DropsOnlyWhatIsNotMissed) {
  const double whole = kl();
  const std::vector<double> damage = removal_damage(tiny_.student, *pass_, tiny_.student.start,
                                                    tiny_.data(), sequences_, 24, 1.0f, silent_);
  const Dropped dropped = drop_useless(tiny_.student, *pass_, tiny_.student.start, tiny_.data(),
                                       sequences_, damage, TinyTraining::options());
  EXPECT_FALSE(dropped.modules.empty());
  EXPECT_LE(kl(), whole);
  size_t bytes = 0;
  for (const int64_t index : dropped.modules) {
    const StudentLinear& linear = tiny_.student.linear(index);
    EXPECT_FALSE(linear.compensate);
    EXPECT_LE(damage[static_cast<size_t>(index)], 0.0);
    bytes += pack(compensator_values(tiny_.student, tiny_.student.start, index), 8).bytes();
  }
  EXPECT_EQ(dropped.bytes, bytes);
}

}  // namespace
}  // namespace spear
