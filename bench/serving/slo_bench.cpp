// The parts of bench/slo: what steps cost, a policy in the simulator, a policy on the engine.
//
//   slo_bench measure MODEL.spear [--layout RANK@PERCENT]          prints a table of step costs
//   slo_bench simulate --costs TABLE.json                          prints one line of JSON a run
//   slo_bench replay MODEL.spear --costs TABLE.json --rate R       the same, in real time
//
// simulate and replay take --trace FILE.csv --ttft S --itl S, --policies slo,64,128,256,512 and the
// shape of the engine (--context, --max-running, --requests, --cache-tokens). Without --rate,
// simulate looks for the load at which `--share` of the requests meet both objectives under the
// first policy, and runs all policies at it.
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"
#include "spear/cli/bench_layout.h"
#include "spear/cli/open_model.h"
#include "spear/engine/engine.h"
#include "spear/engine/measure_costs.h"
#include "spear/engine/model_runner.h"
#include "spear/scheduler/learned_costs.h"

#include "replay.h"
#include "trace.h"

namespace spear {
namespace {

struct Settings {
  std::string what, model;
  std::map<std::string, std::string> options = {
      {"--layout", ""},         {"--costs", ""},
      {"--trace", ""},          {"--policies", "slo,64,128,256,512"},
      {"--ttft", "2"},          {"--itl", "0.05"},
      {"--rate", "0"},          {"--share", "0.9"},
      {"--context", "2048"},    {"--max-running", "24"},
      {"--requests", "0"},      {"--cache-tokens", "0"},
      {"--noise", "0.03"},      {"--between", "0.0003"},
      {"--late-share", "0.01"}, {"--seconds", "3"},
      {"--admission", "0"},     {"--seed", "1"},
      {"--check", "0"},         {"--threads", "0"}};

  [[nodiscard]] const std::string& text(const char* name) const { return options.at(name); }
  [[nodiscard]] double number(const char* name) const {
    try {
      return std::stod(options.at(name));
    } catch (const std::exception&) {
      throw Failure(ErrorCode::kUsage,
                    fmt::format("{}: a number expected, found \"{}\"", name, options.at(name)));
    }
  }
  [[nodiscard]] int64_t whole(const char* name) const { return static_cast<int64_t>(number(name)); }
};

Settings parse(int count, char** words) {
  Settings s;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    if (s.options.contains(word) && i + 1 < count)
      s.options[word] = words[++i];
    else if (s.what.empty())
      s.what = word;
    else if (s.model.empty() && !word.starts_with("--"))
      s.model = word;
    else
      throw Failure(ErrorCode::kUsage, fmt::format("slo_bench: {} is not understood", word));
  }
  return s;
}

std::vector<std::string> policies_of(const Settings& s) {
  std::vector<std::string> policies;
  const std::string& text = s.text("--policies");
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    policies.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return policies;
}

int64_t static_chunk_of(const std::string& policy) {
  if (policy == "slo") return 0;
  const int64_t chunk = std::atoll(policy.c_str());
  if (chunk < 1 || chunk > 512)
    throw Failure(
        ErrorCode::kUsage,
        fmt::format("--policies: slo or a chunk of 1 to 512 expected, found \"{}\"", policy));
  return chunk;
}

int64_t cache_tokens(const Settings& s) {
  const int64_t wanted = s.whole("--cache-tokens");
  return wanted > 0 ? wanted : s.whole("--context") * s.whole("--max-running") / 2;
}

// A model in memory with the compensators that --layout says.
struct Loaded {
  ThreadPool pool;
  std::unique_ptr<Backend> backend;
  OpenedModel model;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<DecoderModel> runner;

