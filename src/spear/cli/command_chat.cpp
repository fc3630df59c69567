#include <cstdio>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"
#include "spear/base/log.h"
#include "spear/cli/chat_input.h"
#include "spear/cli/chat_session.h"
#include "spear/cli/commands.h"
#include "spear/cli/interrupt.h"
#include "spear/cli/machine.h"
#include "spear/cli/memory_check.h"
#include "spear/cli/memory_speed.h"
#include "spear/cli/model_path.h"
#include "spear/cli/text.h"
#include "spear/eval/evaluate.h"

namespace spear {
namespace {

struct ChatSettings {
  std::string model;
  std::string prompt;
  bool lines = false;
  bool greedy = false;
  bool no_ec = false;
  std::string kv = "auto";
  std::string schema_file;
  ChatOptions options;
  MachineSettings machine;
};

constexpr const char* kHelp =
    "/reset forgets the conversation, /system TEXT sets the system's message (without TEXT: none), "
    "/stats says what was done, /help shows this, /exit leaves.\nA line that ends in \\ goes on; "
    "\"\"\" opens a text of several lines and "
    "closes "
    "it. Ctrl-C stops an answer.\n";

// Every stored byte that one token needs: of an embedding of its own, only a row.
uint64_t bytes_per_token(const OpenedModel& model) {
  const ByteParts b = model.dense != nullptr ? bytes_of(*model.dense) : bytes_of(model.file->model);
  return b.head > 0 ? b.total - b.embedding : b.total;
}

const char* stop_text(ChatStop stop) {
  switch (stop) {
    case ChatStop::kEndToken:
      return "end";
    case ChatStop::kStopString:
      return "stop_string";
    case ChatStop::kMaxTokens:
      return "max_tokens";
    case ChatStop::kContextFull:
      return "context_full";
    case ChatStop::kInterrupted:
      return "interrupted";
  }
  return "end";
}

// What a compressed model says without its compensators: what they are worth, to the ear.
void drop_compensators(OpenedModel& model) {
  int64_t dropped = 0;
  if (model.file != nullptr)
    for (QuantizedLayer& layer : model.file->model.layers)
      for (const Module module : kModules) {
        dropped += layer.linear(module).compensator ? 1 : 0;
        layer.linear(module).compensator.reset();
      }
  if (dropped == 0)
    throw Failure(ErrorCode::kUsage,
                  fmt::format("--no-ec: {} has no compensators to leave out", model.path.string()));
}

OpenedModel open_for_chat(const ChatSettings& settings, CommandContext& context, ThreadPool& pool) {
  check_memory_for(settings.model, context.environment, settings.machine.dtype());
  OpenedModel model = open_model(settings.model, context.environment, settings.machine.dtype(),
                                 pool, context.progress);
  if (settings.no_ec) drop_compensators(model);
  return model;
}

// The plain path judges others, so its cache is exact unless asked otherwise.
ChatOptions options_for(const ChatSettings& settings, const Backend& backend) {
  ChatOptions options = settings.options;
  const bool exact = settings.kv == "auto" && settings.machine.path == "ref";
  options.kv_type = exact ? DType::kF32 : kv_type_named(settings.kv, backend);
  return options;
}

// Runs a chat on one opened model; all three ways to talk to it end in say().
class Chat {
 public:
  Chat(const ChatSettings& settings, CommandContext& context)
      : settings_(settings),
        context_(context),
        machine_(make_machine(settings.machine, context)),
        model_(open_for_chat(settings, context, *machine_.pool)),
        decoder_(model_.decoder(*machine_.backend, settings.machine.arithmetic(),
                                path_of(settings.machine.path, model_))),
        session_(model_, decoder_, *machine_.pool, options_for(settings, *machine_.backend)) {
    if (!session_.has_template())
      log(LogLevel::kWarning,
          fmt::format("{}: no chat template: the text is continued as it stands",
                      model_.path.string()));
  }

  int once(std::string message) {
    const ChatAnswer answer = say(std::move(message), !context_.options.json);
    if (context_.options.json)
      print_out(json_text({{"text", answer.text},
                           {"prompt_tokens", answer.prompt_tokens},
                           {"tokens", answer.tokens},
                           {"prompt_seconds", answer.prompt_seconds},
                           {"seconds", answer.seconds},
                           {"tokens_per_second", answer.tokens_per_second()},
                           {"stop", stop_text(answer.stop)}}));
    if (answer.stop == ChatStop::kInterrupted)
      throw Failure(ErrorCode::kInterrupted, "the answer was stopped");
    return 0;
  }

