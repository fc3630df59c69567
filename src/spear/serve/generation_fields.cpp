#include "spear/serve/generation_fields.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "spear/base/hash.h"
#include "spear/base/json.h"

namespace spear {
namespace {

void read_sampling(FieldReader& fields, SamplingParams& s) {
  fields.number("temperature", s.temperature);
  fields.number("top_p", s.top_p);
  fields.number("min_p", s.min_p);
  fields.number("typical_p", s.typical_p);
  fields.integer("top_k", s.top_k, -1);
  if (s.top_k == -1) s.top_k = 0;  // both mean: all tokens
  fields.number("repetition_penalty", s.repetition_penalty);
  fields.number("presence_penalty", s.presence_penalty);
  fields.number("frequency_penalty", s.frequency_penalty);
  if (fields.has("seed")) {
    int64_t seed = 0;
    fields.integer("seed", seed);
    s.seed = static_cast<uint64_t>(seed);
  }
}

void read_logit_bias(FieldReader& fields, SamplingParams& s, size_t most) {
  const Json* bias = fields.object("logit_bias");
  if (bias == nullptr) return;
  if (bias->size() > most)
    return fields.refuse("logit_bias",
                         fmt::format("at most {} tokens expected, found {}", most, bias->size()));
  for (const auto& [key, value] : bias->items()) {
    int32_t id = -1;
    const auto [end, problem] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (problem != std::errc() || end != key.data() + key.size())
      return fields.refuse("logit_bias", "keys must be token ids, written as numbers");
    if (!value.is_number())
      return fields.refuse(
          "logit_bias", fmt::format("a number expected for {}, found {}", key, type_text(value)));
    s.logit_bias.emplace_back(id, std::clamp(value.get<float>(), -1e9F, 1e9F));
  }
}

void read_stops(FieldReader& fields, Request& request) {
  constexpr size_t kMost = 16;
  const Json* stop = fields.find("stop");
  if (stop != nullptr && stop->is_string()) {
    request.stop.push_back(stop->get<std::string>());
  } else if (const Json* list = fields.array("stop", kMost)) {
    for (const Json& entry : *list) {
      if (!entry.is_string())
        return fields.refuse("stop", fmt::format("strings expected, found {}", type_text(entry)),
                             "invalid_type");
      request.stop.push_back(entry.get<std::string>());
    }
  }
  constexpr size_t kMostIds = 128;
  if (const Json* ids = fields.array("stop_token_ids", kMostIds))
    for (const Json& entry : *ids) {
      const std::optional<int64_t> id = whole_number(entry);
      if (!id || *id < 0 || *id > std::numeric_limits<int32_t>::max())
        return fields.refuse("stop_token_ids", "a list of token ids expected");
      request.stop_ids.push_back(static_cast<int32_t>(*id));
    }
  fields.boolean("include_stop_str_in_output", request.include_stop);
  fields.boolean("ignore_eos", request.ignore_eos);
  fields.boolean("skip_special_tokens", request.skip_special);
}

void read_streaming(FieldReader& fields, StreamFields& streaming) {
  fields.boolean("stream", streaming.stream);
  const Json* options = fields.object("stream_options");
  if (options == nullptr) return;
  if (!streaming.stream)
    return fields.refuse("stream_options", "only allowed where stream is true");
  FieldReader inside(*options, "stream_options.");
  inside.boolean("include_usage", streaming.include_usage);
  inside.boolean("continuous_usage_stats", streaming.continuous_usage);
  if (!inside.ok()) fields.refuse("stream_options", inside.error().message, "invalid_type");
}

// Understood and refused rather than ignored: an answer without them would be another one.
void refuse_unsupported(FieldReader& fields) {
  fields.only_false("use_beam_search");
  fields.only_false("return_token_ids");
  fields.only_absent("prompt_embeds", "embeddings as a prompt are not supported by this server");
  fields.only_absent("kv_transfer_params", "not supported by this server");
  fields.only_absent("logits_processors", "not supported by this server");
  fields.only_absent("bad_words", "not supported by this server; logit_bias bans tokens");
}

ApiResult<double> milliseconds(const HttpRequest& http, const char* header) {
  const std::string_view text = http.header(header);
  if (text.empty()) return 0.0;
  double value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  constexpr double kMost = 1e9;
  if (problem != std::errc() || end != text.data() + text.size() || !(value > 0 && value <= kMost))
    return refuse({400, fmt::format("{}: a number of milliseconds above 0 expected", header),
                   header, "invalid_value"});
  return value / 1000;
}

}  // namespace

void read_generation_fields(FieldReader& fields, GenerationFields& into) {
  Request& request = into.request;
  fields.text("model", into.model);
  read_sampling(fields, request.sampling);
  read_logit_bias(fields, request.sampling, 1024);
  read_stops(fields, request);
  read_streaming(fields, into.streaming);
  fields.integer("n", request.n);
  fields.integer("min_tokens", request.min_tokens);
  int32_t priority = 0;
  fields.integer("priority", priority, -100, 100);
  request.priority = -priority;  // the field's smaller numbers go first
  std::string salt;
  fields.text("cache_salt", salt);
  if (!salt.empty()) request.cache_salt = xxh3(std::as_bytes(std::span(salt)));
  if (fields.has("truncate_prompt_tokens")) {
    int64_t keep = 0;
    fields.integer("truncate_prompt_tokens", keep, 1);
    into.truncate_prompt = keep;
  }
  fields.boolean("include_metrics", into.include_metrics);
  std::string compensators = "auto";
  fields.text("compensators", compensators);
  if (compensators != "auto" && compensators != "full" && compensators != "none")
    fields.refuse("compensators",
                  "\"auto\" (fewer under load, where the server does that), \"full\" or "
                  "\"none\" expected");
  request.full_quality = compensators == "full";
  request.bare = compensators == "none";
  std::string user;
  fields.text("user", user);  // of the right type, and not used
  refuse_unsupported(fields);
}

ApiResult<void> read_objectives(const HttpRequest& http, Request& request) {
  const ApiResult<double> ttft = milliseconds(http, "x-slo-ttft-ms");
  if (!ttft) return refuse(ttft.error());
  const ApiResult<double> itl = milliseconds(http, "x-slo-tpot-ms");
  if (!itl) return refuse(itl.error());
  request.ttft_objective = *ttft;
  request.itl_objective = *itl;
  return {};
}

ApiResult<Request> with_prompt(const GenerationFields& fields, std::vector<int32_t> prompt,
                               int64_t otherwise, int64_t max_context) {
  if (fields.truncate_prompt && std::ssize(prompt) > *fields.truncate_prompt)
    prompt.erase(prompt.begin(), prompt.end() - *fields.truncate_prompt);
  const int64_t left = max_context - std::ssize(prompt);
  const int64_t wanted = fields.max_tokens.value_or(std::clamp<int64_t>(left, 1, otherwise));
  if (wanted > left)
    return refuse(
        {400,
         fmt::format("This model's maximum context length is {} tokens. However, you requested {} "
                     "tokens ({} in the prompt, {} in the completion). Please reduce the length of "
                     "the prompt or of the completion.",
                     max_context, std::ssize(prompt) + std::min(wanted, int64_t{1} << 40),
                     prompt.size(), wanted),
         "max_tokens", "context_length_exceeded"});
  Request request = fields.request;
  request.prompt = std::move(prompt);
  request.max_tokens = wanted;
  return request;
}

}  // namespace spear
