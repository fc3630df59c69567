// The bytes of one connection, plain or under TLS, as Asio's reading and writing functions want
// them. Owned and used by one connection on the server's thread. Seen by http_*.cpp only.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/tcp_stream.hpp>

namespace spear {

// What a TLS server needs of its files (PEM, the certificate with its chain). Throws Failure that
// names the file: unreadable, no certificate, a key that others may read, encrypted, or that does
// not belong to the certificate.
std::unique_ptr<boost::asio::ssl::context> tls_context(const std::string& certificate,
                                                       const std::string& key);

class HttpStream {
 public:
  using executor_type = boost::beast::tcp_stream::executor_type;
  using Socket = boost::asio::ip::tcp::socket;

  HttpStream(Socket socket, boost::asio::ssl::context* tls)  // null: plain
      : tcp_(std::move(socket)),
        tls_(tls == nullptr ? nullptr : std::make_unique<Tls>(tcp_, *tls)) {}

  executor_type get_executor() { return tcp_.get_executor(); }
  [[nodiscard]] bool secure() const { return tls_ != nullptr; }
  Socket& socket() { return tcp_.socket(); }
  void expires_after(std::chrono::steady_clock::duration time) { tcp_.expires_after(time); }
  void expires_never() { tcp_.expires_never(); }
  void close() { tcp_.close(); }

  template <class Buffers, class Handler>
  void async_read_some(const Buffers& buffers, Handler&& handler) {
    if (tls_) return void(tls_->async_read_some(buffers, std::forward<Handler>(handler)));
    tcp_.async_read_some(buffers, std::forward<Handler>(handler));
  }
  template <class Buffers, class Handler>
  void async_write_some(const Buffers& buffers, Handler&& handler) {
    if (tls_) return void(tls_->async_write_some(buffers, std::forward<Handler>(handler)));
    tcp_.async_write_some(buffers, std::forward<Handler>(handler));
  }
  // Of a secure one only: its greeting and its farewell.
  template <class Handler>
  void async_handshake(Handler&& handler) {
    tls_->async_handshake(boost::asio::ssl::stream_base::server, std::forward<Handler>(handler));
  }
  template <class Handler>
  void async_shutdown(Handler&& handler) {
    tls_->async_shutdown(std::forward<Handler>(handler));
  }

 private:
  using Tls = boost::asio::ssl::stream<boost::beast::tcp_stream&>;
  boost::beast::tcp_stream tcp_;
  std::unique_ptr<Tls> tls_;
};

}  // namespace spear