  int talk(ChatReader reader) {
    for (;;) {
      const ChatInput input = reader.next();
      if (interrupt_requested() || input.kind == ChatInputKind::kExit) return 0;
      if (input.kind == ChatInputKind::kReset) session_.reset();
      if (input.kind == ChatInputKind::kSystem) session_.set_system(input.text);
      if (input.kind == ChatInputKind::kHelp) print_out(kHelp);
      if (input.kind == ChatInputKind::kStats) print_out(stats_text());
      if (input.kind == ChatInputKind::kUnknown)
        print_out(fmt::format("{}: no such command\n{}", input.text, kHelp));
      if (input.kind == ChatInputKind::kMessage) try_to_say(input.text);
      clear_interrupt();
    }
  }

 private:
  // A message that does not fit is told, and the conversation goes on.
  void try_to_say(const std::string& message) {
    try {
      say(message, true);
    } catch (const Failure& failure) {
      if (failure.error().code == ErrorCode::kInternal) throw;
      log(LogLevel::kWarning, failure.error().message);
    }
  }

  std::string stats_text() const {
    const EngineStats s = session_.stats();
    const auto share = [](int64_t part, int64_t whole) {
      return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0;
    };
    return fmt::format(
        "prompts: {} tokens, {} of them computed ({:.0f}% were cached)\n"
        "answers: {} tokens in {} steps, {:.2f} s; {} of {} guesses were right\n"
        "cache: {} of {} pages hold something, {}, {} tokens of context\n"
        "{}\n",
        s.prompt_tokens, s.computed_prompt_tokens, share(s.prefix_hits, s.prefix_queries),
        s.generated_tokens, s.steps, s.busy_seconds, s.accepted_drafts, s.drafted_tokens,
        s.used_pages + s.cached_pages, s.pages,
        size_text(static_cast<int64_t>(session_.cache_bytes())), session_.context(),
        decoder_.describe());
  }

  ChatAnswer say(std::string message, bool show) {
    const auto print = [show](std::string_view piece) {
      if (!show) return;
      print_out(piece);
      std::fflush(stdout);
    };
    ChatAnswer answer =
        session_.answer(std::move(message), print, [] { return !interrupt_requested(); });
    print("\n");
    if (!context_.options.quiet && !context_.options.json) report(answer);
    return answer;
  }

  void report(const ChatAnswer& answer) {
    if (answer.forgotten > 0)
      log(LogLevel::kWarning,
          fmt::format("the {} oldest messages no longer fit into the context", answer.forgotten));
    const double speed = answer.tokens_per_second();
    const double read = speed * static_cast<double>(bytes_per_token(model_));
    std::string line = fmt::format("{} tokens, {:.1f} tokens/s, {:.1f} GB/s of weights",
                                   answer.tokens, speed, read / 1e9);
    if (context_.options.verbose) {
      const double most = measure_memory_speed(*machine_.pool);
      line += fmt::format(" ({:.0f}% of the {:.1f} GB/s this machine reads)", 100 * read / most,
                          most / 1e9);
    }
    if (answer.computed_tokens > 0 && answer.prompt_seconds > 0)
      line += fmt::format("; prompt {} tokens, {:.0f} tokens/s", answer.computed_tokens,
                          static_cast<double>(answer.computed_tokens) / answer.prompt_seconds);
    const bool dim = isatty(STDERR_FILENO) != 0 && context_.color;
    fmt::print(stderr, "{}[{}]{}\n", dim ? "\033[2m" : "", line, dim ? "\033[0m" : "");
  }

