// Whether the engine says what the plain reference path says: greedy answers to the first COUNT
// prompts of the prompt files, batched through the engine on a fused path, against the same model
// run one operation at a time and one sequence at a time. The reference gets prompt and answer in
// one pass: up to the first place where its likeliest token is another, that is what it would have
// said itself. There the gap between its two likeliest must be within twice the most that any logit
// moves between both paths on the same tokens; else rounding does not explain the difference.
//
//   exact_path_bench MODEL.spear FOLDER [--count 100] [--tokens 128] [--path exact|engine]
//                    [--batch 8] [--kv f32|f16|int8] [--compute f32|bf16]
//
// FOLDER holds mt_bench_question.jsonl and vicuna_bench_question.jsonl. Prints one line of JSON an
// answer that differs and one of totals.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"
#include "spear/cli/open_model.h"
#include "spear/engine/engine.h"
#include "spear/engine/model_runner.h"
#include "spear/engine/token_stream.h"
#include "spear/tokenizer/chat_template.h"

namespace spear {
namespace {

struct Settings {
  std::string model, folder;
  std::map<std::string, std::string> options = {{"--count", "100"},  {"--tokens", "128"},
                                                {"--path", "exact"}, {"--batch", "8"},
                                                {"--kv", "f32"},     {"--compute", "f32"}};
  [[nodiscard]] int64_t number(const char* name) const { return std::stoll(options.at(name)); }
};

std::vector<std::string> read_prompts(const std::filesystem::path& folder, int64_t count) {
  std::vector<std::string> prompts;
  for (const char* name : {"mt_bench_question.jsonl", "vicuna_bench_question.jsonl"}) {
    const std::string text = value_or_throw(read_text_file(folder / name));
    for (size_t at = 0; at < text.size() && std::ssize(prompts) < count;) {
      const size_t end = std::min(text.find('\n', at), text.size());
      const std::string line = text.substr(at, end - at);
      at = end + 1;
      if (!line.empty())
        prompts.push_back(value_or_throw(parse_json(line, name)).at("turns").at(0));
    }
  }
  return prompts;
}

std::vector<int32_t> ids_of(const OpenedModel& model, const std::string& prompt) {
  const Tokenizer& tokenizer = *model.tokenizer;
  if (model.chat_template.empty()) return tokenizer.encode(prompt, {.add_special = true});
  const auto text_of = [&](int32_t id) {
    return tokenizer.is_id(id) ? tokenizer.decode({&id, 1}) : std::string();
  };
  const auto chat = value_or_throw(ChatTemplate::parse(model.chat_template));
  const std::string text = value_or_throw(
      chat.render({{"user", prompt}}, text_of(tokenizer.bos_id()), text_of(tokenizer.eos_id())));
  return tokenizer.encode(text, {.add_special = false, .parse_special = true});
}

// Logits [choices, vocab] from the last token of `prompt` on, all of `answer` given: the first
// place where their largest is not the answer's token is where greedy answers part.
std::vector<float> forced_logits(Decoder& decoder, const std::vector<int32_t>& prompt,
                                 std::span<const int32_t> answer, int64_t choices) {
  Backend& backend = decoder.backend();
  const ModelConfig& config = decoder.config();
  std::vector<int32_t> rows = prompt;
  rows.insert(rows.end(), answer.begin(), answer.begin() + choices - 1);
  KvCache cache(backend, config, 1, std::ssize(rows), true);
  const auto floats = [&](int64_t n) {
    return backend.allocate(static_cast<size_t>(n) * sizeof(float));
  };
  const DeviceBuffer hidden = floats(std::ssize(rows) * config.hidden_size);
  const DeviceBuffer device_logits = floats(choices * config.vocab_size);
  const AttentionSequence sequence = cache.append(0, 0, std::ssize(rows));
  decoder.forward({rows, {&sequence, 1}}, cache, hidden.as<float>());
  decoder.logits(hidden.as<float>() + (std::ssize(rows) - choices) * config.hidden_size, choices,
                 device_logits.as<float>());
  std::vector<float> logits(static_cast<size_t>(choices * config.vocab_size));
  backend.download(logits.data(), device_logits.as<float>(), logits.size() * sizeof(float));
  return logits;
}

// How an answer stands to the reference.
struct Comparison {
  int64_t first_difference = -1;  // -1: none
  float gap = 0;                  // there, between the reference's two likeliest
  float moved = 0;                // the most that any logit differs, over all places
};

Comparison compare(Decoder& plain, Decoder& fused, const std::vector<int32_t>& prompt,
                   const std::vector<int32_t>& answer, int64_t wanted,
                   std::span<const int32_t> ends) {
  const auto is_end = [&](int32_t token) {
    return std::find(ends.begin(), ends.end(), token) != ends.end();
  };
  // An answer that ended early and does not show its end token chose one more.
  const bool hidden_end = std::ssize(answer) < wanted && (answer.empty() || !is_end(answer.back()));
  const int64_t choices = std::ssize(answer) + (hidden_end ? 1 : 0);
  const std::vector<float> expected = forced_logits(plain, prompt, answer, choices);
  const std::vector<float> found = forced_logits(fused, prompt, answer, choices);
  const int64_t vocab = plain.config().vocab_size;
  Comparison result;
  for (size_t i = 0; i < expected.size(); ++i)
    result.moved = std::max(result.moved, std::abs(expected[i] - found[i]));
  for (int64_t at = 0; at < choices; ++at) {
    const std::span<const float> row(expected.data() + at * vocab, static_cast<size_t>(vocab));
    const auto best = std::max_element(row.begin(), row.end());
    const auto token = static_cast<int32_t>(best - row.begin());
    const bool same =
        at < std::ssize(answer) ? token == answer[static_cast<size_t>(at)] : is_end(token);
    if (same) continue;
    result.first_difference = at;
    float second = -INFINITY;
    for (const float& value : row)
      if (&value != &*best) second = std::max(second, value);
    result.gap = *best - second;
    break;
  }
  return result;
}

std::vector<std::vector<int32_t>> engine_answers(const OpenedModel& model, Decoder& decoder,
                                                 ThreadPool& pool, const Settings& settings,
                                                 const std::vector<std::vector<int32_t>>& prompts) {
  const int64_t tokens = settings.number("--tokens"), batch = settings.number("--batch");
  int64_t longest = 0;
  for (const auto& prompt : prompts) longest = std::max(longest, std::ssize(prompt));
  const int64_t pages = (longest + tokens + KvCache::kPageSize) / KvCache::kPageSize;
  const std::string& kv = settings.options.at("--kv");
  DecoderModel runner(decoder, {.pages = (batch + 1) * pages,
                                .kv_type = kv == "f16"    ? DType::kF16
                                           : kv == "int8" ? DType::kI8
                                                          : DType::kF32});
  EngineOptions options;
  options.max_running = static_cast<int32_t>(batch);
  options.end_ids = model.config().eos_token_ids;
  options.pool = &pool;
  Engine engine(runner, &*model.tokenizer, options);
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (const auto& prompt : prompts) {
    Request request;
    request.prompt = prompt;
    request.max_tokens = tokens;
    request.sampling.temperature = 0;
    streams.push_back(std::make_shared<TokenStream>());
    const Admission admission = engine.submit(std::move(request), streams.back());
    if (admission.code != AdmissionCode::kAccepted)
      throw Failure(ErrorCode::kUsage, admission.message);
  }
  std::vector<std::vector<int32_t>> answers;
  for (const auto& stream : streams) {
    std::vector<int32_t>& answer = answers.emplace_back();
    while (const auto event = stream->next(600))
      for (const auto& token : event->tokens) answer.push_back(token.token);
  }
  return answers;
}

int run(const Settings& settings) {
  ThreadPool pool;
  const auto backend = value_or_throw(make_cpu_backend(pool));
  SilentProgress progress;
  const Compute compute =
      settings.options.at("--compute") == "bf16" ? Compute::kBF16 : Compute::kF32;
  const OpenedModel model =
      open_model(settings.model, read_environment(), DType::kBF16, pool, progress);
  std::vector<std::vector<int32_t>> prompts;
  for (const std::string& prompt : read_prompts(settings.folder, settings.number("--count")))
    prompts.push_back(ids_of(model, prompt));
  std::vector<int32_t> ends = model.tokenizer->stop_ids();
  ends.insert(ends.end(), model.config().eos_token_ids.begin(), model.config().eos_token_ids.end());

  Decoder fused = model.decoder(
      *backend, compute,
      settings.options.at("--path") == "engine" ? DecoderPath::kFused : DecoderPath::kFusedExact);
  fmt::print(stderr, "engine: {}\n", fused.describe());
  const std::vector<std::vector<int32_t>> answers =
      engine_answers(model, fused, pool, settings, prompts);
  Decoder plain = model.decoder(*backend, compute, DecoderPath::kPlain);
  int64_t same = 0;
  float widest = 0, moved = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const Comparison found =
        compare(plain, fused, prompts[i], answers[i], settings.number("--tokens"), ends);
    moved = std::max(moved, found.moved);
    if (found.first_difference < 0) {
      ++same;
      continue;
    }
    widest = std::max(widest, found.gap);
    fmt::print(
        "{{\"prompt\": {}, \"first_difference\": {}, \"top2_gap\": {:.6f}, \"moved\": {:.6f}}}\n",
        i, found.first_difference, found.gap, found.moved);
    std::fflush(stdout);
  }
  fmt::print(
      "{{\"path\": \"{}\", \"prompts\": {}, \"tokens\": {}, \"identical\": {}, \"widest_gap\": "
      "{:.6f}, \"moved\": {:.6f}, \"explained\": {}}}\n",
      settings.options.at("--path"), prompts.size(), settings.number("--tokens"), same, widest,
      moved, widest <= 2 * moved);
  return 0;
}

}  // namespace
}  // namespace spear

int main(int argc, char** argv) {
  spear::Settings settings;
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() < 2 || arguments.size() % 2 != 0) {
    std::fputs("usage: exact_path_bench MODEL.spear FOLDER [--count N] [--tokens N] …\n", stderr);
    return 2;
  }
  settings.model = arguments[0];
  settings.folder = arguments[1];
  for (size_t i = 2; i < arguments.size(); i += 2)
    settings.options[arguments[i]] = arguments[i + 1];
  try {
    return spear::run(settings);
  } catch (const std::exception& trouble) {
    std::fprintf(stderr, "exact_path_bench: %s\n", trouble.what());
    return 1;
  }
}
