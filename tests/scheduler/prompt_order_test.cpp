#include "spear/scheduler/prompt_order.h"

#include <algorithm>
#include <memory>

#include <gtest/gtest.h>

#include "spear/base/rng.h"

namespace spear {
namespace {

struct Prompts {
  Sequence& add(double due, double seconds, int32_t priority = 0, bool fixed = false) {
    Sequence& s = *sequences.emplace_back(std::make_unique<Sequence>());
    s.id = sequences.size();
    s.priority = priority;
    s.turn = due;
    places.push_back({.sequence = &s, .seconds = seconds, .due = due, .fixed = fixed});
    return s;
  }
  int64_t order(double now = 0) {
    std::ranges::sort(places, [](const PromptPlace& a, const PromptPlace& b) {
      return runs_before(*a.sequence, *b.sequence);
    });
    return order_prompts(now, places, kept);
  }
  std::vector<uint64_t> ids() const {
    std::vector<uint64_t> ids;
    for (const PromptPlace& p : places) ids.push_back(p.sequence->id);
    return ids;
  }
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::vector<PromptPlace> places;
  std::vector<int32_t> kept;
};

using Ids = std::vector<uint64_t>;

TEST(PromptOrder, KeepsTheOrderWhereAllAreInTime) {
  Prompts p;
  p.add(3, 1), p.add(5, 2), p.add(9, 3);
  EXPECT_EQ(p.order(), 0);
  EXPECT_EQ(p.ids(), (Ids{1, 2, 3}));
}

TEST(PromptOrder, ALongPromptStepsBackForTwoShortOnes) {
  Prompts p;
  p.add(6, 5), p.add(7, 2), p.add(8, 2);
  EXPECT_EQ(p.order(), 1);
  EXPECT_EQ(p.ids(), (Ids{2, 3, 1}));
}

TEST(PromptOrder, LowPriorityStepsBackFirstAndFixedOnesNever) {
  Prompts p;
  p.add(6, 5, 1), p.add(7, 3, 0), p.add(8, 2, 1);
  EXPECT_EQ(p.order(), 1);
  EXPECT_EQ(p.ids(), (Ids{1, 3, 2}));
  Prompts q;
  q.add(1, 5, 0, true), q.add(4, 2), q.add(9, 2);
  EXPECT_EQ(q.order(), 1);
  EXPECT_EQ(q.ids(), (Ids{1, 3, 2}));
}

TEST(PromptOrder, AHopelessOneStepsBackItself) {
  Prompts p;
  p.add(2, 1), p.add(3, 9), p.add(4, 2);
  EXPECT_EQ(p.order(), 1);
  EXPECT_EQ(p.ids(), (Ids{1, 3, 2}));
}

// The most that can be in time, over all subsets: for a subset, by turn is best.
int64_t fewest_late(const std::vector<PromptPlace>& by_turn) {
  int64_t best = 0;
  for (uint32_t subset = 0; subset < 1U << by_turn.size(); ++subset) {
    double end = 0;
    int64_t count = 0;
    bool good = true;
    for (size_t i = 0; i < by_turn.size(); ++i) {
      if ((subset >> i & 1U) == 0) continue;
      end += by_turn[i].seconds;
      ++count;
      good = good && end <= by_turn[i].due;
    }
    if (good) best = std::max(best, count);
  }
  return static_cast<int64_t>(by_turn.size()) - best;
}

TEST(PromptOrder, MakesAsFewLateAsAnyOrderCould) {
  Rng rng(1);
  for (int trial = 0; trial < 300; ++trial) {
    Prompts p;
    const uint32_t count = 1 + rng.below(9);
    for (uint32_t i = 0; i < count; ++i) p.add(1 + 20 * rng.uniform(), 0.1 + 6 * rng.uniform());
    const int64_t late = p.order();
    std::vector<PromptPlace> by_turn = p.places;
    std::ranges::sort(by_turn, [](const PromptPlace& a, const PromptPlace& b) {
      return runs_before(*a.sequence, *b.sequence);
    });
    ASSERT_EQ(late, fewest_late(by_turn));
    double end = 0;
    for (const PromptPlace& place : p.places) {
      if (place.late) break;
      ASSERT_LE(end += place.seconds, place.due);
    }
  }
}

}  // namespace
}  // namespace spear
