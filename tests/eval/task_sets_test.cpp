#include "spear/eval/task_sets.h"

#include <gtest/gtest.h>

#include "support/shared_data.h"
#include "support/temporary_directory.h"

namespace spear {
namespace {

using test::kNoSharedData;
using test::shared_data;
using test::TemporaryDirectory;

std::string refusal_of(const Result<TaskSet>& set) {
  return set ? std::string("accepted") : set.error().message;
}

TEST(KnownTask, PiqaIsAskedAsTheHarnessAsksIt) {
  const auto folder = shared_data("");
  if (!folder) GTEST_SKIP() << kNoSharedData;
  const auto set = load_known_task("piqa", *folder);
  ASSERT_TRUE(set) << refusal_of(set);
  ASSERT_EQ(set->questions.size(), 1838u);
  const Question& first = set->questions.front();
  EXPECT_EQ(first.choices[0].context,
            "Question: How do I ready a guinea pig cage for it's new occupants?\nAnswer:");
  EXPECT_EQ(first.choices[0].context, first.choices[1].context);
  EXPECT_TRUE(first.choices[0].continuation.starts_with(" Provide the guinea pig"));
  EXPECT_EQ(first.choices[0].bytes + 1, first.choices[0].continuation.size());
  EXPECT_EQ(first.answer, 0);
  int64_t seconds = 0;
  for (const Question& question : set->questions) seconds += question.answer;
  EXPECT_EQ(seconds, 928);
}

TEST(KnownTask, ArcEasyHasThreeToFiveChoices) {
  const auto folder = shared_data("");
  if (!folder) GTEST_SKIP() << kNoSharedData;
  const auto set = load_known_task("arc_easy", *folder);
  ASSERT_TRUE(set) << refusal_of(set);
  ASSERT_EQ(set->questions.size(), 2376u);
  int64_t by_count[6] = {};
  for (const Question& question : set->questions) ++by_count[question.choices.size()];
  EXPECT_EQ(by_count[3], 7);
  EXPECT_EQ(by_count[4], 2365);
  EXPECT_EQ(by_count[5], 4);
  EXPECT_TRUE(set->questions.front().choices[0].context.starts_with("Question: Which statement"));
  EXPECT_EQ(set->questions.front().choices[3].continuation,
            " The producers in all ecosystems are plants.");
}

TEST(KnownTask, WinograndeScoresWhatFollowsTheOption) {
  const auto folder = shared_data("");
  if (!folder) GTEST_SKIP() << kNoSharedData;
  const auto set = load_known_task("winogrande", *folder);
  ASSERT_TRUE(set) << refusal_of(set);
  ASSERT_EQ(set->questions.size(), 1267u);
  const Question& first = set->questions.front();
  EXPECT_EQ(first.choices[0].context, "Sarah was a much better surgeon than Maria so Sarah");
  EXPECT_EQ(first.choices[1].context, "Sarah was a much better surgeon than Maria so Maria");
  EXPECT_EQ(first.choices[0].continuation, " always got the easier cases.");
  EXPECT_EQ(first.choices[1].continuation, first.choices[0].continuation);
  EXPECT_EQ(first.answer, 1);
  int64_t seconds = 0;
  for (const Question& question : set->questions) seconds += question.answer;
  EXPECT_EQ(seconds, 639);
}

TEST(KnownTask, UnknownNamesAreRefused) {
  const auto set = load_known_task("mmlu", "/");
  ASSERT_FALSE(set);
  EXPECT_EQ(set.error().code, ErrorCode::kUsage);
}

TEST(OwnChoices, ReadBothForms) {
  const TemporaryDirectory folder;
  const auto file = folder.file(
      "quiz.jsonl",
      "{\"context\": \"Q:\", \"choices\": [\"yes\", \"no\", \"perhaps\"], \"answer\": 2}\n"
      "\n"
      "{\"contexts\": [\"The cat\", \"The dog\"], \"continuation\": \"barked.\", \"answer\": 1}\r\n"
      "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 0, \"delimiter\": \"\"}");
  const auto set = load_choices(file);
  ASSERT_TRUE(set) << refusal_of(set);
  EXPECT_EQ(set->name, "quiz");
  ASSERT_EQ(set->questions.size(), 3u);
  EXPECT_EQ(set->questions[0].choices[2].continuation, " perhaps");
  EXPECT_EQ(set->questions[0].choices[2].bytes, 7u);
  EXPECT_EQ(set->questions[0].answer, 2);
  EXPECT_EQ(set->questions[1].line, 3);
  EXPECT_EQ(set->questions[1].choices[1].context, "The dog");
  EXPECT_EQ(set->questions[1].choices[1].continuation, " barked.");
  EXPECT_EQ(set->questions[2].choices[0].continuation, "b");
}

TEST(OwnChoices, RefuseByLine) {
  const TemporaryDirectory folder;
  const std::string good = "{\"context\": \"Q:\", \"choices\": [\"a\", \"b\"], \"answer\": 0}\n";
  const auto refusal = [&](const std::string& bad) {
    return refusal_of(load_choices(folder.file("quiz.jsonl", good + bad)));
  };
  for (const char* bad : {
           "{\"context\": \"Q:\", \"choices\": [\"a\", \"b\"], \"answer\":",  // cut off
           "[1, 2]",
           "{\"choices\": [\"a\", \"b\"], \"answer\": 0}",
           "{\"context\": 1, \"choices\": [\"a\", \"b\"], \"answer\": 0}",
           "{\"context\": \"Q:\", \"choices\": [\"a\"], \"answer\": 0}",
           "{\"context\": \"Q:\", \"choices\": [\"a\", \"\"], \"answer\": 0}",
           "{\"context\": \"Q:\", \"choices\": [\"a\", 2], \"answer\": 0}",
           "{\"context\": \"Q:\", \"choices\": [\"a\", \"b\"], \"answer\": 2}",
           "{\"context\": \"Q:\", \"choices\": [\"a\", \"b\"], \"answer\": -1}",
           "{\"context\": \"Q:\", \"choices\": [\"a\", \"b\"], \"answer\": \"a\"}",
           "{\"context\": \"Q:\", \"choices\": [\"a\", \"b\"]}",
           "{\"contexts\": [\"a\", \"b\"], \"continuation\": \"\", \"answer\": 0}",
           "{\"contexts\": [\"a\", \"b\"], \"answer\": 0}",
           "{\"context\": \"\xff\", \"choices\": [\"a\", \"b\"], \"answer\": 0}",
       }) {
    const std::string message = refusal(bad);
    EXPECT_NE(message.find("quiz.jsonl line 2"), std::string::npos) << bad << " -> " << message;
  }
  EXPECT_NE(refusal_of(load_choices(folder.file("empty.jsonl", "\n \n"))).find("no question"),
            std::string::npos);
  EXPECT_NE(refusal_of(load_choices("/no/such.jsonl")).find("/no/such.jsonl"), std::string::npos);
}

TEST(LastWords, SplitAtTheLastSpace) {
  const TemporaryDirectory folder;
  const auto set =
      load_last_words(folder.file("words.jsonl", "{\"text\": \"he went back home \"}\n"));
  ASSERT_TRUE(set) << refusal_of(set);
  EXPECT_EQ(set->kind, TaskKind::kLastWord);
  EXPECT_EQ(set->questions[0].choices[0].context, "he went back");
  EXPECT_EQ(set->questions[0].choices[0].continuation, " home");
  for (const char* bad : {"{\"text\": \"word\"}", "{\"text\": \"\"}", "{\"text\": 3}", "{}"}) {
    const std::string message = refusal_of(load_last_words(folder.file("words.jsonl", bad)));
    EXPECT_NE(message.find("words.jsonl line 1"), std::string::npos) << bad << " -> " << message;
  }
}

TEST(Piqa, RefusesLabelsThatDoNotFit) {
  const TemporaryDirectory folder;
  folder.file("tasks/piqa/valid.jsonl", "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\"}\n");
  folder.file("tasks/piqa/valid-labels.lst", "0\n1\n");
  EXPECT_NE(refusal_of(load_known_task("piqa", folder.path())).find("2 labels for 1 questions"),
            std::string::npos);
  folder.file("tasks/piqa/valid-labels.lst", "2\n");
  EXPECT_NE(refusal_of(load_known_task("piqa", folder.path())).find("line 1"), std::string::npos);
}

TEST(QuickSubset, KeepsEveryNth) {
  TaskSet set;
  for (int64_t i = 0; i < 10; ++i) {
    Question question;
    question.line = i;
    set.questions.push_back(question);
  }
  keep_every(set, 4);
  ASSERT_EQ(set.questions.size(), 3u);
  EXPECT_EQ(set.questions[2].line, 8);
}

}  // namespace
}  // namespace spear