  const ChatSettings& settings_;
  CommandContext& context_;
  Machine machine_;
  OpenedModel model_;
  Decoder decoder_;
  ChatSession session_;
};

std::string all_of_stdin() {
  constexpr size_t kLimit = size_t{16} << 20;
  std::string text;
  char buffer[65536];
  for (size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, stdin)) > 0;) {
    text.append(buffer, n);
    if (text.size() > kLimit)
      throw Failure(ErrorCode::kUsage, "standard input: longer than 16 MiB; no context holds that");
  }
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

void complete(ChatSettings& settings, const CommandContext& context) {
  ChatOptions& options = settings.options;
  options.sampling.seed = context.options.seed;
  if (!settings.schema_file.empty())
    options.json_schema = value_or_throw(read_text_file(settings.schema_file, size_t{1} << 20));
}

int run(ChatSettings& settings, CommandContext& context) {
  complete(settings, context);
  if (settings.greedy) settings.options.sampling.temperature = 0;
  quiet_interrupts();
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (!settings.prompt.empty()) {
    std::string message = settings.prompt == "-" ? all_of_stdin() : settings.prompt;
    return Chat(settings, context).once(std::move(message));
  }
  if (!terminal && !settings.lines) {
    std::string message = all_of_stdin();
    if (message.empty())
      throw Failure(ErrorCode::kUsage,
                    "standard input is empty: a message expected there, or --prompt TEXT");
    return Chat(settings, context).once(std::move(message));
  }
  if (context.options.json)
    throw Failure(ErrorCode::kUsage, "--json is for one answer: give --prompt TEXT");
  Chat chat(settings, context);
  if (terminal && !context.options.quiet) print_out("/help lists the commands, /exit leaves.\n");
  const std::string prompt = context.color ? "\033[1;32m>\033[0m " : "> ";
  return chat.talk(ChatReader(stdin, terminal ? prompt : ""));
}

void declare_sampling(CLI::App& app, ChatSettings& s) {
  SamplingParams& sampling = s.options.sampling;
  app.add_option("--temperature", sampling.temperature, "Randomness; 0: always the likeliest token")
      ->type_name("T");
  app.add_flag("--greedy", s.greedy, "The same as --temperature 0");
  app.add_option("--top-k", sampling.top_k, "Only the K likeliest tokens; 0: off")->type_name("K");
  app.add_option("--top-p", sampling.top_p,
                 "Only the likeliest tokens of this joint probability; 1: off")
      ->type_name("P");
  app.add_option("--min-p", sampling.min_p,
                 "Only tokens of this share of the likeliest one's probability; 0: off")
      ->type_name("P");
  app.add_option("--typical-p", sampling.typical_p,
                 "Only tokens of about the expected surprise, to this joint probability; 1: off")
      ->type_name("P");
  app.add_option("--repetition-penalty", sampling.repetition_penalty,
                 "Above 1: seen tokens become less likely")
      ->type_name("X");
  app.add_option("--presence-penalty", sampling.presence_penalty,
                 "Taken off the logit of every token of the answer")
      ->type_name("X");
  app.add_option("--frequency-penalty", sampling.frequency_penalty,
                 "The same, times how often it occurred")
      ->type_name("X");
  app.add_option("--stop", s.options.stop, "A text that ends an answer; may be given several times")
      ->type_name("TEXT");
  app.add_option("--regex", s.options.regex, "A regular expression that answers must match whole")
      ->type_name("REGEX");
  app.add_option("--json-schema", s.schema_file, "A file with a JSON schema that answers must obey")
      ->type_name("FILE");
}

void declare_options(CLI::App& app, ChatSettings& s) {
  app.add_option("MODEL", s.model, "A .spear file, a full-precision model, or a pulled name")
      ->required()
      ->type_name("MODEL");
  app.add_option("-p,--prompt", s.prompt,
                 "Answer this one message and leave; - reads it from standard input")
      ->type_name("TEXT");
  app.add_flag("--lines", s.lines,
               "Take each line of a piped standard input as a message or command");
  app.add_option("--system", s.options.system, "The system's message")->type_name("TEXT");
  declare_sampling(app, s);
  app.add_option("--max-tokens", s.options.max_tokens, "The longest answer")->type_name("N");
  app.add_option("--context", s.options.context,
                 "Tokens of conversation to keep, at most the model's own limit")
      ->type_name("N");
  s.machine.path = "auto";
  add_kv_option(app, s.kv);
  app.add_option("--draft", s.options.max_draft,
                 "Guess up to N tokens a step by what followed the same words before; 0: none")
      ->type_name("N");
  app.add_flag("--deterministic", s.options.deterministic,
               "The same bits whatever the cache holds: prompts page by page");
  app.add_flag("--no-ec", s.no_ec, "Leave the compensators out, to hear the difference");
  add_machine_options(app, s.machine, Paths::kAll);
}

}  // namespace

Command chat_command() {
  return {.name = "chat",
          .summary = "Talk to a model",
          .description =
              "Streams the answers. The model's own chat template makes the prompts. In a chat, "
              "/reset forgets, /system TEXT sets the system's message, /stats says what was done, "
              "/exit leaves, \"\"\" opens and closes a text of several lines. A piped standard "
              "input is one message. The same "
              "--seed gives the same answers.",
          .examples = {{"spear chat model.spear", "A conversation in the terminal."},
                       {"spear chat model.spear --prompt \"What is a comet?\" --greedy",
                        "One answer, always the same."},
                       {"git log -5 | spear chat smollm2-135m --system \"Summarise.\"",
                        "A piped text is the message."}},
          .declare = [](CLI::App& app) -> RunCommand {
            auto settings = std::make_shared<ChatSettings>();
            declare_options(app, *settings);
            return [settings](CommandContext& context) { return run(*settings, context); };
          }};
}

}  // namespace spear
