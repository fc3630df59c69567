#include <cerrno>
#include <stdexcept>
#include <thread>

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sockets.h"

namespace spear::load {
namespace {

constexpr std::string_view kHealth = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
constexpr int kPatience = 5000;  // milliseconds

bool ready(int socket, short what) {
  pollfd asked{.fd = socket, .events = what, .revents = 0};
  return ::poll(&asked, 1, kPatience) == 1;
}

// A new connection, a request, its reply: seconds; below 0 where there was none.
double ask_health(uint16_t port) {
  const auto begun = Clock::now();
  const int socket = connect_to(port);
  char reply[4096];
  ssize_t got = -1;
  if (ready(socket, POLLOUT) && ::send(socket, kHealth.data(), kHealth.size(), MSG_NOSIGNAL) > 0 &&
      ready(socket, POLLIN))
    got = ::recv(socket, reply, sizeof reply, 0);
  ::close(socket);
  const bool good = got > 12 && std::string_view(reply, 12) == "HTTP/1.1 200";
  return good ? seconds_since(begun) : -1;
}

struct Slow {
  int socket = -1;
  size_t sent = 0;
};

// One byte more of a request that never ends; a new connection where the server has cut the old
// one.
void trickle(Slow& slow, uint16_t port, int64_t& cut) {
  constexpr std::string_view kStart = "GET /health HTTP/1.1\r\nX-Slow: ";
  const char byte = slow.sent < kStart.size() ? kStart[slow.sent] : 'a';
  if (slow.socket >= 0 && ::send(slow.socket, &byte, 1, MSG_NOSIGNAL) == 1) {
    char ignored[512];
    const ssize_t got = ::recv(slow.socket, ignored, sizeof ignored, MSG_DONTWAIT);
    ++slow.sent;
    if (got != 0) return;
  }
  if (slow.socket >= 0) {
    ::close(slow.socket);
    ++cut;
  }
  slow = {.socket = connect_to(port), .sent = 0};
}

}  // namespace

int run_idle(const LoadOptions& options) {
  const int64_t before = resident_bytes(options.pid);
  std::vector<int> idle;
  for (int i = 0; i < options.connections; ++i) {
    idle.push_back(connect_to(options.port));
    if (!ready(idle.back(), POLLOUT)) throw std::runtime_error("the server takes no connection");
  }
  std::vector<double> alone;  // while all are idle
  for (int i = 0; i < 20; ++i) alone.push_back(ask_health(options.port));
  const int64_t with = resident_bytes(options.pid);

  std::vector<Slow> slow(static_cast<size_t>(options.slow));
  std::vector<double> times;
  int64_t cut = 0;
  int failed = 0;
  const auto begun = Clock::now();
  const double cpu = own_cpu_seconds();
  size_t next = 0;
  while (seconds_since(begun) < options.seconds) {
    // A tenth of the slow ones every tenth of a second: each sends one byte a second.
    for (size_t i = 0; i < slow.size() / 10; ++i)
      trickle(slow[next++ % slow.size()], options.port, cut);
    const double took = ask_health(options.port);
    if (took < 0) ++failed;
    times.push_back(took);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  const double share = (own_cpu_seconds() - cpu) / seconds_since(begun);
  fmt::print(
      "{{\"connections\": {}, \"slow\": {}, \"health_idle_ms_max\": {:.2f}, "
      "\"health_ms\": {{\"p50\": {:.2f}, \"p99\": {:.2f}, \"max\": {:.2f}}}, "
      "\"health_failed\": {}, \"slow_cut_off\": {}, \"bytes_per_connection\": {:.0f}, "
      "\"own_cpu_share\": {:.3f}}}\n",
      idle.size(), slow.size(), 1e3 * quantile(alone, 1), 1e3 * quantile(times, 0.5),
      1e3 * quantile(times, 0.99), 1e3 * quantile(times, 1), failed, cut,
      static_cast<double>(with - before) / static_cast<double>(std::max(1, options.connections)),
      share);
  for (const int socket : idle) ::close(socket);
  for (const Slow& one : slow)
    if (one.socket >= 0) ::close(one.socket);
  return failed == 0 ? 0 : 1;
}

}  // namespace spear::load
