#include "spear/serve/http_server.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_set>

#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <fmt/format.h>
#include <sys/resource.h>

#include "spear/base/log.h"
#include "spear/serve/http_connection.h"

namespace spear {
namespace {

namespace net = boost::asio;
using Tcp = net::ip::tcp;
using NetError = boost::beast::error_code;

Tcp::endpoint endpoint_of(net::io_context& io, const HttpOptions& options) {
  NetError error;
  const net::ip::address address = net::ip::make_address(options.host, error);
  if (!error) return {address, options.port};
  Tcp::resolver resolver(io);
  const auto found = resolver.resolve(options.host, std::to_string(options.port), error);
  if (error || found.empty())
    throw Failure(ErrorCode::kNotFound,
                  fmt::format("{}: no address of that name: {}", options.host, error.message()));
  return found.begin()->endpoint();
}

Tcp::acceptor listening(net::io_context& io, const HttpOptions& options) {
  Tcp::acceptor acceptor(io);
  const Tcp::endpoint at = endpoint_of(io, options);
  NetError error;
  acceptor.open(at.protocol(), error);
  if (!error) acceptor.set_option(net::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(at, error);
  if (!error) acceptor.listen(net::socket_base::max_listen_connections, error);
  if (error)
    throw Failure(ErrorCode::kIo,
                  fmt::format("cannot listen at {} port {}: {}; --host and --port name another "
                              "place",
                              options.host, options.port, error.message()));
  return acceptor;
}

std::unique_ptr<net::ssl::context> tls_of(const HttpOptions& options) {
  if (options.tls_certificate.empty() && options.tls_key.empty()) return nullptr;
  if (options.tls_certificate.empty() || options.tls_key.empty())
    throw Failure(ErrorCode::kUsage, "TLS: a certificate and its key expected, found one of them");
  return tls_context(options.tls_certificate, options.tls_key);
}

// A descriptor for every connection that may come, as far as the system lets this process go.
void make_room_for(size_t connections) {
  constexpr rlim_t kOthers = 256;  // files, the listener, what clients of ours take
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= connections + kOthers) return;
  files.rlim_cur = std::min<rlim_t>(files.rlim_max, connections + kOthers);
  setrlimit(RLIMIT_NOFILE, &files);
}

}  // namespace

class HttpServer::Impl {
 public:
  Impl(Service& service, const HttpOptions& options)
      : workers_(static_cast<size_t>(std::max(1, options.workers))),
        shared_{service, options, io_, workers_, tls_of(options)},
        acceptor_(listening(io_, shared_.options)),
        retry_(io_),
        port_(acceptor_.local_endpoint().port()),
        keep_running_(io_.get_executor()) {
    make_room_for(shared_.options.max_connections);
    accept();
    thread_ = std::thread([this] { run(); });
  }

  ~Impl() { stop(0); }

  [[nodiscard]] uint16_t port() const { return port_; }
  [[nodiscard]] size_t connections() const { return count_.load(); }

  void stop(double seconds) {
    if (!thread_.joinable()) return;
    net::post(io_, [this] {
      shared_.stopping = true;
      NetError ignored;
      acceptor_.close(ignored);
      each([](HttpConnection& c) { c.stop_when_idle(); });
    });
    if (!wait_for_end(seconds)) {
      net::post(io_, [this] { each([](HttpConnection& c) { c.cut_off(); }); });
      constexpr double kEnough = 5;
      wait_for_end(kEnough);
    }
    workers_.join();
    io_.stop();
    thread_.join();
    io_.restart();
    io_.poll();  // what the workers handed back last: given up here, while the engine still stands
  }

 private:
  // An exception of one handler is a bug, but no reason to drop every other client.
  void run() {
    for (;;) {
      try {
        io_.run();
        return;
      } catch (const std::exception& trouble) {
        log(LogLevel::kWarning,
            fmt::format("the server's thread goes on after: {}", trouble.what()));
      }
    }
  }

  void accept() {
    acceptor_.async_accept([this](NetError error, Tcp::socket socket) {
      if (shared_.stopping || !acceptor_.is_open()) return;
      if (error) {  // out of descriptors, perhaps: the next try comes later
        retry_.expires_after(std::chrono::milliseconds(50));
        retry_.async_wait([this](NetError cancelled) {
          if (!cancelled) accept();
        });
        return;
      }
      take(std::move(socket));
      accept();
    });
  }

  void take(Tcp::socket socket) {
    NetError ignored;
    socket.set_option(Tcp::no_delay(true), ignored);
    const bool room = connections_.size() < shared_.options.max_connections;
    auto connection = std::make_shared<HttpConnection>(shared_, std::move(socket),
                                                       [this](HttpConnection* c) { forget(c); });
    {
      const std::lock_guard lock(mutex_);
      connections_.insert(connection.get());
      count_ = connections_.size();
    }
    if (room)
      connection->start();
    else
      connection->start_refused();
  }

  void forget(HttpConnection* connection) {
    const std::lock_guard lock(mutex_);
    connections_.erase(connection);
    count_ = connections_.size();
    if (connections_.empty()) ended_.notify_all();
  }

  template <class F>
  void each(F&& f) {
    std::vector<std::shared_ptr<HttpConnection>> alive;
    {
      const std::lock_guard lock(mutex_);
      for (HttpConnection* c : connections_)
        if (auto held = c->weak_from_this().lock()) alive.push_back(std::move(held));
    }
    for (const auto& c : alive) f(*c);
  }

  bool wait_for_end(double seconds) {
    std::unique_lock lock(mutex_);
    return ended_.wait_for(lock, std::chrono::duration<double>(seconds),
                           [this] { return connections_.empty(); });
  }

  // Connections end on this server's thread or, as it is torn down, on the owner's.
  std::mutex mutex_;
  std::condition_variable ended_;
  std::unordered_set<HttpConnection*> connections_;
  std::atomic<size_t> count_ = 0;

  net::io_context io_{1};
  net::thread_pool workers_;
  HttpShared shared_;
  Tcp::acceptor acceptor_;
  net::steady_timer retry_;
  uint16_t port_;
  net::executor_work_guard<net::io_context::executor_type> keep_running_;
  std::thread thread_;
};

HttpServer::HttpServer(Service& service, const HttpOptions& options)
    : impl_(std::make_unique<Impl>(service, options)) {}
HttpServer::~HttpServer() = default;

uint16_t HttpServer::port() const {
  return impl_->port();
}
size_t HttpServer::connections() const {
  return impl_->connections();
}
void HttpServer::stop(double seconds) {
  impl_->stop(seconds);
}

}  // namespace spear
