#include "spear/cli/program.h"

#include <cerrno>
#include <cstring>
#include <new>
#include <string>
#include <string_view>

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include "spear/base/error.h"
#include "spear/base/json.h"
#include "spear/base/log.h"
#include "spear/cli/app.h"
#include "spear/cli/command.h"
#include "spear/cli/exit_codes.h"
#include "spear/cli/interrupt.h"
#include "spear/cli/progress_bar.h"

namespace spear {
namespace {

bool wants_color(int fd, const GlobalOptions& options, const Environment& env) {
  return !options.no_color && !env.no_color && isatty(fd) != 0;
}

int report_error(const Error& error, bool json, bool color) {
  if (json) {
    const Json body = {{"error",
                        {{"code", static_cast<int>(error.code)},
                         {"name", exit_code_name(error.code)},
                         {"message", error.message}}}};
    fmt::print(stderr, "{}\n", one_line(body));
  } else {
    fmt::print(stderr, "spear: {}error:{} {}\n", color ? "\033[1;31m" : "", color ? "\033[0m" : "",
               error.message);
  }
  return static_cast<int>(error.code);
}

// Options may be wrong, yet the error must come in the form that was asked for.
bool json_was_typed(int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i)
    if (std::string_view(argv[i]) == "--json") return true;
  return false;
}

std::string joined(int argc, const char* const* argv) {
  std::string line = "spear";
  for (int i = 1; i < argc; ++i) line += std::string(" ") + argv[i];
  return line;
}

LogSink sink_to(ProgressBar& bar, const GlobalOptions& options, bool color) {
  return [&bar, quiet = options.quiet, verbose = options.verbose, color](LogLevel level,
                                                                         std::string_view line) {
    if (level == LogLevel::kWarning && !quiet)
      bar.print_above(fmt::format("spear: {}warning:{} {}", color ? "\033[1;33m" : "",
                                  color ? "\033[0m" : "", line));
    if (level != LogLevel::kWarning && verbose) bar.print_above(fmt::format("spear: {}", line));
  };
}

// Output that never arrived is an error like any other, but for a reader who has left.
void finish_output() {
  if (std::fflush(stdout) == 0 || errno == EPIPE) return;
  throw Failure(ErrorCode::kIo, fmt::format("standard output: {}", std::strerror(errno)));
}

int run_command(Application& application, const std::string& command, std::string command_line) {
  const GlobalOptions& options = application.options();
  const Environment env = read_environment();
  install_interrupt_handler();
  const bool error_color = wants_color(STDERR_FILENO, options, env);
  ProgressBar bar({.stream = stderr,
                   .terminal = isatty(STDERR_FILENO) != 0,
                   .quiet = options.quiet,
                   .stop_requested = interrupt_requested});
  set_log_sink(sink_to(bar, options, error_color));
  CommandContext context{.options = options,
                         .environment = env,
                         .progress = bar,
                         .color = wants_color(STDOUT_FILENO, options, env),
                         .command_line = std::move(command_line)};
  int status = 0;
  try {
    status = application.run(command, context);
    bar.end();
    finish_output();
  } catch (const Failure& failure) {
    bar.end();
    std::fflush(stdout);
    status = report_error(failure.error(), options.json, error_color);
  } catch (const std::bad_alloc&) {
    bar.end();
    status =
        report_error({ErrorCode::kIo, "out of memory: this machine has too little for the model"},
                     options.json, error_color);
  } catch (const std::exception& e) {
    bar.end();
    status = report_error({ErrorCode::kInternal, fmt::format("unexpected: {}", e.what())},
                          options.json, error_color);
  }
  set_log_sink({});
  return status;
}

}  // namespace

void print_out(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size()) return;
  if (errno == EPIPE) return;  // `spear list | head -1`: the reader has what it wanted
  throw Failure(ErrorCode::kIo, fmt::format("standard output: {}", std::strerror(errno)));
}

int run_program(int argc, const char* const* argv) {
  signal(SIGPIPE, SIG_IGN);  // a broken connection is an answer, not the end
  Application application;
  const Application::Parsed parsed = application.parse(argc, argv);
  if (!parsed.done) return run_command(application, parsed.command, joined(argc, argv));
  if (parsed.status == 0) {
    std::fputs(parsed.text.c_str(), stdout);
    return 0;
  }
  if (argc <= 1) {
    std::fputs(parsed.text.c_str(), stderr);
    return parsed.status;
  }
  return report_error({ErrorCode::kUsage, parsed.text}, json_was_typed(argc, argv),
                      isatty(STDERR_FILENO) != 0 && !read_environment().no_color);
}

}  // namespace spear
