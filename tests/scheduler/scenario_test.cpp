// Stories of the scheduler as data: tests/scenarios/*.json say when requests arrive, how long they
// are, how many pages there are and what steps cost; and which batches follow. A batch is written
// "a 8 b 1* -c": eight rows of a; one of b, which chooses a token (*); c is preempted. Drafts stand
// behind a plus ("a 1+2*").
#include <algorithm>
#include <filesystem>
#include <map>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"

#include "scheduler/scheduler_harness.h"

namespace spear {
namespace {

namespace fs = std::filesystem;
using test::SchedulerHarness;

const fs::path kFolder = fs::path(SPEAR_SOURCE_DIR) / "tests/scenarios";

SchedulerOptions options_of(const Json& json) {
  SchedulerOptions o;
  o.pages = json.at("pages");
  o.page_size = json.value("page_size", 4);
  o.max_running = json.value("max_running", 8);
  o.max_waiting = json.value("max_waiting", 64);
  o.token_budget = json.value("token_budget", 32);
  o.max_draft = json.value("max_draft", 0);
  o.fixed_shapes = json.value("fixed_shapes", false);
  return o;
}

LinearCosts costs_of(const Json& json) {
  LinearCosts c;
  c.step = json.value("step", 1.0);
  c.decode_row = json.value("decode_row", 0.0);
  c.prefill_token = json.value("prefill_token", 0.0);
  c.context_token = json.value("context_token", 0.0);
  c.prefill_pair = json.value("prefill_pair", 0.0);
  return c;
}

class Story {
 public:
  explicit Story(const Json& json)
      : harness_(options_of(json.at("options")), costs_of(json.value("costs", Json::object()))) {
    for (const Json& r : json.at("requests")) {
      // Prompts of one family begin alike.
      const int32_t first = 1000 * r.value("family", static_cast<int32_t>(requests_.size()) + 1);
      Sequence& s = harness_.make(test::counting(r.at("prompt"), first), r.at("answer"),
                                  r.value("priority", 0));
      s.arrival = r.value("at", 0.0);
      s.itl_objective = r.value("itl", kNoDeadline);
      s.siblings = r.value("siblings", 0);
      names_[&s] = r.at("name");
      requests_.push_back({&s, r.value("cancel_at", kNoDeadline), r.value("drafts", 0)});
    }
    harness_.right_drafts = [right = json.value("right_drafts", 0)](const ScheduledRows&) {
      return int64_t{right};
    };
  }

  // Every batch until all have ended.
  std::vector<std::string> tell() {
    std::vector<std::string> batches;
    while (batches.size() < 200) {
      happen();
      const double before = harness_.now;
      if (harness_.step()) {
        batches.push_back(text());
      } else if (!skip_to_next(before)) {
        break;
      }
      if (testing::Test::HasFatalFailure()) break;
    }
    EXPECT_EQ(harness_.scheduler.pool().free_pages(), harness_.scheduler.pool().size());
    return batches;
  }

 private:
  struct Part {
    Sequence* sequence;
    double cancel_at;
    int64_t drafts;
  };

  void happen() {
    for (Part& part : requests_) {
      Sequence& s = *part.sequence;
      if (s.state == SequenceState::kNew && s.arrival <= harness_.now) {
        EXPECT_TRUE(harness_.scheduler.add(s)) << names_[&s];
      }
      if (part.cancel_at <= harness_.now) harness_.scheduler.remove(s);
      s.draft.clear();
      if (s.state == SequenceState::kRunning && s.decoding()) s.draft.assign(part.drafts, 1);
    }
  }

  bool skip_to_next(double now) {
    double next = kNoDeadline;
    for (const Part& part : requests_)
      if (part.sequence->state == SequenceState::kNew)
        next = std::min(next, part.sequence->arrival);
    if (next == kNoDeadline || next <= now) return false;
    harness_.now = next;
    return true;
  }

  std::string text() {
    std::string line;
    const auto add = [&](const std::string& word) { line += (line.empty() ? "" : " ") + word; };
    for (const Sequence* s : harness_.batch.preempted) add("-" + names_[s]);
    for (const ScheduledRows& r : harness_.batch.rows)
      add(fmt::format("{} {}{}{}", names_[r.sequence], r.rows - r.drafts,
                      r.drafts > 0 ? fmt::format("+{}", r.drafts) : "", r.samples ? "*" : ""));
    return line;
  }

  SchedulerHarness harness_;
  std::vector<Part> requests_;
  std::map<const Sequence*, std::string> names_;
};

class Scenario : public testing::TestWithParam<std::string> {};

TEST_P(Scenario, RunsTheExpectedBatches) {
  const fs::path path = kFolder / (GetParam() + ".json");
  const Json json = value_or_throw(parse_json(value_or_throw(read_text_file(path)), GetParam()));
  Story story(json);
  const std::vector<std::string> batches = story.tell();
  std::vector<std::string> expected;
  for (const Json& batch : json.at("batches")) expected.push_back(batch);
  std::string all;
  for (const std::string& batch : batches) all += fmt::format("    \"{}\",\n", batch);
  EXPECT_EQ(batches, expected) << json.at("story") << "\nfound:\n" << all;
}

std::vector<std::string> scenarios() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kFolder))
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  std::ranges::sort(names);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Scheduler, Scenario, testing::ValuesIn(scenarios()),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace spear
