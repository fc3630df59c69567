// Whether the engine says what the plain reference path says: greedy answers to the first COUNT
// prompts of the prompt files, batched through the engine on a fused path, against the same model
// run one operation at a time and one sequence at a time. Where two answers part, the gap between
// the reference's two likeliest logits at that place says whether rounding explains it.
//
//   exact_path_bench MODEL.spear FOLDER [--count 100] [--tokens 128] [--path exact|engine]
//                    [--batch 8] [--kv f32|f16|int8] [--compute f32|bf16]
//
// FOLDER holds mt_bench_question.jsonl and vicuna_bench_question.jsonl. Prints one line of JSON an
// answer that differs and one of totals.
#include <algorithm>
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

struct PlainAnswer {
  std::vector<int32_t> tokens;
  std::vector<float> gaps;  // between the two likeliest logits, where each was chosen
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

PlainAnswer plain_answer(Decoder& decoder, std::vector<int32_t> rows, int64_t count,
                         std::span<const int32_t> ends) {
  Backend& backend = decoder.backend();
  const ModelConfig& config = decoder.config();
  KvCache cache(backend, config, 1, std::ssize(rows) + count, true);
  const auto floats = [&](int64_t n) {
    return backend.allocate(static_cast<size_t>(n) * sizeof(float));
  };
  const DeviceBuffer hidden = floats(std::ssize(rows) * config.hidden_size);
  const DeviceBuffer device_logits = floats(config.vocab_size);
  std::vector<float> logits(static_cast<size_t>(config.vocab_size));
  PlainAnswer answer;
  while (std::ssize(answer.tokens) < count) {
    const AttentionSequence sequence = cache.append(0, 0, std::ssize(rows));
    decoder.forward({rows, {&sequence, 1}}, cache, hidden.as<float>());
    decoder.logits(hidden.as<float>() + (std::ssize(rows) - 1) * config.hidden_size, 1,
                   device_logits.as<float>());
    backend.download(logits.data(), device_logits.as<float>(), logits.size() * sizeof(float));
    const auto best = std::max_element(logits.begin(), logits.end());
    const auto token = static_cast<int32_t>(best - logits.begin());
    const float most = *best;
    *best = -1e30f;
    answer.tokens.push_back(token);
    answer.gaps.push_back(most - *std::max_element(logits.begin(), logits.end()));
    if (std::find(ends.begin(), ends.end(), token) != ends.end()) break;
    rows = {token};
  }
  return answer;
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

  std::vector<std::vector<int32_t>> answers;
  {
    Decoder fused = model.decoder(
        *backend, compute,
        settings.options.at("--path") == "engine" ? DecoderPath::kFused : DecoderPath::kFusedExact);
    fmt::print(stderr, "engine: {}\n", fused.describe());
    answers = engine_answers(model, fused, pool, settings, prompts);
  }
  Decoder plain = model.decoder(*backend, compute, DecoderPath::kPlain);
  int64_t same = 0;
  float widest = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const PlainAnswer expected = plain_answer(plain, prompts[i], settings.number("--tokens"), ends);
    if (answers[i] == expected.tokens) {
      ++same;
      continue;
    }
    const auto at =
        static_cast<size_t>(std::mismatch(expected.tokens.begin(), expected.tokens.end(),
                                          answers[i].begin(), answers[i].end())
                                .first -
                            expected.tokens.begin());
    const float gap = at < expected.gaps.size() ? expected.gaps[at] : 0;
    widest = std::max(widest, gap);
    fmt::print("{{\"prompt\": {}, \"first_difference\": {}, \"top2_gap\": {:.6f}}}\n", i, at, gap);
  }
  fmt::print(
      "{{\"path\": \"{}\", \"prompts\": {}, \"tokens\": {}, \"identical\": {}, \"widest_gap\": "
      "{:.6f}}}\n",
      settings.options.at("--path"), prompts.size(), settings.number("--tokens"), same, widest);
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
