#include <cmath>
#include <limits>

#include <fmt/core.h>

#include "spear/base/json.h"
#include "spear/eval/eval_result.h"

namespace spear {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int kSchemaVersion = 1;

// JSON has no NaN: a figure that does not exist is null.
Json number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

Json interval_bounds(const Interval& interval) {
  return Json::array({number(interval.low), number(interval.high)});
}

Json json_of(const KlHistogram& histogram) {
  Json edges = Json::array();
  for (int bin = 0; bin + 1 < KlHistogram::kBins; ++bin)
    edges.push_back(KlHistogram::upper_edge(bin));
  return {{"edges", edges}, {"counts", histogram.counts}};
}

Json json_of(const TextResult& text) {
  Json out = {{"tokens", text.tokens},
              {"windows", text.windows},
              {"scored", text.scored},
              {"perplexity", number(text.perplexity)}};
  if (text.divergence) {
    const Divergence& d = *text.divergence;
    out["kl_mean"] = number(d.kl.mean);
    out["kl_median"] = number(d.kl_median);
    out["kl_p99"] = number(d.kl_p99);
    out["top1_agreement"] = number(d.top1_agreement.mean);
  }
  out["perplexity_stderr"] = number(text.perplexity_stderr);
  out["perplexity_stderr_tokens"] = number(text.perplexity_stderr_tokens);
  if (text.divergence) {
    const Divergence& d = *text.divergence;
    out["kl_mean_stderr"] = number(d.kl.standard_error);
    out["kl_mean_95"] = interval_bounds(d.kl);
    out["top1_agreement_stderr"] = number(d.top1_agreement.standard_error);
    out["log_ratio"] = number(d.log_ratio.mean);
    out["log_ratio_stderr"] = number(d.log_ratio.standard_error);
    out["log_ratio_95"] = interval_bounds(d.log_ratio);
    out["kl_histogram"] = json_of(d.histogram);
  }
  out["text_hash"] = text.text_hash;
  return out;
}

Json json_of(const TaskResult& task) {
  Json out = {{"accuracy", number(task.accuracy)}};
  if (task.accuracy_norm) out["accuracy_norm"] = number(*task.accuracy_norm);
  out["stderr"] = number(task.accuracy_stderr);
  if (task.accuracy_norm_stderr) out["stderr_norm"] = number(*task.accuracy_norm_stderr);
  out["n"] = task.n;
  out["kind"] = task.kind == TaskKind::kChoices ? "choices" : "last_word";
  if (task.perplexity) out["perplexity"] = number(*task.perplexity);
  if (task.answers_changed) out["answers_changed"] = number(*task.answers_changed);
  return out;
}

Json json_of(const ModelResult& model) {
  Json out = {{"path", model.path},
              {"content_hash", model.content_hash},
              {"compute", model.compute},
              {"bytes", to_json(model.bytes)},
              {"bits_per_weight", number(model.bits_per_weight)},
              {"texts", Json::object()},
              {"tasks", Json::object()}};
  for (const TextResult& text : model.texts) out["texts"][text.name] = json_of(text);
  for (const TaskResult& task : model.tasks) out["tasks"][task.name] = json_of(task);
  return out;
}

// Reads fields of an object; what is absent or of another type is named in one error, kept until
// asked for.
class Reader {
 public:
  Reader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) note("is not an object");
  }
  template <class T>
  void get(const char* name, T& to) {
    const Json* field = find(name, true);
    if (field == nullptr) return;
    if (const bool right = std::is_same_v<T, std::string> ? field->is_string()
                           : std::is_same_v<T, bool>      ? field->is_boolean()
                                                          : field->is_number();
        !right)
      return note(fmt::format("\"{}\" has the wrong type", name));
    to = field->get<T>();
  }
  // null and absent are NaN.
  void get_real(const char* name, double& to) {
    const Json* field = find(name, false);
    to = field != nullptr && field->is_number() ? field->get<double>() : kNaN;
  }
  [[nodiscard]] const Json* find(const char* name, bool required) {
    if (!object_.is_object()) return nullptr;
    const auto found = object_.find(name);
    if (found != object_.end()) return &*found;
    if (required) note(fmt::format("\"{}\" is missing", name));
    return nullptr;
  }
  void note(std::string what) {
    if (error_.empty()) error_ = fmt::format("{} {}", where_, what);
  }
  [[nodiscard]] Result<void> done() const {
    if (error_.empty()) return {};
    return fail(ErrorCode::kBadFile, error_);
  }

 private:
  const Json& object_;
  std::string where_;
  std::string error_;
};

