#include "spear/scheduler/block_pool.h"

#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "spear/base/rng.h"

namespace spear {
namespace {

TEST(BlockPool, GivesEveryPageOnceAndThenNone) {
  BlockPool pool(5);
  std::set<int32_t> pages;
  bool cached = true;
  for (int i = 0; i < 5; ++i) pages.insert(pool.take(cached));
  EXPECT_EQ(pages, (std::set<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_FALSE(cached);
  EXPECT_EQ(pool.take(cached), -1);
  EXPECT_EQ(pool.free_pages(), 0);
  EXPECT_EQ(pool.check(), nullptr);
}

TEST(BlockPool, ReusesPlainPagesFirstThenTheLeastRecentlyReleasedCachedOne) {
  BlockPool pool(4);
  bool cached = false;
  for (int i = 0; i < 4; ++i) pool.take(cached);
  pool.set_cached(2, true);
  pool.set_cached(0, true);
  for (const int32_t page : {2, 0, 3}) pool.release(page);
  EXPECT_EQ(pool.free_cached_pages(), 2);
  EXPECT_EQ(pool.take(cached), 3);
  EXPECT_FALSE(cached);
  EXPECT_EQ(pool.take(cached), 2);
  EXPECT_TRUE(cached);
  EXPECT_FALSE(pool.cached(2));
  EXPECT_EQ(pool.take(cached), 0);
  EXPECT_EQ(pool.check(), nullptr);
}

TEST(BlockPool, SharingKeepsAPageUntilTheLastHolderLeaves) {
  BlockPool pool(1);
  bool cached = false;
  const int32_t page = pool.take(cached);
  pool.share(page);
  pool.release(page);
  EXPECT_EQ(pool.take(cached), -1);
  pool.release(page);
  EXPECT_EQ(pool.free_pages(), 1);
}

TEST(BlockPool, ACachedFreePageComesBackIntoUse) {
  BlockPool pool(2);
  bool cached = false;
  const int32_t page = pool.take(cached);
  pool.set_cached(page, true);
  pool.release(page);
  pool.share(page);
  EXPECT_EQ(pool.references(page), 1);
  EXPECT_EQ(pool.free_pages(), 1);
  EXPECT_EQ(pool.check(), nullptr);
}

TEST(BlockPool, HoldsItsInvariantsUnderRandomUse) {
  Rng rng(3);
  BlockPool pool(17);
  std::vector<int32_t> held;
  for (int i = 0; i < 20000; ++i) {
    const uint32_t what = rng.below(4);
    if (what == 0) {
      bool cached = false;
      if (const int32_t page = pool.take(cached); page >= 0) held.push_back(page);
    } else if (!held.empty()) {
      const uint32_t at = rng.below(static_cast<uint32_t>(held.size()));
      const int32_t page = held[at];
      if (what == 1) {
        pool.release(page);
        held.erase(held.begin() + at);
      } else if (what == 2) {
        pool.share(page);
        held.push_back(page);
      } else {
        pool.set_cached(page, rng.below(2) == 0);
      }
    }
    ASSERT_EQ(pool.check(), nullptr) << "after " << i;
  }
  for (const int32_t page : held) pool.release(page);
  EXPECT_EQ(pool.free_pages(), pool.size());
  EXPECT_EQ(pool.check(), nullptr);
}

}  // namespace
}  // namespace spear
