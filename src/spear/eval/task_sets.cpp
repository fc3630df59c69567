#include "spear/eval/task_sets.h"

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

#include <fmt/core.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"
#include "spear/base/printable.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostChoices = 64;

// A line of a file, for messages.
struct Place {
  const fs::path& file;
  int64_t line;

  [[nodiscard]] tl::unexpected<Error> error(std::string_view what) const {
    return fail(ErrorCode::kBadFile, fmt::format("{} line {}: {}", file.string(), line, what));
  }
};

using ReadLine = std::function<Result<Question>(const Json& object, const Place& place)>;

// Every line that is not blank is one object.
Result<std::vector<Question>> read_lines(const fs::path& file, const ReadLine& read) {
  const auto text = read_text_file(file);
  if (!text) return tl::unexpected(text.error());
  std::vector<Question> questions;
  int64_t line = 0;
  for (size_t begin = 0; begin < text->size();) {
    const size_t end = std::min(text->find('\n', begin), text->size());
    const std::string_view row = std::string_view(*text).substr(begin, end - begin);
    begin = end + 1;
    ++line;
    if (row.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const auto object = parse_json(row, fmt::format("{} line {}", file.string(), line));
    if (!object) return tl::unexpected(object.error());
    const Place place{file, line};
    if (!object->is_object()) return place.error("expected one JSON object a line");
    auto question = read(*object, place);
    if (!question) return tl::unexpected(question.error());
    question->line = line;
    questions.push_back(std::move(*question));
  }
  if (questions.empty())
    return fail(
        ErrorCode::kBadFile,
        fmt::format("{}: no question in it; expected one JSON object a line", file.string()));
  return questions;
}

Result<std::string> text_field(const Json& object, const char* name, const Place& place) {
  const auto found = object.find(name);
  if (found == object.end()) return place.error(fmt::format("the field \"{}\" is missing", name));
  if (!found->is_string()) return place.error(fmt::format("\"{}\" is not a string", name));
  return found->get<std::string>();
}

Result<std::vector<std::string>> texts_field(const Json& object, const char* name,
                                             const Place& place) {
  const auto found = object.find(name);
  if (found == object.end()) return place.error(fmt::format("the field \"{}\" is missing", name));
  if (!found->is_array() || found->size() < 2 || found->size() > kMostChoices)
    return place.error(fmt::format("\"{}\" is not a list of 2 to {} strings", name, kMostChoices));
  std::vector<std::string> texts;
  for (const Json& entry : *found) {
    if (!entry.is_string())
      return place.error(fmt::format("\"{}\" holds something other than strings", name));
    if (entry.get_ref<const std::string&>().empty())
      return place.error(
          fmt::format("\"{}\" holds an empty string, which no model can score", name));
    texts.push_back(entry.get<std::string>());
  }
  return texts;
}

// A lambda that makes a question of texts; errors of the fields come first.
template <class... Texts, class Make>
Result<Question> with(Make make, const Result<Texts>&... texts) {
  const Error* error = nullptr;
  ((error == nullptr&& !texts ? error = &texts.error() : error), ...);
  if (error != nullptr) return tl::unexpected(*error);
  return make(*texts...);
}

Question question_of(const std::string& context, const std::vector<std::string>& answers,
                     int32_t right, const std::string& delimiter = " ") {
  Question question{.choices = {}, .answer = right};
  for (const std::string& answer : answers)
    question.choices.push_back({context, delimiter + answer, answer.size()});
  return question;
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

Result<TaskSet> set_of(std::string_view name, const fs::path& file, const ReadLine& read) {
  auto questions = read_lines(file, read);
  if (!questions) return tl::unexpected(questions.error());
  return TaskSet{
      .name = std::string(name), .source = file.string(), .questions = std::move(*questions)};
}

Result<std::vector<int32_t>> read_labels(const fs::path& file) {
  const auto text = read_text_file(file);
  if (!text) return tl::unexpected(text.error());
  std::vector<int32_t> labels;
  for (size_t begin = 0; begin < text->size();) {
    const size_t end = std::min(text->find('\n', begin), text->size());
    const std::string_view row = trimmed(std::string_view(*text).substr(begin, end - begin));
    begin = end + 1;
    if (row != "0" && row != "1")
      return fail(ErrorCode::kBadFile,
                  fmt::format("{} line {}: found {}, expected 0 or 1", file.string(),
                              labels.size() + 1, printable(row)));
    labels.push_back(row == "1" ? 1 : 0);
  }
  return labels;
}

Result<TaskSet> load_piqa(const fs::path& folder) {
  const fs::path label_file = folder / "tasks/piqa/valid-labels.lst";
  const auto labels = read_labels(label_file);
  if (!labels) return tl::unexpected(labels.error());
  auto set =
      set_of("piqa", folder / "tasks/piqa/valid.jsonl", [](const Json& object, const Place& place) {
        return with(
            [](const std::string& goal, const std::string& first,
               const std::string& second) -> Result<Question> {
              return question_of(fmt::format("Question: {}\nAnswer:", goal), {first, second}, 0);
            },
            text_field(object, "goal", place), text_field(object, "sol1", place),
            text_field(object, "sol2", place));
      });
  if (!set) return set;
  if (labels->size() != set->questions.size())
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: {} labels for {} questions", label_file.string(), labels->size(),
                            set->questions.size()));
  for (size_t i = 0; i < labels->size(); ++i) set->questions[i].answer = (*labels)[i];
  return set;
}