void read_bounds(Reader& reader, const char* name, Interval& interval) {
  interval.low = interval.high = kNaN;
  const Json* bounds = reader.find(name, false);
  if (bounds == nullptr || !bounds->is_array() || bounds->size() != 2) return;
  if ((*bounds)[0].is_number()) interval.low = (*bounds)[0].get<double>();
  if ((*bounds)[1].is_number()) interval.high = (*bounds)[1].get<double>();
}

void read_histogram(Reader& reader, KlHistogram& histogram) {
  const Json* stored = reader.find("kl_histogram", false);
  if (stored == nullptr) return;
  const auto counts = stored->is_object() ? stored->find("counts") : stored->end();
  if (!stored->is_object() || counts == stored->end() || !counts->is_array() ||
      counts->size() != histogram.counts.size())
    return reader.note("\"kl_histogram\" does not hold the bins of this version");
  for (size_t i = 0; i < histogram.counts.size(); ++i) {
    if (!(*counts)[i].is_number_integer())
      return reader.note("\"kl_histogram\" holds something other than counts");
    histogram.counts[i] = (*counts)[i].get<int64_t>();
  }
}

Result<TextResult> read_text(const Json& json, const std::string& name, const std::string& where) {
  Reader reader(json, where);
  TextResult text;
  text.name = name;
  reader.get("tokens", text.tokens);
  reader.get("windows", text.windows);
  reader.get("scored", text.scored);
  reader.get_real("perplexity", text.perplexity);
  reader.get_real("perplexity_stderr", text.perplexity_stderr);
  reader.get_real("perplexity_stderr_tokens", text.perplexity_stderr_tokens);
  reader.get("text_hash", text.text_hash);
  if (reader.find("kl_mean", false) != nullptr) {
    Divergence& d = text.divergence.emplace();
    reader.get_real("kl_mean", d.kl.mean);
    reader.get_real("kl_mean_stderr", d.kl.standard_error);
    read_bounds(reader, "kl_mean_95", d.kl);
    reader.get_real("kl_median", d.kl_median);
    reader.get_real("kl_p99", d.kl_p99);
    reader.get_real("top1_agreement", d.top1_agreement.mean);
    reader.get_real("top1_agreement_stderr", d.top1_agreement.standard_error);
    d.top1_agreement.low = d.top1_agreement.high = kNaN;
    reader.get_real("log_ratio", d.log_ratio.mean);
    reader.get_real("log_ratio_stderr", d.log_ratio.standard_error);
    read_bounds(reader, "log_ratio_95", d.log_ratio);
    read_histogram(reader, d.histogram);
  }
  if (auto done = reader.done(); !done) return tl::unexpected(done.error());
  return text;
}

Result<TaskResult> read_task(const Json& json, const std::string& name, const std::string& where) {
  Reader reader(json, where);
  TaskResult task;
  task.name = name;
  std::string kind;
  reader.get("n", task.n);
  reader.get_real("accuracy", task.accuracy);
  reader.get_real("stderr", task.accuracy_stderr);
  reader.get("kind", kind);
  task.kind = kind == "last_word" ? TaskKind::kLastWord : TaskKind::kChoices;
  const auto optional = [&](const char* field, std::optional<double>& to) {
    if (reader.find(field, false) != nullptr) reader.get_real(field, to.emplace());
  };
  optional("accuracy_norm", task.accuracy_norm);
  optional("stderr_norm", task.accuracy_norm_stderr);
  optional("perplexity", task.perplexity);
  optional("answers_changed", task.answers_changed);
  if (auto done = reader.done(); !done) return tl::unexpected(done.error());
  return task;
}

