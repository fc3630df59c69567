// One client's connection: reads a request, has it answered, writes the answer, and again. Lives
// as long as something of it is under way. The server's thread alone touches it; wake-ups from
// other threads come through the server's queue. Seen by http_*.cpp only.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core/flat_buffer.hpp>

#include "spear/serve/http_head.h"
#include "spear/serve/http_server.h"
#include "spear/serve/http_stream.h"

namespace spear {

// What connections share with their server.
struct HttpShared {
  Service& service;
  const HttpOptions options;
  boost::asio::io_context& io;
  boost::asio::thread_pool& workers;
  const std::unique_ptr<boost::asio::ssl::context> tls;  // null: plain
  size_t pending = 0;                                    // requests with the workers
  bool stopping = false;
  uint64_t next_request = 1;
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  HttpConnection(HttpShared& shared, boost::asio::ip::tcp::socket socket,
                 std::function<void(HttpConnection*)> on_end);
  ~HttpConnection();

  void start();
  void start_refused();  // one reply: too many connections
  void stop_when_idle();
  void cut_off();

 private:
  using NetError = boost::beast::error_code;
  struct Wake;

  void await_request();
  void read_head();
  void on_head(NetError error);
  void read_body();
  void on_body(NetError error);
  void refuse_unread(const ApiError& error);
  void dispatch();
  void on_handled(Handled handled);

  void watch_client();
  void tick();
  void poll();
  void write_reply(HttpReply reply);
  void write_stream(std::string events, bool last);
  void write(std::string bytes, std::function<void()> then);
  void finish_request(int status);
  void linger();
  void say_goodbye();
  void discard();
  void close();
  void give_up(int status);

  HttpShared& shared_;
  HttpStream stream_;
  boost::beast::flat_buffer buffer_;
  std::optional<HttpParser> parser_;
  std::function<void(HttpConnection*)> on_end_;

  // Of the request under way.
  HttpRequest request_;
  unsigned version_ = 11;
  bool keep_alive_ = true;
  std::chrono::steady_clock::time_point started_;
  std::unique_ptr<Exchange> exchange_;
  std::shared_ptr<Wake> wake_;
  boost::asio::steady_timer timer_;
  std::chrono::steady_clock::time_point last_write_;
  bool busy_ = false;       // from a request's first byte to its reply's last
  bool head_sent_ = false;  // of an event stream
  bool writing_ = false, watching_ = false, closed_ = false, unread_body_ = false;
  size_t discarded_ = 0;
  std::string outgoing_;
};

}  // namespace spear
