// Questions with answers to choose from, and passages whose last word is to be guessed: the data
// sets of the field and anybody's own, in the formats that docs/eval-formats.md describes. Reads
// files; no other state.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"

namespace spear {

// One answer as a model sees it: how likely is `continuation` after `context`?
struct Choice {
  std::string context;
  std::string continuation;
  size_t bytes =
      0;  // of the answer itself: its log likelihood is divided by them for the normalised accuracy
};

struct Question {
  std::vector<Choice> choices;  // one alone: a last word
  int32_t answer = 0;           // the right one
  int64_t line = 0;             // in the file, from 1
};

enum class TaskKind : uint8_t { kChoices, kLastWord };

struct TaskSet {
  std::string name;    // "piqa"
  std::string source;  // the file, for messages
  TaskKind kind = TaskKind::kChoices;
  std::vector<Question> questions;
};

// "piqa", "arc_easy", "winogrande" of the data folder, asked as lm-evaluation-harness asks them.
bool is_known_task(std::string_view name);
std::vector<std::string> known_tasks();
Result<TaskSet> load_known_task(std::string_view name, const std::filesystem::path& data_folder);

// One object a line, either of
//   {"context": "Question: ...\nAnswer:", "choices": ["yes", "no"], "answer": 0}
//   {"contexts": ["The cat", "The dog"], "continuation": "barked.", "answer": 1}
// "answer" counts from 0; a choice follows its context after "delimiter", which is one space where
// absent.
Result<TaskSet> load_choices(const std::filesystem::path& file);

// One object a line: {"text": "..."}; the last word of each text is to be guessed, whole, from what
// stands before it.
Result<TaskSet> load_last_words(const std::filesystem::path& file);

// The first of every `step` questions: a quick subset that is the same every time.
void keep_every(TaskSet& set, int64_t step);

}  // namespace spear