Result<void> read_bytes(const Json* json, const std::string& where, ByteParts& bytes) {
  if (json == nullptr) return {};
  Reader reader(*json, where);
  reader.get("total", bytes.total);
  reader.get("weights", bytes.weights);
  reader.get("scales", bytes.scales);
  reader.get("zeros", bytes.zeros);
  reader.get("compensators", bytes.compensators);
  reader.get("biases", bytes.biases);
  reader.get("norms", bytes.norms);
  reader.get("embedding", bytes.embedding);
  reader.get("head", bytes.head);
  reader.get("other", bytes.other);
  return reader.done();
}

Result<ModelResult> read_model(const Json& json, const std::string& where) {
  Reader reader(json, where);
  ModelResult model;
  reader.get("path", model.path);
  reader.get("content_hash", model.content_hash);
  reader.get("compute", model.compute);
  reader.get_real("bits_per_weight", model.bits_per_weight);
  const Json* bytes = reader.find("bytes", true);
  const Json* texts = reader.find("texts", true);
  const Json* tasks = reader.find("tasks", true);
  if (auto done = reader.done(); !done) return tl::unexpected(done.error());
  if (!texts->is_object() || !tasks->is_object())
    return fail(ErrorCode::kBadFile,
                fmt::format("{}: \"texts\" or \"tasks\" is not an object", where));
  if (auto read = read_bytes(bytes, where + " \"bytes\"", model.bytes); !read)
    return tl::unexpected(read.error());
  for (const auto& [name, value] : texts->items()) {
    auto text = read_text(value, name, fmt::format("{} text \"{}\"", where, name));
    if (!text) return tl::unexpected(text.error());
    model.texts.push_back(std::move(*text));
  }
  for (const auto& [name, value] : tasks->items()) {
    auto task = read_task(value, name, fmt::format("{} task \"{}\"", where, name));
    if (!task) return tl::unexpected(task.error());
    model.tasks.push_back(std::move(*task));
  }
  return model;
}

}  // namespace

Json to_json(const ByteParts& bytes) {
  return {{"total", bytes.total}, {"weights", bytes.weights},           {"scales", bytes.scales},
          {"zeros", bytes.zeros}, {"compensators", bytes.compensators}, {"biases", bytes.biases},
          {"norms", bytes.norms}, {"embedding", bytes.embedding},       {"head", bytes.head},
          {"other", bytes.other}};
}

std::string to_json_text(const EvalResult& result) {
  Json out = {{"version", kSchemaVersion},
              {"quick", result.quick},
              {"backend", result.backend},
              {"reference_states", result.reference_states},
              {"reference", json_of(result.reference)},
              {"models", Json::array()}};
  for (const ModelResult& model : result.models) out["models"].push_back(json_of(model));
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<EvalResult> eval_result_from_json_text(std::string_view text, std::string_view source) {
  const auto json = parse_json(text, source);
  if (!json) return tl::unexpected(json.error());
  Reader reader(*json, fmt::format("{}:", source));
  EvalResult result;
  int version = 0;
  reader.get("version", version);
  reader.get("quick", result.quick);
  reader.get("backend", result.backend);
  reader.get("reference_states", result.reference_states);
  const Json* reference = reader.find("reference", true);
  const Json* models = reader.find("models", true);
  if (version > kSchemaVersion)
    reader.note(fmt::format("has version {}, this program reads up to {}; use a newer spear",
                            version, kSchemaVersion));
  if (models != nullptr && !models->is_array()) reader.note("\"models\" is not a list");
  if (auto done = reader.done(); !done) return tl::unexpected(done.error());
  auto read = read_model(*reference, fmt::format("{}: \"reference\"", source));
  if (!read) return tl::unexpected(read.error());
  result.reference = std::move(*read);
  for (size_t i = 0; i < models->size(); ++i) {
    auto model = read_model((*models)[i], fmt::format("{}: model {}", source, i));
    if (!model) return tl::unexpected(model.error());
    result.models.push_back(std::move(*model));
  }
  return result;
}

}  // namespace spear
