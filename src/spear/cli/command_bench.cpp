#include <chrono>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/cpu_features.h"
#include "spear/base/log.h"
#include "spear/cli/bench_layout.h"
#include "spear/cli/bench_results.h"
#include "spear/cli/commands.h"
#include "spear/cli/machine.h"
#include "spear/cli/model_path.h"
#include "spear/cli/open_model.h"
#include "spear/cli/text.h"
#include "spear/eval/evaluate.h"

namespace spear {
namespace {

struct BenchSettings {
  std::string model;
  std::vector<std::string> compare;
  std::vector<int64_t> prefill = {512}, contexts = {128, 2048}, batches = {8, 32};
  int64_t tokens = 128, batch_tokens = 32, batch_context = 128;
  int repeats = 5;
  std::string kv = "auto", output, layout;
  bool no_ec = false;
  MachineSettings machine;
};

BenchPlan plan_of(const BenchSettings& s, const Backend& backend) {
  BenchPlan plan;
  plan.repeats = s.repeats;
  plan.kv = kv_type_named(s.kv, backend);
  for (const int64_t tokens : s.prefill)
    if (tokens > 0) plan.cases.push_back({.prefill = true, .tokens = tokens});
  for (const int64_t context : s.contexts)
    if (s.tokens > 0) plan.cases.push_back({.tokens = s.tokens, .context = context});
  for (const int64_t batch : s.batches)
    if (batch > 0 && s.batch_tokens > 0)
      plan.cases.push_back({.tokens = s.batch_tokens, .context = s.batch_context, .batch = batch});
  if (plan.cases.empty()) throw Failure(ErrorCode::kUsage, "nothing to measure: every list is 0");
  return plan;
}

// A model and its decoder, as a subject of the sweep.
struct Loaded {
  OpenedModel model;
  std::unique_ptr<Decoder> decoder;
  double load_seconds = 0;

