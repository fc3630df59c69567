#include "spear/serve/http_connection.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <fmt/format.h>
#include <poll.h>

#include "spear/serve/answer_writer.h"
#include "spear/serve/http_wire.h"

namespace spear {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Clock = std::chrono::steady_clock;

constexpr size_t kBuffer = size_t{64} << 10;  // of unparsed bytes, at most

Clock::duration duration_of(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// Whatever bytes of it wait to be read.
bool client_is_gone(int descriptor) {
  pollfd asked{.fd = descriptor, .events = POLLRDHUP, .revents = 0};
  return ::poll(&asked, 1, 0) != 0;
}

}  // namespace

// Reached from the engine's and the workers' threads; the connection may be gone by then.
struct HttpConnection::Wake : std::enable_shared_from_this<Wake> {
  Wake(net::io_context& context, std::weak_ptr<HttpConnection> to)
      : io(context), connection(std::move(to)) {}

  void call() {
    if (pending.exchange(true)) return;
    net::post(io, [self = shared_from_this()] {
      self->pending = false;
      const auto alive = self->connection.lock();
      if (alive && alive->wake_ == self) alive->poll();
    });
  }

  net::io_context& io;
  std::weak_ptr<HttpConnection> connection;
  std::atomic<bool> pending = false;
};

HttpConnection::HttpConnection(HttpShared& shared, net::ip::tcp::socket socket,
                               std::function<void(HttpConnection*)> on_end)
    : shared_(shared),
      stream_(std::move(socket), shared.tls.get()),
      buffer_(kBuffer),
      on_end_(std::move(on_end)),
      timer_(shared.io) {}

HttpConnection::~HttpConnection() {
  on_end_(this);
}

void HttpConnection::start() {
  if (!stream_.secure()) return await_request();
  stream_.expires_after(duration_of(shared_.options.header_seconds));
  stream_.async_handshake([self = shared_from_this()](NetError error) {
    if (error || self->closed_) return self->close();
    self->await_request();
  });
}

void HttpConnection::start_refused() {
  if (stream_.secure()) return close();  // no word of it is worth a handshake
  keep_alive_ = false;
  version_ = 11;
  request_.id = request_id("", shared_.next_request++);
  write_reply(error_reply(
      {503, "this server has no room for another connection", "", "too_many_connections", 1}));
}

void HttpConnection::stop_when_idle() {
  if (!busy_) close();
}

void HttpConnection::cut_off() {
  if (exchange_) exchange_->abandon();
  close();
}

void HttpConnection::close() {
  if (closed_) return;
  closed_ = true;
  timer_.cancel();
  beast::error_code ignored;
  stream_.socket().shutdown(net::ip::tcp::socket::shutdown_both, ignored);
  stream_.close();
}

void HttpConnection::await_request() {
  busy_ = false;
  if (shared_.stopping) return close();
  request_ = {};
  if (buffer_.size() > 0) return read_head();  // a pipelined request is read in its turn
  buffer_.shrink_to_fit();
  stream_.expires_after(duration_of(shared_.options.idle_seconds));
  constexpr size_t kFirst = 2048;
  stream_.async_read_some(buffer_.prepare(kFirst),
                          [self = shared_from_this()](NetError error, size_t bytes) {
                            if (error || self->closed_) return self->close();
                            self->buffer_.commit(bytes);
                            self->read_head();
                          });
}

void HttpConnection::read_head() {
  busy_ = true;
  started_ = Clock::now();
  parser_.emplace();
  set_limits(*parser_, shared_.service.limits());
  stream_.expires_after(duration_of(shared_.options.header_seconds));
  http::async_read_header(
      stream_, buffer_, *parser_,
      [self = shared_from_this()](NetError error, size_t) { self->on_head(error); });
}

// The body, or what there is of it, stays unread: the connection cannot be used again.
void HttpConnection::refuse_unread(const ApiError& error) {
  if (request_.id.empty()) request_.id = request_id("", shared_.next_request++);
  keep_alive_ = false;
  unread_body_ = true;
  write_reply(error_reply(error));
}

void HttpConnection::on_head(NetError error) {
  if (closed_) return;
  if (error) {
    const auto refusal = parser_refusal(error, shared_.service.limits());
    return refusal ? refuse_unread(*refusal) : close();
  }
  request_ = request_of(*parser_, shared_.next_request++);
  version_ = parser_->get().version();
  keep_alive_ = parser_->keep_alive() && !shared_.stopping;
  if (std::optional<HttpReply> refusal = shared_.service.refuse_head(request_)) {
    unread_body_ = request_.has_length;
    keep_alive_ = keep_alive_ && !unread_body_;
    return write_reply(std::move(*refusal));
  }
  if (request_.header("expect") != "100-continue" || buffer_.size() > 0) return read_body();
  write("HTTP/1.1 100 Continue\r\n\r\n", [this] { read_body(); });
}

void HttpConnection::read_body() {
  stream_.expires_after(duration_of(shared_.options.body_seconds));
  http::async_read(stream_, buffer_, *parser_,
                   [self = shared_from_this()](NetError error, size_t) { self->on_body(error); });
}

void HttpConnection::on_body(NetError error) {
  if (closed_) return;
  if (error) {
    const auto refusal = parser_refusal(error, shared_.service.limits());
    return refusal ? refuse_unread(*refusal) : close();
  }
  request_.body = std::move(parser_->get().body());
  parser_.reset();
  stream_.expires_never();
  dispatch();
}

void HttpConnection::dispatch() {
  wake_ = std::make_shared<Wake>(shared_.io, weak_from_this());
  const auto wake = [wake = wake_] { wake->call(); };
  if (shared_.service.is_quick(request_)) return on_handled(shared_.service.handle(request_, wake));
  if (shared_.pending >= shared_.options.max_pending) {
    return write_reply(error_reply(
        {429, "too many requests wait to be read; try again later", "", "queue_full", 1}));
  }
  ++shared_.pending;
  net::post(shared_.workers, [self = shared_from_this(), wake] {
    auto handled = std::make_shared<Handled>(self->shared_.service.handle(self->request_, wake));
    net::io_context& io = self->shared_.io;
    net::post(io, [self, handled] {
      --self->shared_.pending;
      self->on_handled(std::move(*handled));
    });
  });
}

void HttpConnection::on_handled(Handled handled) {
  std::string().swap(request_.body);
  if (closed_) return;  // the exchange, if any, gives up as it goes
  if (!handled.exchange) return write_reply(std::move(handled.reply));
  exchange_ = std::move(handled.exchange);
  head_sent_ = false;
  last_write_ = Clock::now();
  watch_client();
  tick();
  poll();
}

// Reading would take pipelined bytes: only looked at, while an answer is under way.
void HttpConnection::watch_client() {
  if (watching_) return;
  watching_ = true;
  stream_.socket().async_wait(net::ip::tcp::socket::wait_read,
                              [self = shared_from_this()](NetError error) {
                                self->watching_ = false;
                                if (error || self->closed_ || !self->exchange_) return;
                                if (client_is_gone(self->stream_.socket().native_handle()))
                                  self->give_up(499);
                              });
}

void HttpConnection::tick() {
  constexpr double kOften = 0.5;
  timer_.expires_after(duration_of(std::min(kOften, shared_.options.ping_seconds)));
  timer_.async_wait([weak = weak_from_this()](NetError error) {
    const auto self = weak.lock();
    if (error || !self || self->closed_ || !self->exchange_) return;
    if (client_is_gone(self->stream_.socket().native_handle())) return self->give_up(499);
    const auto now = Clock::now();
    if (now - self->started_ > duration_of(self->shared_.options.request_seconds)) {
      if (self->writing_ || self->head_sent_) return self->give_up(408);
      self->exchange_->abandon();
      self->keep_alive_ = false;
      return self->write_reply(error_reply({408, "the answer took too long", "", "timeout"}));
    }
    const bool silent = now - self->last_write_ >= duration_of(self->shared_.options.ping_seconds);
    if (silent && !self->writing_ && self->exchange_->streams())
      self->write_stream(std::string(kPingEvent), false);
    self->tick();
  });
}

void HttpConnection::poll() {
  if (closed_ || writing_ || !exchange_) return;
  HttpReply reply;
  std::string events;
  switch (exchange_->poll(reply, events)) {
    case ExchangeState::kWaiting:
      return;
    case ExchangeState::kReply:
      return write_reply(std::move(reply));
    case ExchangeState::kStream:
      return write_stream(std::move(events), false);
    case ExchangeState::kEnd:
      return write_stream(std::move(events), true);
  }
}

void HttpConnection::write_reply(HttpReply reply) {
  if (head_sent_) {  // too late for a status: an error ends the stream
    std::string events;
    append_event(events, reply.body);
    events += kDoneEvent;
    return write_stream(std::move(events), true);
  }
  shared_.service.finish_headers(request_, reply);
  keep_alive_ = keep_alive_ && !reply.close && !shared_.stopping;
  const int status = reply.status;
  write(reply_bytes(reply, keep_alive_, request_.method != "HEAD"),
        [this, status] { finish_request(status); });
}

void HttpConnection::write_stream(std::string events, bool last) {
  const bool chunked = version_ >= 11;
  std::string bytes;
  if (!head_sent_) {
    head_sent_ = true;
    keep_alive_ = keep_alive_ && chunked && !shared_.stopping;
    HttpReply head = event_stream_head();
    shared_.service.finish_headers(request_, head);
    bytes = head_bytes(head, chunked ? Framing::kChunked : Framing::kClose, keep_alive_);
  }
  if (chunked) {
    append_chunk(bytes, events);
    if (last) bytes += kLastChunk;
  } else {
    bytes += events;
  }
  write(std::move(bytes), [this, last] {
    if (last)
      finish_request(200);
    else
      poll();
  });
}

void HttpConnection::write(std::string bytes, std::function<void()> then) {
  writing_ = true;
  outgoing_ = std::move(bytes);
  stream_.expires_after(duration_of(shared_.options.write_seconds));
  net::async_write(stream_, net::buffer(outgoing_),
                   [self = shared_from_this(), then = std::move(then)](NetError error, size_t) {
                     self->writing_ = false;
                     self->last_write_ = Clock::now();
                     if (self->closed_) return;
                     if (error) return self->give_up(499);
                     self->stream_.expires_never();
                     then();
                   });
}

void HttpConnection::give_up(int status) {
  if (exchange_) exchange_->abandon();
  keep_alive_ = false;
  unread_body_ = false;
  finish_request(status);
}

void HttpConnection::finish_request(int status) {
  const ExchangeRecord record = exchange_ ? exchange_->record() : ExchangeRecord{};
  const double seconds = std::chrono::duration<double>(Clock::now() - started_).count();
  const std::string line = shared_.service.finished(request_, status, seconds, record);
  if (shared_.options.log) shared_.options.log(line);
  exchange_.reset();
  wake_.reset();
  timer_.cancel();
  head_sent_ = false;
  std::string().swap(outgoing_);
  if (keep_alive_) return await_request();
  if (status == 499 || closed_) return close();
  linger();
}

// A reset while the client still sends could lose it the reply: what comes is read and dropped for
// a while.
void HttpConnection::linger() {
  if (!unread_body_) return stream_.secure() ? say_goodbye() : close();
  beast::error_code ignored;
  stream_.socket().shutdown(net::ip::tcp::socket::shutdown_send, ignored);
  constexpr double kLinger = 2;
  stream_.expires_after(duration_of(kLinger));
  discard();
}

// Of TLS: the client can tell this end from one that somebody else made.
void HttpConnection::say_goodbye() {
  constexpr double kPatience = 1;
  stream_.expires_after(duration_of(kPatience));
  stream_.async_shutdown([self = shared_from_this()](NetError) { self->close(); });
}

void HttpConnection::discard() {
  constexpr size_t kMost = size_t{64} << 20;
  constexpr size_t kPiece = size_t{32} << 10;
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(kPiece),
                          [self = shared_from_this()](NetError error, size_t bytes) {
                            self->discarded_ += bytes;
                            if (error || self->closed_ || self->discarded_ > kMost)
                              return self->close();
                            self->discard();
                          });
}

}  // namespace spear