  explicit Loaded(const Settings& s)
      : pool(static_cast<int>(s.whole("--threads"))),
        backend(value_or_throw(make_cpu_backend(pool))) {
    if (s.model.empty()) throw Failure(ErrorCode::kUsage, "slo_bench: a .spear file is required");
    SilentProgress progress;
    model = open_model(s.model, Environment{}, DType::kBF16, pool, progress);
    if (!s.text("--layout").empty() && model.file != nullptr)
      put_random_compensators(value_or_throw(parse_layout(s.text("--layout"))), 1,
                              model.file->model);
    decoder =
        std::make_unique<Decoder>(model.decoder(*backend, Compute::kBF16, DecoderPath::kFused));
    runner = std::make_unique<DecoderModel>(
        *decoder,
        DecoderModelOptions{.pages = cache_tokens(s) / KvCache::kPageSize, .kv_type = DType::kF16});
  }
};

int measure(const Settings& s) {
  Loaded loaded(s);
  StepCostTable table = measure_step_costs(
      *loaded.runner, {.token_budget = 512 + s.whole("--max-running"),
                       .max_running = static_cast<int32_t>(s.whole("--max-running")),
                       .seconds = s.number("--seconds")});
  table.device = loaded.backend->describe();
  table.model = loaded.model.path.filename().string() + " " + s.text("--layout");
  std::fputs(to_json_text(table).c_str(), stdout);
  return 0;
}

StepCostTable costs_of(const Settings& s) {
  const std::string& path = s.text("--costs");
  return value_or_throw(parse_step_costs(value_or_throw(read_text_file(path)), path));
}

std::vector<SimulatedRequest> trace_of(const Settings& s) {
  return read_trace(s.text("--trace"),
                    {.context = s.whole("--context"), .requests = s.whole("--requests")});
}

void print_run(const Settings& s, const std::string& policy, double rate, bool real,
               const ServiceLevel& level, const Simulation& run, double error) {
  const Json row = {{"objective_ms", 1e3 * s.number("--itl")},
                    {"policy", policy},
                    {"p99_itl_ms", 1e3 * level.p99_itl},
                    {"mean_ttft_ms", 1e3 * level.mean_ttft},
                    {"goodput", level.goodput},
                    {"throughput", level.throughput},
                    {"ttft_objective_ms", 1e3 * s.number("--ttft")},
                    {"rate", rate},
                    {"met", level.met_share},
                    {"refused", level.refused},
                    {"p50_itl_ms", 1e3 * level.p50_itl},
                    {"p99_ttft_ms", 1e3 * level.p99_ttft},
                    {"requests", run.outcomes.size()},
                    {"seconds", run.seconds},
                    {"steps", run.steps},
                    {"preemptions", run.preemptions},
                    {"cost_error", error},
                    {"engine", real ? "real" : "simulated"}};
  std::fputs((row.dump() + "\n").c_str(), stdout);
  std::fflush(stdout);
}

SimulationOptions simulation_options(const Settings& s, const std::string& policy) {
  SimulationOptions o;
  const auto running = static_cast<int32_t>(s.whole("--max-running"));
  o.scheduler = {.pages = static_cast<int32_t>(cache_tokens(s) / 64),
                 .page_size = 64,
                 .max_running = running,
                 .max_waiting = 4096,
                 .token_budget = 512 + running,
                 .static_chunk = static_chunk_of(policy)};
  o.noise = s.number("--noise");
  o.between_steps = s.number("--between");
  o.admission = s.whole("--admission") != 0;
  o.check = s.whole("--check") != 0;
  o.seed = static_cast<uint64_t>(s.whole("--seed"));
  return o;
}

struct SimulatedRun {
  ServiceLevel level;
  Simulation run;
  double error = 0;
};

SimulatedRun simulate_at(const Settings& s, const std::vector<SimulatedRequest>& trace,
                         const StepCostTable& truth, const std::string& policy, double rate) {
  const auto requests = at_rate(trace, rate, s.number("--ttft"), s.number("--itl"));
  LearnedCosts costs(truth);
  SimulatedRun result;
  result.run = simulate(requests, truth, costs, simulation_options(s, policy));
  if (result.run.broken != nullptr) throw Failure(ErrorCode::kInternal, result.run.broken);
  result.level = service_level(requests, result.run, s.number("--late-share"));
  result.error = costs.error();
  return result;
}

// The highest load at which the share of requests that meet both objectives is still reached.
double find_rate(const Settings& s, const std::vector<SimulatedRequest>& trace,
                 const StepCostTable& truth, const std::string& policy) {
  double low = 1e-3, high = 1;
  const auto reached = [&](double rate) {
    return simulate_at(s, trace, truth, policy, rate).level.met_share >= s.number("--share");
  };
  if (!reached(low))
    throw Failure(ErrorCode::kUsage,
                  fmt::format("objectives of {} s and {} s: not met by {:.0f} % of the requests "
                              "even without load; ask for less",
                              s.number("--ttft"), s.number("--itl"), 100 * s.number("--share")));
  while (reached(high) && high < 1e6) low = high, high *= 2;
  while (high / low > 1.005) {
    const double middle = (low + high) / 2;
    (reached(middle) ? low : high) = middle;
  }
  return low;
}

int simulate_all(const Settings& s) {
  const StepCostTable truth = costs_of(s);
  const auto trace = trace_of(s);
  const std::vector<std::string> policies = policies_of(s);
  double rate = s.number("--rate");
  if (rate <= 0) rate = find_rate(s, trace, truth, policies.front());
  for (const std::string& policy : policies) {
    const SimulatedRun run = simulate_at(s, trace, truth, policy, rate);
    print_run(s, policy, rate, false, run.level, run.run, run.error);
  }
  return 0;
}

int replay_all(const Settings& s) {
  const StepCostTable table = costs_of(s);
  const auto trace = trace_of(s);
  const double rate = s.number("--rate");
  if (rate <= 0) throw Failure(ErrorCode::kUsage, "replay: --rate is required");
  const auto requests = at_rate(trace, rate, s.number("--ttft"), s.number("--itl"));
  Loaded loaded(s);
  for (const std::string& policy : policies_of(s)) {
    LearnedCosts costs(table);
    EngineOptions options;
    options.max_running = static_cast<int32_t>(s.whole("--max-running"));
    options.max_waiting = 4096;
    options.max_waiting_tokens = int64_t{1} << 40;
    options.max_context = s.whole("--context");
    options.token_budget = 512 + options.max_running;
    options.costs = &costs;
    options.refuse_late = s.whole("--admission") != 0;
    options.static_chunk = static_chunk_of(policy);
    options.pool = &loaded.pool;
    Engine engine(*loaded.runner, nullptr, options);
    const Simulation run = replay(engine, requests, static_cast<uint64_t>(s.whole("--seed")));
    const ServiceLevel level = service_level(requests, run, s.number("--late-share"));
    print_run(s, policy, rate, true, level, run, engine.stats().cost_error);
  }
  return 0;
}

int run(int count, char** words) {
  const Settings s = parse(count, words);
  if (s.what == "measure") return measure(s);
  if (s.what == "simulate") return simulate_all(s);
  if (s.what == "replay") return replay_all(s);
  throw Failure(ErrorCode::kUsage, "slo_bench: measure, simulate or replay expected");
}

}  // namespace
}  // namespace spear

int main(int count, char** words) {
  try {
    return spear::run(count, words);
  } catch (const spear::Failure& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return static_cast<int>(failure.error().code);
  }
}