  [[nodiscard]] BenchSubject subject(bool compensators) const {
    const DecoderProgram* program = decoder->program();
    if (program != nullptr) return {decoder.get(), compensators, program->step_bytes()};
    const ByteParts bytes =
        model.dense != nullptr ? bytes_of(*model.dense) : bytes_of(model.file->model);
    return {decoder.get(), compensators,
            bytes.head > 0 ? bytes.total - bytes.embedding : bytes.total};
  }
};

Loaded load(const BenchSettings& s, const Machine& machine, CommandContext& context,
            bool compensators) {
  const auto start = std::chrono::steady_clock::now();
  Loaded loaded{
      open_model(s.model, context.environment, s.machine.dtype(), *machine.pool, context.progress),
      nullptr, 0};
  if (!s.layout.empty() && loaded.model.file == nullptr)
    throw Failure(ErrorCode::kUsage,
                  fmt::format("{}: --layout needs a .spear file", loaded.model.path.string()));
  if (!s.layout.empty())
    put_random_compensators(value_or_throw(parse_layout(s.layout)),
                            context.options.seed != 0 ? context.options.seed : 1,
                            loaded.model.file->model);
  if (!compensators)
    for (QuantizedLayer& layer : loaded.model.file->model.layers)
      for (QuantizedLinear& linear : layer.linears) linear.compensator.reset();
  loaded.decoder = std::make_unique<Decoder>(loaded.model.decoder(
      *machine.backend, s.machine.arithmetic(), path_of(s.machine.path, loaded.model)));
  // To the first token: weights that are mapped are read by the first step.
  KvCache cache(*machine.backend, loaded.model.config(), 1, 1, true,
                kv_type_named(s.kv, *machine.backend));
  const int32_t token = 0;
  const AttentionSequence entry = cache.append(0, 0, 1);
  const auto floats = [&](int64_t count) {
    return machine.backend->allocate(static_cast<size_t>(count) * sizeof(float));
  };
  const DeviceBuffer hidden = floats(loaded.model.config().hidden_size);
  const DeviceBuffer logits = floats(loaded.model.config().vocab_size);
  loaded.decoder->forward({{&token, 1}, {&entry, 1}}, cache, hidden.as<float>());
  loaded.decoder->logits(hidden.as<float>(), 1, logits.as<float>());
  machine.backend->synchronize();
  loaded.load_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return loaded;
}

Json about(const BenchSettings& s, const Machine& machine, const Loaded& loaded) {
  return {{"model", loaded.model.path.filename().string()},
          {"cpu", detect_cpu_features().model},
          {"threads", machine.pool->size()},
          {"device", machine.backend->name()},
          {"layout", s.layout.empty() ? "the model's own" : s.layout},
          {"path", s.machine.path},
          {"kernels", loaded.decoder->describe()},
          {"kv", kv_type_name(kv_type_named(s.kv, *machine.backend))}};
}

Json load_row(const Loaded& loaded, const Json& about) {
  Json row = about;
  row["what"] = "load";
  row["name"] = "load to the first token";
  row["seconds"] = loaded.load_seconds;
  if (const DecoderProgram* program = loaded.decoder->program()) {
    row["weight_bytes"] = program->weight_bytes();
    row["scratch_bytes"] = program->scratch_bytes();
  }
  return row;
}

std::string heading(const Json& row) {
  std::string text = fmt::format(
      "{} on {}, {} threads, {}; keys and values in {}\nload to the first token {:.2f} s",
      row.at("model").get<std::string>(), row.at("cpu").get<std::string>(),
      row.at("threads").get<int>(), row.at("kernels").get<std::string>(),
      row.at("kv").get<std::string>(), row.at("seconds").get<double>());
  if (row.contains("scratch_bytes"))
    text += fmt::format("; weights {}, working memory {}",
                        size_text(row.at("weight_bytes").get<int64_t>()),
                        size_text(row.at("scratch_bytes").get<int64_t>()));
  return text + "\n\n";
}

int compare(const BenchSettings& s) {
  if (s.compare.size() != 2 || !s.model.empty())
    throw Failure(ErrorCode::kUsage, "--compare A.jsonl B.jsonl takes two files and no model");
  const auto read = [](const std::string& path) {
    return parse_bench_lines(value_or_throw(read_text_file(path)), path);
  };
  print_out(compare_bench(read(s.compare[0]), read(s.compare[1])));
  return 0;
}

int run(const BenchSettings& s, CommandContext& context) {
  if (!s.compare.empty()) return compare(s);
  if (s.model.empty())
    throw Failure(ErrorCode::kUsage, "MODEL is required (or --compare A.jsonl B.jsonl)");
  const Machine machine = make_machine(s.machine, context);
  const BenchPlan plan = plan_of(s, *machine.backend);
  const Loaded loaded = load(s, machine, context, true);
  if (s.no_ec && loaded.model.file == nullptr)
    throw Failure(ErrorCode::kUsage,
                  fmt::format("{}: --no-ec needs a .spear file; this model has no compensators",
                              loaded.model.path.string()));
  check_cases(plan, loaded.model.config());
  std::optional<Loaded> plain;
  std::vector<BenchSubject> subjects = {loaded.subject(true)};
  if (s.no_ec) {
    plain = load(s, machine, context, false);
    subjects.push_back(plain->subject(false));
  }
  const Json info = about(s, machine, loaded);
  std::vector<Json> rows = bench_rows(
      run_sweep(*machine.backend, subjects, plan, *machine.pool, context.progress), info);
  rows.insert(rows.begin(), load_row(loaded, info));
  if (!s.output.empty()) write_file_atomically(s.output, bench_lines(rows));
  print_out(context.options.json ? bench_lines(rows) : heading(rows.front()) + bench_table(rows));
  return 0;
}

// A list of whole numbers within bounds; 0 alone means none.
void add_list(CLI::App& app, const std::string& name, std::vector<int64_t>& values, int64_t most,
              const std::string& says) {
  app.add_option(name, values, says)
      ->delimiter(',')
      ->type_name("N,...")
      ->check(CLI::Range(int64_t{0}, most))
      ->expected(1, 16);
}

void declare_options(CLI::App& app, BenchSettings& s) {
  s.machine.path = "auto";
  app.add_option("MODEL", s.model, "A path or the name of a pulled model")->type_name("MODEL");
  add_list(app, "--prefill", s.prefill, 1 << 20, "Prompts of these lengths; 0: none");
  add_list(app, "--context", s.contexts, 1 << 20,
           "Tokens already there when single-stream decoding begins");
  app.add_option("--tokens", s.tokens, "Tokens decoded for each of them; 0: none")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->type_name("N");
  add_list(app, "--batch", s.batches, 1024, "Streams decoded together");
  app.add_option("--batch-context", s.batch_context, "Tokens already there in each stream")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->type_name("N");
  app.add_option("--batch-tokens", s.batch_tokens, "Tokens decoded for each stream; 0: no batches")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->type_name("N");
  app.add_option("--repeats", s.repeats, "Rounds; medians and both ends are printed")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
  add_kv_option(app, s.kv);
  app.add_flag("--no-ec", s.no_ec,
               "Run the model without its compensators too, in turns, and print what they cost");
  app.add_option("--layout", s.layout,
                 "Time random gated compensators of this rank on this share of the modules of "
                 "each kind, in place of the model's own; --seed chooses the modules")
      ->type_name("RANK@PERCENT");
  app.add_option("-o,--output", s.output, "Write the JSON lines to a file as well")
      ->type_name("FILE");
  app.add_option("--compare", s.compare, "Two files of JSON lines: B beside A, nothing is run")
      ->type_name("A B")
      ->expected(2);
  add_machine_options(app, s.machine, Paths::kAll);
}

}  // namespace

Command bench_command() {
  return {
      .name = "bench",
      .summary = "Measure the speed of a model on this machine",
      .description =
          "Prompts, single streams after short and long contexts, and batches, several times in "
          "turns. Every speed stands beside its ceiling: of decoding, reading as many bytes as "
          "a step reads (weights, scales, compensators, head, keys and values) over and over; "
          "of a prompt, this machine's 8-bit multiply-adds.",
      .examples = {{"spear bench model.spear --no-ec -o new.jsonl",
                    "The whole sweep, and what the compensators cost."},
                   {"spear bench --compare old.jsonl new.jsonl", "Two runs, side by side."}},
      .declare = [](CLI::App& app) -> RunCommand {
        auto settings = std::make_shared<BenchSettings>();
        declare_options(app, *settings);
        return [settings](CommandContext& context) { return run(*settings, context); };
      }};
}

}  // namespace spear
