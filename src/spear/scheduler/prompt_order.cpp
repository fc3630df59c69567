#include "spear/scheduler/prompt_order.h"

#include <algorithm>

namespace spear {

int64_t order_prompts(double now, std::vector<PromptPlace>& places, std::vector<int32_t>& kept) {
  const auto at = [&](int32_t i) -> PromptPlace& { return places[static_cast<size_t>(i)]; };
  // The first of this heap steps back first: least priority, then longest, then last by turn.
  const auto steps_back_later = [&](int32_t a, int32_t b) {
    const PromptPlace &x = at(a), &y = at(b);
    if (x.sequence->priority != y.sequence->priority)
      return x.sequence->priority > y.sequence->priority;
    if (x.seconds != y.seconds) return x.seconds < y.seconds;
    return a < b;
  };
  kept.clear();
  int64_t late = 0;
  double end = now;
  for (int32_t i = 0; i < static_cast<int32_t>(places.size()); ++i) {
    PromptPlace& place = at(i);
    place.late = false;
    end += place.seconds;
    if (!place.fixed) {
      kept.push_back(i);
      std::ranges::push_heap(kept, steps_back_later);
    }
    if (end <= place.due || kept.empty()) continue;
    // One that would be late even if it were alone steps back itself.
    const bool hopeless = !place.fixed && now + place.seconds > place.due;
    if (hopeless) {
      std::erase(kept, i);
      std::ranges::make_heap(kept, steps_back_later);
      kept.push_back(i);
    } else {
      std::ranges::pop_heap(kept, steps_back_later);
    }
    PromptPlace& back = at(kept.back());
    kept.pop_back();
    back.late = true;
    end -= back.seconds;
    ++late;
  }
  if (late == 0) return 0;
  // Stable, without memory: runs_before() is a strict order.
  std::ranges::sort(places, [](const PromptPlace& a, const PromptPlace& b) {
    if (a.late != b.late) return b.late;
    return runs_before(*a.sequence, *b.sequence);
  });
  return late;
}

}  // namespace spear
