// Non-blocking loopback sockets and the figures that both modes print. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace spear::load {

using Clock = std::chrono::steady_clock;

inline double seconds_since(Clock::time_point then) {
  return std::chrono::duration<double>(Clock::now() - then).count();
}

// A non-blocking socket on its way to 127.0.0.1. Throws std::runtime_error where there is none
// left.
int connect_to(uint16_t port);
// The limit of open files as far up as it goes.
void raise_file_limit();
// User and system time of this process.
double own_cpu_seconds();
// Resident bytes of a process; 0 where it cannot be read.
int64_t resident_bytes(int pid);
// The value below which this share of the values lies; 0 of none.
double quantile(std::vector<double> values, double share);

struct LoadOptions {
  uint16_t port = 8000;
  double seconds = 20;
  // idle
  int connections = 10000, slow = 1000, pid = 0;
  // drive
  double rate = 1;
  int max_tokens = 32, prompt_words = 48;
  uint64_t seed = 1;
  double ttft_ms = 1000, itl_ms = 100;
  bool send_objectives = false;
};

// Each prints one line of JSON and returns the exit code.
int run_idle(const LoadOptions& options);
int run_drive(const LoadOptions& options);

}  // namespace spear::load
