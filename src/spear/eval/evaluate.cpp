#include "spear/eval/evaluate.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <set>

#include <fmt/core.h>

#include "spear/eval/texts.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kQuickTokens = 16384;    // of each text
constexpr int64_t kQuickQuestionStep = 8;  // every eighth

const char* name_of(Compute compute) {
  return compute == Compute::kF32 ? "f32" : "bf16";
}

bool needs_data_folder(const EvalOptions& options) {
  return !options.tasks.empty() ||
         std::any_of(options.texts.begin(), options.texts.end(),
                     [](const auto& spec) { return is_known_text(spec.source); });
}

// Everything is read and checked before the first forward pass.
class Workload {
 public:
  Workload(const EvalOptions& options, const TextEncoder& encoder, const ModelConfig& config) {
    const fs::path folder = needs_data_folder(options)
                                ? value_or_throw(find_data_folder(options.data_folder))
                                : fs::path();
    for (const TextSpec& spec : options.texts) add_text(spec, options, folder, encoder, config);
    for (const std::string& name : options.tasks) add_task(load_known_task(name, folder), options);
    for (const fs::path& file : options.choice_files) add_task(load_choices(file), options);
    for (const fs::path& file : options.last_word_files) add_task(load_last_words(file), options);
    for (const TaskSet& set : sets_)
      tasks.push_back(value_or_throw(encode_task(set, encoder, config)));
  }

  std::deque<Windows> texts;  // addresses stay
  std::vector<EncodedTask> tasks;

 private:
  void add_text(TextSpec spec, const EvalOptions& options, const fs::path& folder,
                const TextEncoder& encoder, const ModelConfig& config) {
    if (options.quick) {
      const int64_t few = std::max<int64_t>(4, kQuickTokens / spec.protocol.context);
      spec.protocol.max_windows =
          spec.protocol.max_windows > 0 ? std::min(spec.protocol.max_windows, few) : few;
    }
    const std::string name = display_name(spec);
    take_name(name, "--text");
    const std::string text = value_or_throw(load_text(spec, folder));
    std::vector<int32_t> ids;
    if (encoder.bos >= 0) ids.push_back(encoder.bos);
    const std::vector<int32_t> encoded = encoder.encode(text);
    ids.insert(ids.end(), encoded.begin(), encoded.end());
    texts.push_back(
        value_or_throw(cut_windows(name, spec.protocol, ids, encoder.bos,
                                   {config.vocab_size, config.max_position_embeddings})));
  }

  void add_task(Result<TaskSet> loaded, const EvalOptions& options) {
    TaskSet set = value_or_throw(std::move(loaded));
    take_name(set.name, "--choices or --last-word");
    if (options.quick) keep_every(set, kQuickQuestionStep);
    sets_.push_back(std::move(set));
  }

  void take_name(const std::string& name, std::string_view where) {
    if (!names_.insert(name).second)
      throw Failure(
          ErrorCode::kUsage,
          fmt::format(
              "{}: two of the texts and tasks are called {}; results are told apart by name, so "
              "rename a file or leave one out",
              where, name));
  }

  std::deque<TaskSet> sets_;
  std::set<std::string> names_;
};

EvalOptions with_defaults(EvalOptions options) {
  if (!options.texts.empty() || !options.tasks.empty() || !options.choice_files.empty() ||
      !options.last_word_files.empty())
    return options;
  options.texts = default_texts();
  options.tasks = known_tasks();
  return options;
}

void check_same_vocabulary(const ReferenceModel& reference, const CompressedModel& model) {
  if (reference.model->config.vocab_size == model.model->config.vocab_size) return;
  throw Failure(
      ErrorCode::kUsage,
      fmt::format(
          "{} has a vocabulary of {} tokens and the reference {} has {}; they are not the same "
          "model, so their predictions cannot be compared",
          model.path, model.model->config.vocab_size, reference.path,
          reference.model->config.vocab_size));
}

// The reference's part: what every model is judged by.
struct ReferencePart {
  std::deque<ReferenceStates> states;  // one a text
  std::vector<TaskScores> tasks;
};

}  // namespace

std::vector<TextSpec> default_texts() {
  return {{"wikitext2", {.context = 2048, .second_half = false, .max_windows = 0}},
          {"wikitext2", {.context = 512, .second_half = true, .max_windows = 0}}};
}

EvalResult evaluate(Backend& backend, const TextEncoder& encoder, const ReferenceModel& reference,
                    std::span<const CompressedModel> models, const EvalOptions& chosen,
                    Progress& progress) {
  const EvalOptions options = with_defaults(chosen);
  for (const CompressedModel& model : models) check_same_vocabulary(reference, model);
  const Workload work(options, encoder, reference.model->config);
  const ScoringOptions scoring{.cache_folder = options.cache_folder,
                               .batch_rows = options.batch_rows};

  EvalResult result;
  result.quick = options.quick;
  result.backend = backend.name();
  result.reference_states =
      fmt::format("{}, logits recomputed by the head", name_of(options.reference_compute));
  result.reference.path = reference.path;
  result.reference.content_hash = reference.model->content_hash;
  result.reference.compute = name_of(options.reference_compute);
  result.reference.bytes = bytes_of(*reference.model);
  result.reference.bits_per_weight = bits_per_weight(*reference.model);

  Decoder teacher(backend, *reference.model, options.reference_compute);
  const ScoredModel scored_teacher{"reference", reference.model->content_hash,
                                   options.reference_compute};
  ReferencePart part;
  for (const Windows& windows : work.texts) {
    part.states.emplace_back(teacher, scored_teacher, windows, scoring).compute(progress);
    result.reference.texts.push_back(
        summarise(windows, part.states.back().scores(), nullptr, options.seed));
  }
  for (const EncodedTask& task : work.tasks) {
    part.tasks.push_back(score_task(teacher, scored_teacher, task, scoring, progress));
    result.reference.tasks.push_back(summarise(*task.set, part.tasks.back(), nullptr));
  }

  for (const CompressedModel& model : models) {
    ModelResult& found = result.models.emplace_back();
    found.path = model.path;
    found.content_hash = model.content_hash;
    found.compute = name_of(options.model_compute);
    found.bytes = bytes_of(*model.model);
    found.bits_per_weight = bits_per_weight(*model.model);
    Decoder student(backend, *model.model, options.model_compute, model.decoder_path);
    if (student.program() != nullptr) found.compute = student.describe();
    if (options.model_kv != DType::kF32)
      found.compute += fmt::format(", keys and values in {}", kv_type_name(options.model_kv));
    const ScoredModel scored{fs::path(model.path).filename().string(), model.content_hash,
                             options.model_compute, options.model_kv};
    for (size_t i = 0; i < work.texts.size(); ++i) {
      const TokenScores scores =
          score_against(student, scored, part.states[i], work.texts[i], scoring, progress);
      found.texts.push_back(
          summarise(work.texts[i], scores, &part.states[i].scores(), options.seed));
    }
    for (size_t i = 0; i < work.tasks.size(); ++i) {
      const TaskScores scores = score_task(student, scored, work.tasks[i], scoring, progress);
      found.tasks.push_back(summarise(*work.tasks[i].set, scores, &part.tasks[i]));
    }
  }
  if (!options.cache_folder.empty()) trim_shard_stores(options.cache_folder, options.cache_limit);
  return result;
}

}  // namespace spear
