#include "spear/cli/interrupt.h"

#include <string_view>

#include <signal.h>
#include <unistd.h>

namespace spear {
namespace {

volatile sig_atomic_t g_requested = 0;
volatile sig_atomic_t g_quiet = 0;

// Only calls that are safe in a signal handler.
void on_signal(int number) {
  if (g_requested != 0) _exit(128 + number);
  g_requested = 1;
  if (g_quiet != 0) return;
  constexpr std::string_view kNotice =
      "\nspear: stopping at the next safe point; Ctrl-C again stops at once\n";
  const ssize_t ignored = write(STDERR_FILENO, kNotice.data(), kNotice.size());
  static_cast<void>(ignored);
}

}  // namespace

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = 0;  // no SA_RESTART: a read from the terminal returns
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void quiet_interrupts() {
  g_quiet = 1;
}

bool interrupt_requested() {
  return g_requested != 0;
}

void clear_interrupt() {
  g_requested = 0;
}

}  // namespace spear
