#include <cerrno>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <unordered_map>

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sockets.h"

namespace spear::load {
namespace {

// One request, from its connection to the end of its answer.
struct Call {
  int socket = -1;
  std::string out;
  size_t sent = 0;
  std::string in;  // what has come since the last whole line
  int status = 0;
  int64_t events = 0;
  bool done = false;
  Clock::time_point begun = Clock::now();
  double first = 0, last = 0;  // events, seconds since begun
};

struct Totals {
  std::map<int, int64_t> by_status;  // 0: the connection broke
  int64_t sent = 0, whole = 0, cut = 0, met = 0, tokens = 0;
  std::vector<double> ttft, itl, refusals;
};

class Driver {
 public:
  explicit Driver(const LoadOptions& options)
      : options_(options), random_(options.seed), epoll_(epoll_create1(EPOLL_CLOEXEC)) {}
  ~Driver() { ::close(epoll_); }
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  const Totals& run() {
    std::exponential_distribution<double> gap(options_.rate);
    const auto begun = Clock::now();
    double next = gap(random_);
    while (seconds_since(begun) < options_.seconds) {
      while (seconds_since(begun) >= next) {
        start();
        next += gap(random_);
      }
      wait(next - seconds_since(begun));
    }
    // What was asked in time is heard to its end, within reason.
    constexpr double kPatience = 60;
    const auto over = Clock::now();
    while (!calls_.empty() && seconds_since(over) < kPatience) wait(0.1);
    while (!calls_.empty()) finish(calls_.begin()->second->socket);
    return totals_;
  }

 private:
  std::string request() {
    static constexpr const char* kWords[] = {"the",   "river", "of",    "small", "stones",
                                             "and",   "a",     "light", "on",    "water",
                                             "where", "birds", "had",   "come",  "back"};
    std::string prompt;
    for (int i = 0; i < options_.prompt_words; ++i)
      prompt += fmt::format("{} ", kWords[random_() % std::size(kWords)]);
    const std::string body =
        fmt::format(R"({{"prompt": "{}", "max_tokens": {}, "ignore_eos": true, "stream": true}})",
                    prompt, options_.max_tokens);
    std::string objectives;
    if (options_.send_objectives)
      objectives = fmt::format("x-slo-ttft-ms: {}\r\nx-slo-tpot-ms: {}\r\n", options_.ttft_ms,
                               options_.itl_ms);
    return fmt::format(
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}"
        "Content-Length: {}\r\n\r\n{}",
        objectives, body.size(), body);
  }

  void start() {
    auto call = std::make_unique<Call>();
    call->out = request();
    call->socket = connect_to(options_.port);
    ++totals_.sent;
    epoll_event event{.events = EPOLLIN | EPOLLOUT, .data = {.fd = call->socket}};
    epoll_ctl(epoll_, EPOLL_CTL_ADD, call->socket, &event);
    calls_[call->socket] = std::move(call);
  }

  void wait(double seconds) {
    epoll_event events[256];
    const int milliseconds = static_cast<int>(std::max(0.0, seconds) * 1000);
    const int n = epoll_wait(epoll_, events, std::size(events), milliseconds);
    for (int i = 0; i < n; ++i) {
      const int socket = events[i].data.fd;
      Call& call = *calls_.at(socket);
      if ((events[i].events & EPOLLOUT) != 0) write(call);
      if ((events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !read(call)) finish(socket);
    }
  }

  void write(Call& call) {
    const ssize_t n =
        ::send(call.socket, call.out.data() + call.sent, call.out.size() - call.sent, MSG_NOSIGNAL);
    if (n > 0) call.sent += static_cast<size_t>(n);
    if (call.sent < call.out.size()) return;
    epoll_event event{.events = EPOLLIN, .data = {.fd = call.socket}};
    epoll_ctl(epoll_, EPOLL_CTL_MOD, call.socket, &event);
  }

  // False: the end.
  static bool read(Call& call) {
    char bytes[16384];
    const ssize_t n = ::recv(call.socket, bytes, sizeof bytes, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
    if (n <= 0) return false;
    call.in.append(bytes, static_cast<size_t>(n));
    size_t at = 0;
    for (size_t end = 0; (end = call.in.find('\n', at)) != std::string::npos; at = end + 1)
      line(call, std::string_view(call.in).substr(at, end - at));
    call.in.erase(0, at);
    return true;
  }

  static void line(Call& call, std::string_view text) {
    if (call.status == 0 && text.starts_with("HTTP/1.1 ") && text.size() > 12)
      call.status = std::stoi(std::string(text.substr(9, 3)));
    if (text.starts_with("data: [DONE]")) call.done = true;
    if (!text.starts_with("data: {\"id\"")) return;
    call.last = seconds_since(call.begun);
    if (call.events++ == 0) call.first = call.last;
  }

  void finish(int socket) {
    const Call& call = *calls_.at(socket);
    const double took = seconds_since(call.begun);
    ++totals_.by_status[call.status];
    if (call.status == 429 || call.status == 503) totals_.refusals.push_back(took);
    if (call.status == 200 && call.done && call.events > 0) {
      ++totals_.whole;
      totals_.tokens += options_.max_tokens;
      const double itl = (call.last - call.first) / std::max(1, options_.max_tokens - 1);
      totals_.ttft.push_back(call.first);
      totals_.itl.push_back(itl);
      if (1e3 * call.first <= options_.ttft_ms && 1e3 * itl <= options_.itl_ms) ++totals_.met;
    } else if (call.status == 200) {
      ++totals_.cut;
    }
    ::close(socket);
    calls_.erase(socket);
  }

  const LoadOptions& options_;
  std::mt19937_64 random_;
  int epoll_;
  std::unordered_map<int, std::unique_ptr<Call>> calls_;
  Totals totals_;
};

}  // namespace

int run_drive(const LoadOptions& options) {
  const auto begun = Clock::now();
  const double cpu = own_cpu_seconds();
  Driver driver(options);
  const Totals& t = driver.run();
  const double share = (own_cpu_seconds() - cpu) / seconds_since(begun);
  std::string statuses;
  for (const auto& [status, count] : t.by_status)
    statuses += fmt::format("{}\"{}\": {}", statuses.empty() ? "" : ", ", status, count);
  fmt::print(
      "{{\"rate\": {}, \"seconds\": {}, \"sent\": {}, \"status\": {{{}}}, \"whole\": {}, "
      "\"cut\": {}, \"goodput\": {:.3f}, \"tokens_per_second\": {:.1f}, "
      "\"ttft_ms\": {{\"p50\": {:.1f}, \"p99\": {:.1f}}}, "
      "\"itl_ms\": {{\"p50\": {:.1f}, \"p99\": {:.1f}}}, "
      "\"refusal_ms\": {{\"p50\": {:.2f}, \"p99\": {:.2f}}}, \"own_cpu_share\": {:.3f}}}\n",
      options.rate, options.seconds, t.sent, statuses, t.whole, t.cut,
      static_cast<double>(t.met) / options.seconds, static_cast<double>(t.tokens) / options.seconds,
      1e3 * quantile(t.ttft, 0.5), 1e3 * quantile(t.ttft, 0.99), 1e3 * quantile(t.itl, 0.5),
      1e3 * quantile(t.itl, 0.99), 1e3 * quantile(t.refusals, 0.5),
      1e3 * quantile(t.refusals, 0.99), share);
  return t.cut == 0 && !t.by_status.contains(0) ? 0 : 1;
}

}  // namespace spear::load
