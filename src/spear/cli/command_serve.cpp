#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "spear/base/log.h"
#include "spear/cli/app.h"
#include "spear/cli/commands.h"
#include "spear/cli/interrupt.h"
#include "spear/cli/machine.h"
#include "spear/cli/model_path.h"
#include "spear/cli/open_model.h"
#include "spear/cli/served_facts.h"
#include "spear/engine/engine.h"
#include "spear/engine/measure_costs.h"
#include "spear/engine/model_runner.h"
#include "spear/scheduler/learned_costs.h"
#include "spear/serve/http_server.h"
#include "spear/serve/service.h"

namespace spear {
namespace {

struct ServeSettings {
  std::string model;
  std::string name;      // empty: what the model calls itself
  std::string key_file;  // empty: none
  std::vector<std::string> cors_origins;
  bool open_metrics = false;
  std::string kv_type = "auto";
  int64_t cache_tokens = 0;  // 0: some for every answer that runs
  double drain_delay = 0;
  double shutdown_timeout = 30;
  HttpOptions http;
  double slo_ttft_ms = 0, slo_itl_ms = 0;
  double measure_seconds = 1;
  bool degrade = false;
  EngineOptions engine;
  MachineSettings machine;
};

ApiKeys read_keys(const ServeSettings& settings, const Environment& env) {
  if (!settings.key_file.empty()) return ApiKeys::from_file(settings.key_file);
  return env.api_key.empty() ? ApiKeys() : ApiKeys({env.api_key});
}

bool only_this_machine(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

// Everything that serving a model takes, in the order in which it must come and go: the engine's
// thread wakes the server's connections, whose exchanges use the engine.
class Serving {
 public:
  Serving(ServeSettings& settings, CommandContext& context)
      : settings_(settings),
        context_(context),
        service_({.keys = read_keys(settings, context.environment),
                  .cors_origins = settings.cors_origins,
                  .version = version_text(),
                  .limits = {},
                  .open_metrics = settings.open_metrics}),
        server_(service_, settings.http) {
    say("listening", fmt::format("listening at {}, loading the model", address()));
  }

  ~Serving() { server_.stop(0); }
  Serving(const Serving&) = delete;
  Serving& operator=(const Serving&) = delete;

  void load() {
    machine_ = make_machine(settings_.machine, context_);
    model_ = open_model(settings_.model, context_.environment, settings_.machine.dtype(),
                        *machine_.pool, context_.progress);
    CompensatorLevels levels = this->levels();  // reads the weights, which are packed next
    decoder_ =
        std::make_unique<Decoder>(model_.decoder(*machine_.backend, settings_.machine.arithmetic(),
                                                 path_of(settings_.machine.path, model_)));
    runner_ = std::make_unique<DecoderModel>(
        *decoder_,
        DecoderModelOptions{.pages = pages(),
                            .kv_type = kv_type_named(settings_.kv_type, *machine_.backend),
                            .rows_stand_alone = settings_.engine.deterministic,
                            .levels = std::move(levels)});
    settings_.engine.seed = context_.options.seed;
    settings_.engine.pool = machine_.pool.get();
    settings_.engine.end_ids = model_.config().eos_token_ids;
    settings_.engine.on_step = [this](const StepShape& shape, double) {
      service_.metrics().step(shape);
    };
    costs_ = std::make_unique<LearnedCosts>(
        measure_step_costs(*runner_, {.token_budget = settings_.engine.token_budget,
                                      .max_running = settings_.engine.max_running,
                                      .seconds = settings_.measure_seconds,
                                      .level_shares = level_shares()}));
    settings_.engine.max_level = runner_->levels() - 1;
    settings_.engine.costs = costs_.get();
    settings_.engine.ttft_objective = settings_.slo_ttft_ms / 1e3;
    settings_.engine.itl_objective = settings_.slo_itl_ms / 1e3;
    engine_ = std::make_unique<Engine>(*runner_, &*model_.tokenizer, settings_.engine);
    ModelFacts facts = served_facts(model_, settings_.name);
    const std::string name = facts.name;
    service_.attach(std::make_shared<ServedModel>(*engine_, std::move(facts)));
    say("ready",
        fmt::format("serving {} at {}/v1 ({} tokens of context, {} of cache)", name, address(),
                    engine_->limits().max_context, runner_->pages() * runner_->page_size()));
  }

  // Until a signal asks to stop; the device's end is an error.
  void wait() const {
    while (!interrupt_requested()) {
      if (!engine_->healthy())
        throw Failure(ErrorCode::kInternal, "the engine has failed; the log says why");
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }

  void drain() {
    say("draining", "draining: no new requests; those here are finished");
    service_.begin_drain();
    std::this_thread::sleep_for(std::chrono::duration<double>(settings_.drain_delay));
    service_.refuse_new();
    const bool all = engine_->drain(settings_.shutdown_timeout);
    constexpr double kLastBytes = 5;
    server_.stop(kLastBytes);
    say("stopped",
        all ? "stopped; every answer was finished" : "stopped; some answers were cut off");
  }

 private:
  [[nodiscard]] CompensatorLevels levels() const {
    constexpr int32_t kSteps = 3;
    if (!settings_.degrade) return {};
    CompensatorLevels levels;
    if (model_.file != nullptr) levels = plan_levels(model_.file->model, kSteps);
    if (levels.count() < 2)
      throw Failure(
          ErrorCode::kUsage,
          fmt::format("--degrade: {} has no compensators to switch off", model_.path.string()));
    return levels;
  }

  [[nodiscard]] std::vector<double> level_shares() const {
    if (!settings_.degrade) return {};
    if (runner_->levels() == 1)
      throw Failure(ErrorCode::kUsage,
                    "--degrade: compensators can be switched off on the processor's fused path "
                    "alone; leave it out or say --device cpu --path engine");
    return runner_->level_shares();
  }

  // A page for every kPageSize tokens; never fewer than one sequence of the whole context needs.
  [[nodiscard]] int64_t pages() const {
    constexpr int64_t kTypical = 2048;  // tokens of a conversation
    const int64_t most = model_.config().max_position_embeddings;
    const int64_t context =
        settings_.engine.max_context > 0 ? std::min(settings_.engine.max_context, most) : most;
    const int64_t wanted =
        settings_.cache_tokens > 0
            ? settings_.cache_tokens
            : std::max(context, std::min(context, kTypical) * settings_.engine.max_running);
    return KvCache::pages_for(wanted);
  }

  [[nodiscard]] std::string address() const {
    return fmt::format("{}://{}:{}", settings_.http.tls_key.empty() ? "http" : "https",
                       settings_.http.host, server_.port());
  }

  void say(const char* event, const std::string& text) const {
    if (context_.options.json) {
      print_out(fmt::format("{{\"event\":\"{}\",\"port\":{}}}\n", event, server_.port()));
      std::fflush(stdout);
    } else if (!context_.options.quiet) {
      fmt::print(stderr, "spear: {}\n", text);
    }
  }

  ServeSettings& settings_;
  CommandContext& context_;
  Service service_;
  HttpServer server_;
  Machine machine_;
  OpenedModel model_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<DecoderModel> runner_;
  std::unique_ptr<LearnedCosts> costs_;  // what steps take; the engine's thread learns
  std::unique_ptr<Engine> engine_;
};

void check(const ServeSettings& s) {
  const auto at_least = [](const char* option, int64_t found, int64_t least) {
    if (found < least)
      throw Failure(ErrorCode::kUsage,
                    fmt::format("{}: {} or more expected, found {}", option, least, found));
  };
  at_least("--max-running", s.engine.max_running, 1);
  at_least("--max-waiting", s.engine.max_waiting, 1);
  at_least("--context", s.engine.max_context, 0);
  at_least("--cache-tokens", s.cache_tokens, 0);
  at_least("--step-tokens", s.engine.token_budget, 1);
  at_least("--draft", s.engine.max_draft, 0);
  const auto milliseconds = [](double value) { return value >= 0 && value <= 1e9; };
  if (!milliseconds(s.slo_ttft_ms) || !milliseconds(s.slo_itl_ms))
    throw Failure(ErrorCode::kUsage,
                  fmt::format("--slo-ttft, --slo-itl: 0 (none) to 1e9 ms expected, found {} and {}",
                              s.slo_ttft_ms, s.slo_itl_ms));
  if (!(s.drain_delay >= 0 && s.shutdown_timeout >= 0))
    throw Failure(ErrorCode::kUsage, "--drain-delay and --shutdown-timeout: 0 or more expected");
}

// False: a signal came before the model was there, and nobody waits for an answer.
bool load_unless_stopped(Serving& serving) {
  try {
    serving.load();
    return true;
  } catch (const Failure& failure) {
    if (failure.error().code != ErrorCode::kInterrupted) throw;
    return false;
  }
}

// A log that cannot be written (a full disk) disturbs no answer.
void write_log_line(const std::string& line) {
  std::fputs((line + "\n").c_str(), stderr);
}

int run(ServeSettings& settings, CommandContext& context) {
  check(settings);
  quiet_interrupts();
  settings.engine.limits.max_choices = 128;
  if (!context.options.quiet) settings.http.log = write_log_line;
  const bool keys = !settings.key_file.empty() || !context.environment.api_key.empty();
  if (!keys && !only_this_machine(settings.http.host))
    log(LogLevel::kWarning,
        fmt::format("--host {}: anyone who reaches it may use it; --api-key-file asks for a key",
                    settings.http.host));
  Serving serving(settings, context);
  if (!load_unless_stopped(serving)) return 0;
  serving.wait();
  serving.drain();
  return 0;
}

void declare_network(CLI::App& app, ServeSettings& s) {
  app.add_option("--host", s.http.host, "The address to listen at")->type_name("HOST");
  app.add_option("--port", s.http.port, "The port; 0: any that is free")->type_name("N");
  app.add_option("--api-key-file", s.key_file,
                 "Keys that clients must come with, one a line; SPEAR_API_KEY holds a single one")
      ->type_name("FILE");
  app.add_option("--tls-cert", s.http.tls_certificate,
                 "A certificate with its chain, PEM: HTTPS instead of HTTP")
      ->type_name("FILE");
  app.add_option("--tls-key", s.http.tls_key, "The certificate's private key, PEM")
      ->type_name("FILE");
  app.add_flag("--open-metrics", s.open_metrics, "/metrics wants no key");
  app.add_option("--cors-origin", s.cors_origins,
                 "Pages of this origin may ask from browsers; * allows all; off unless given")
      ->type_name("ORIGIN");
  app.add_option("--max-connections", s.http.max_connections, "More are refused")->type_name("N");
  app.add_option("--http-workers", s.http.workers, "Threads that parse and tokenize")
      ->type_name("N")
      ->check(CLI::Range(1, 64));
  app.add_option("--request-timeout", s.http.request_seconds, "Seconds that an answer may take")
      ->type_name("S")
      ->check(CLI::Range(1.0, 1e6));
  app.add_option("--drain-delay", s.drain_delay,
                 "Seconds after SIGTERM in which requests are still taken, not ready any more")
      ->type_name("S");
  app.add_option("--shutdown-timeout", s.shutdown_timeout,
                 "Seconds for answers under way to be finished, then they are cut off")
      ->type_name("S");
}

void declare_options(CLI::App& app, ServeSettings& s) {
  app.add_option("MODEL", s.model, "A .spear file, a full-precision model, or a pulled name")
      ->required()
      ->type_name("MODEL");
  app.add_option("--served-model-name", s.name, "What clients call it")->type_name("NAME");
  declare_network(app, s);
  app.add_option("--max-running", s.engine.max_running, "Answers that are made together")
      ->type_name("N");
  app.add_option("--max-waiting", s.engine.max_waiting, "Requests that wait; more get 429")
      ->type_name("N");
  app.add_option("--context", s.engine.max_context,
                 "Tokens of prompt and answer, at most the model's own limit")
      ->type_name("N");
  app.add_option("--cache-tokens", s.cache_tokens, "Tokens that the cache of keys and values holds")
      ->type_name("N");
  add_kv_option(app, s.kv_type);
  app.add_option("--step-tokens", s.engine.token_budget, "Rows of one step")->type_name("N");
  app.add_option("--draft", s.engine.max_draft, "Tokens guessed from the prompt; 0: none")
      ->type_name("N");
  app.add_option("--slo-ttft", s.slo_ttft_ms,
                 "Milliseconds to the first token; what cannot have it in time gets 429")
      ->type_name("MS");
  app.add_option("--slo-itl", s.slo_itl_ms,
                 "Milliseconds between tokens, which prompts of others may not exceed")
      ->type_name("MS");
  app.add_flag("--degrade", s.degrade,
               "Under load run fewer compensators, those of least effect for their time first, "
               "where that keeps the objectives; answers say so");
  app.add_option("--measure-seconds", s.measure_seconds,
                 "How long step times are measured before serving, about")
      ->type_name("S")
      ->check(CLI::Range(0.0, 60.0));
  app.add_flag("--deterministic", s.engine.deterministic,
               "An answer with a seed does not depend on what else runs");
  s.machine.path = "auto";
  add_machine_options(app, s.machine, Paths::kAll);
}

}  // namespace

Command serve_command() {
  return {.name = "serve",
          .summary = "Serve a model to clients of the OpenAI API",
          .description =
              "Answers /v1/completions and /v1/chat/completions, streaming or not, and what "
              "operators ask: /health, /ready, /metrics, /v1/models. docs/server.md lists fields, "
              "limits and errors. One line of JSON a request goes to standard error, without any "
              "text of prompts or answers. SIGTERM or Ctrl-C finishes what is under way and exits "
              "with 0; a second one ends at once.",
          .examples = {{"spear serve model.spear", "At http://127.0.0.1:8000/v1."},
                       {"spear serve model.spear --host 0.0.0.0 --api-key-file keys.txt",
                        "For other machines, with keys."}},
          .declare = [](CLI::App& app) -> RunCommand {
            auto settings = std::make_shared<ServeSettings>();
            declare_options(app, *settings);
            return [settings](CommandContext& context) { return run(*settings, context); };
          }};
}

}  // namespace spear