Result<Question> arc_question(const Json& object, const Place& place) {
  const auto key = text_field(object, "answerKey", place);
  if (!key) return tl::unexpected(key.error());
  const auto question = object.find("question");
  if (question == object.end() || !question->is_object())
    return place.error("the field \"question\" is missing");
  const auto stem = text_field(*question, "stem", place);
  if (!stem) return tl::unexpected(stem.error());
  const auto choices = question->find("choices");
  if (choices == question->end() || !choices->is_array() || choices->size() > kMostChoices)
    return place.error("the list \"choices\" is missing");
  std::vector<std::string> answers;
  int32_t right = -1;
  for (const Json& choice : *choices) {
    if (!choice.is_object()) return place.error("a choice is not an object with text and label");
    const auto text = text_field(choice, "text", place);
    const auto label = text_field(choice, "label", place);
    if (!text) return tl::unexpected(text.error());
    if (!label) return tl::unexpected(label.error());
    if (*label == *key) right = static_cast<int32_t>(answers.size());
    answers.push_back(*text);
  }
  if (right < 0)
    return place.error(fmt::format("no choice has the label {} of answerKey", printable(*key)));
  return question_of(fmt::format("Question: {}\nAnswer:", *stem), answers, right);
}

// Partial scoring: the options stand in the context, what follows them is scored.
Result<Question> winogrande_question(const Json& object, const Place& place) {
  return with(
      [&](const std::string& sentence, const std::string& first, const std::string& second,
          const std::string& answer) -> Result<Question> {
        const size_t gap = sentence.find('_');
        if (gap == std::string::npos) return place.error("the sentence has no \"_\"");
        if (answer != "1" && answer != "2")
          return place.error("\"answer\" is neither \"1\" nor \"2\"");
        const std::string rest(trimmed(std::string_view(sentence).substr(gap + 1)));
        if (rest.empty()) return place.error("nothing follows the \"_\", so nothing can be scored");
        Question question{.choices = {}, .answer = answer == "1" ? 0 : 1};
        for (const std::string& option : {first, second})
          question.choices.push_back({sentence.substr(0, gap) + option, " " + rest, rest.size()});
        return question;
      },
      text_field(object, "sentence", place), text_field(object, "option1", place),
      text_field(object, "option2", place), text_field(object, "answer", place));
}

Result<int32_t> answer_field(const Json& object, size_t choices, const Place& place) {
  const auto found = object.find("answer");
  if (found == object.end()) return place.error("the field \"answer\" is missing");
  if (!found->is_number_integer() || found->get<int64_t>() < 0 ||
      found->get<int64_t>() >= static_cast<int64_t>(choices))
    return place.error(fmt::format("\"answer\" is not a number from 0 to {}", choices - 1));
  return found->get<int32_t>();
}

Result<Question> own_question(const Json& object, const Place& place) {
  std::string delimiter = " ";
  if (object.contains("delimiter")) {
    const auto own = text_field(object, "delimiter", place);
    if (!own) return tl::unexpected(own.error());
    delimiter = *own;
  }
  const bool many_contexts = object.contains("contexts");
  const auto texts = texts_field(object, many_contexts ? "contexts" : "choices", place);
  if (!texts) return tl::unexpected(texts.error());
  const auto other = text_field(object, many_contexts ? "continuation" : "context", place);
  if (!other) return tl::unexpected(other.error());
  const auto answer = answer_field(object, texts->size(), place);
  if (!answer) return tl::unexpected(answer.error());
  if (!many_contexts) return question_of(*other, *texts, *answer, delimiter);
  if (other->empty()) return place.error("\"continuation\" is empty, so nothing can be scored");
  Question question{.choices = {}, .answer = *answer};
  for (const std::string& context : *texts)
    question.choices.push_back({context, delimiter + *other, other->size()});
  return question;
}

Result<Question> last_word_question(const Json& object, const Place& place) {
  const auto text = text_field(object, "text", place);
  if (!text) return tl::unexpected(text.error());
  const std::string_view passage = trimmed(*text);
  const size_t space = passage.find_last_of(" \t\r\n");
  if (space == std::string_view::npos)
    return place.error(
        "\"text\" has fewer than two words; the last one is guessed from those before it");
  const std::string_view before = trimmed(passage.substr(0, space));
  const std::string_view word = passage.substr(space + 1);
  return Question{.choices = {{std::string(before), fmt::format(" {}", word), word.size()}},
                  .answer = 0};
}

}  // namespace

std::vector<std::string> known_tasks() {
  return {"piqa", "arc_easy", "winogrande"};
}

bool is_known_task(std::string_view name) {
  const auto tasks = known_tasks();
  return std::find(tasks.begin(), tasks.end(), name) != tasks.end();
}

Result<TaskSet> load_known_task(std::string_view name, const fs::path& data_folder) {
  if (name == "piqa") return load_piqa(data_folder);
  if (name == "arc_easy")
    return set_of(name, data_folder / "tasks/arc_easy/ARC-Easy-Test.jsonl", arc_question);
  if (name == "winogrande")
    return set_of(name, data_folder / "tasks/winogrande/dev.jsonl", winogrande_question);
  return fail(ErrorCode::kUsage, fmt::format("task {}: unknown; the tasks are piqa, arc_easy and "
                                             "winogrande, and --choices takes a file "
                                             "of your own",
                                             printable(name)));
}

Result<TaskSet> load_choices(const fs::path& file) {
  return set_of(file.stem().string(), file, own_question);
}

Result<TaskSet> load_last_words(const fs::path& file) {
  auto set = set_of(file.stem().string(), file, last_word_question);
  if (set) set->kind = TaskKind::kLastWord;
  return set;
}

void keep_every(TaskSet& set, int64_t step) {
  std::vector<Question> kept;
  for (size_t i = 0; i < set.questions.size(); i += static_cast<size_t>(step))
    kept.push_back(std::move(set.questions[i]));
  set.questions = std::move(kept);
}

}  // namespace spear
