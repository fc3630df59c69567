#include "support/guarded_buffer.h"

#include <cmath>
#include <string>

namespace spear::test {
namespace {

TEST(GuardedBuffer, StartsAsNanWithIntactGuards) {
  GuardedBuffer<float> buffer(17);
  ASSERT_EQ(buffer.span().size(), 17u);
  for (const float value : buffer.span()) EXPECT_TRUE(std::isnan(value));
  EXPECT_TRUE(buffer.intact());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
}

TEST(GuardedBuffer, WritingInsideIsFine) {
  GuardedBuffer<uint16_t> buffer(5, 3);
  for (uint16_t& value : buffer.span()) value = 7;
  EXPECT_TRUE(buffer.intact());
  EXPECT_EQ(buffer.values(), std::vector<uint16_t>(5, 7));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 6u);
}

TEST(GuardedBuffer, TellsOnWritesOutside) {
  GuardedBuffer<float> after(4);
  reinterpret_cast<unsigned char*>(after.data() + 4)[2] = 0;
  EXPECT_NE(std::string(after.intact().message()).find("2 bytes after"), std::string::npos);
  GuardedBuffer<float> before(4);
  reinterpret_cast<unsigned char*>(before.data())[-1] = 0;
  EXPECT_NE(std::string(before.intact().message()).find("1 bytes before"), std::string::npos);
}

TEST(GuardedBuffer, MayBeEmpty) {
  GuardedBuffer<float> buffer(0);
  EXPECT_TRUE(buffer.span().empty());
  EXPECT_TRUE(buffer.intact());
}

}  // namespace
}  // namespace spear::test
