#include "spear/scheduler/prefix_cache.h"

#include <map>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "spear/base/rng.h"

namespace spear {
namespace {

using Tokens = std::vector<int32_t>;

TEST(PrefixCache, FindsAPageByItsWholePrefix) {
  PrefixCache cache(8, 2);
  const uint64_t root = PrefixCache::root(0);
  const uint64_t a = cache.insert(root, Tokens{1, 2}, 0);
  const uint64_t b = cache.insert(a, Tokens{3, 4}, 1);
  EXPECT_NE(a, b);
  EXPECT_EQ(cache.find(root, Tokens{1, 2}).page, 0);
  EXPECT_EQ(cache.find(a, Tokens{3, 4}).page, 1);
  EXPECT_EQ(cache.find(root, Tokens{3, 4}).node, 0U) << "the same tokens after another prefix";
  EXPECT_EQ(cache.find(b, Tokens{3, 4}).node, 0U);
  EXPECT_EQ(cache.check(), nullptr);
}

TEST(PrefixCache, SaltsShareNothing) {
  PrefixCache cache(8, 2);
  cache.insert(PrefixCache::root(1), Tokens{1, 2}, 0);
  EXPECT_EQ(cache.find(PrefixCache::root(2), Tokens{1, 2}).node, 0U);
  EXPECT_EQ(cache.find(PrefixCache::root(1), Tokens{1, 2}).page, 0);
}

TEST(PrefixCache, KeepsOnePageForOneContent) {
  PrefixCache cache(8, 2);
  const uint64_t root = PrefixCache::root(0);
  const uint64_t first = cache.insert(root, Tokens{1, 2}, 0);
  EXPECT_EQ(cache.insert(root, Tokens{1, 2}, 5), first);
  EXPECT_FALSE(cache.knows(5));
  EXPECT_EQ(cache.entries(), 1);
}

TEST(PrefixCache, ForgetsAPageAndDoesNotReachWhatStoodAfterIt) {
  PrefixCache cache(8, 2);
  const uint64_t root = PrefixCache::root(0);
  const uint64_t a = cache.insert(root, Tokens{1, 2}, 0);
  cache.insert(a, Tokens{3, 4}, 1);
  cache.forget(0);
  EXPECT_EQ(cache.find(root, Tokens{1, 2}).node, 0U);
  const uint64_t again = cache.insert(root, Tokens{1, 2}, 3);
  EXPECT_NE(again, a) << "a node never means two contents";
  EXPECT_EQ(cache.find(again, Tokens{3, 4}).node, 0U);
  EXPECT_EQ(cache.check(), nullptr);
}

TEST(PrefixCache, AgreesWithAMapUnderRandomUse) {
  constexpr int32_t kPages = 12;
  using Content = std::pair<uint64_t, int32_t>;  // the node before, the token
  Rng rng(11);
  PrefixCache cache(kPages, 1);
  std::map<Content, int32_t> known;
  std::vector<Content> content(kPages);
  std::vector<uint64_t> nodes = {PrefixCache::root(0)};
  for (int i = 0; i < 20000; ++i) {
    const auto page = static_cast<int32_t>(rng.below(kPages));
    const uint64_t before = nodes[rng.below(static_cast<uint32_t>(nodes.size()))];
    const auto token = static_cast<int32_t>(rng.below(3));
    const auto expected = known.find({before, token});
    const bool is_known = expected != known.end();
    EXPECT_EQ(cache.find(before, Tokens{token}).page, is_known ? expected->second : -1);
    if (cache.knows(page)) {
      cache.forget(page);
      known.erase(content[static_cast<size_t>(page)]);
    } else {
      const uint64_t node = cache.insert(before, Tokens{token}, page);
      if (!is_known) {
        known[{before, token}] = page;
        content[static_cast<size_t>(page)] = {before, token};
      }
      if (nodes.size() < 40) nodes.push_back(node);
    }
    ASSERT_EQ(cache.check(), nullptr);
    ASSERT_EQ(cache.entries(), static_cast<int32_t>(known.size()));
  }
}

}  // namespace
}  // namespace spear
