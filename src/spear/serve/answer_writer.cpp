#include "spear/serve/answer_writer.h"

#include <algorithm>
#include <ctime>

#include "spear/base/json.h"

namespace spear {

void append_event(std::string& out, std::string_view json) {
  out += "data: ";
  out += json;
  out += "\n\n";
}

const char* finish_text(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    default:
      return "abort";
  }
}

Json stop_reason(const Finish& finish, const Tokenizer& tokenizer) {
  if (!finish.stop_string.empty()) return finish.stop_string;
  const std::vector<int32_t>& ends = tokenizer.stop_ids();
  const bool own_end = std::find(ends.begin(), ends.end(), finish.stop_id) != ends.end();
  return finish.stop_id >= 0 && !own_end ? Json(finish.stop_id) : Json(nullptr);
}

ReplyFrame::ReplyFrame(const ServedModel& model, const GenerationFields& fields, std::string id,
                       const char* object)
    : id_(std::move(id)),
      object_(object),
      model_(model.facts().name),
      fingerprint_(model.facts().fingerprint),
      created_(std::time(nullptr)),
      streaming_(fields.streaming),
      include_metrics_(fields.include_metrics),
      bare_(fields.request.bare) {}

Json ReplyFrame::head() const {
  return {{"id", id_},
          {"object", object_},
          {"created", created_},
          {"model", model_},
          {"system_fingerprint", fingerprint_}};
}

void ReplyFrame::add_prompt(int64_t tokens) {
  prompt_tokens_.push_back(tokens);
  cached_tokens_.push_back(0);
}

void ReplyFrame::note(size_t prompt, const StreamEvent& event) {
  if (event.prompt) return;
  completion_tokens_ += std::ssize(event.tokens);
  if (!event.finish) return;
  cached_tokens_[prompt] = event.finish->cached_tokens;
  finishes_.push_back(*event.finish);
}

int32_t ReplyFrame::lowest_level() const {
  int32_t level = 0;
  for (const Finish& f : finishes_) level = std::max(level, f.level);
  return level;
}

Json ReplyFrame::usage() const {
  int64_t prompt = 0;
  int64_t cached = 0;
  for (const int64_t tokens : prompt_tokens_) prompt += tokens;
  for (const int64_t tokens : cached_tokens_) cached += tokens;
  Json usage = {{"prompt_tokens", prompt},
                {"completion_tokens", completion_tokens_},
                {"total_tokens", prompt + completion_tokens_},
                {"prompt_tokens_details", {{"cached_tokens", cached}}}};
  // Said wherever it happened, asked for or not.
  if (const int32_t level = lowest_level(); level > 0) usage["compensator_level"] = level;
  if (bare_) usage["compensators"] = "none";
  return usage;
}

Json ReplyFrame::metrics() const {
  if (!include_metrics_ || finishes_.empty()) return nullptr;
  const Finish& first = finishes_.front();
  double last = 0;
  double gaps = 0;
  int64_t gap_count = 0;
  for (const Finish& f : finishes_) {
    last = std::max(last, f.finished);
    if (f.tokens < 2) continue;
    gaps += f.finished - f.first_token;
    gap_count += f.tokens - 1;
  }
  const double generation = last - first.started;
  const bool objectives = first.ttft_objective > 0 || first.itl_objective > 0;
  return {{"slo_met", objectives ? Json(std::ranges::all_of(finishes_, met_objectives)) : Json()},
          {"compensator_level", lowest_level()},
          {"time_to_first_token_ms", 1000 * (first.first_token - first.arrival)},
          {"generation_time_ms", 1000 * generation},
          {"queue_time_ms", 1000 * (first.started - first.arrival)},
          {"mean_itl_ms", gap_count == 0 ? 0 : 1000 * gaps / static_cast<double>(gap_count)},
          {"tokens_per_second",
           generation > 0 ? static_cast<double>(completion_tokens_) / generation : 0}};
}

void ReplyFrame::append_chunk(std::string& out, Json choice) const {
  Json chunk = head();
  chunk["choices"] = Json::array({std::move(choice)});
  if (streaming_.continuous_usage)
    chunk["usage"] = usage();
  else if (streaming_.include_usage)
    chunk["usage"] = nullptr;
  append_event(out, one_line(chunk));
}

void ReplyFrame::append_end(std::string& out) const {
  if (streaming_.include_usage || include_metrics_) {
    Json chunk = head();
    chunk["choices"] = Json::array();
    chunk["usage"] = usage();
    if (Json times = metrics(); !times.is_null()) chunk["metrics"] = std::move(times);
    append_event(out, one_line(chunk));
  }
  out += kDoneEvent;
}

void ReplyFrame::append_body(std::string& out, Json choices) const {
  Json body = head();
  body["choices"] = std::move(choices);
  body["usage"] = usage();
  if (Json times = metrics(); !times.is_null()) body["metrics"] = std::move(times);
  out += one_line(body);
}

}  // namespace spear
