#include "serve/http_client.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <stdexcept>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

namespace spear::test {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

}  // namespace

std::string HttpAnswer::header(std::string_view name) const {
  for (const auto& [key, value] : headers)
    if (key == lower(name)) return value;
  return {};
}

HttpClient::HttpClient(uint16_t port) {
  socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    throw std::runtime_error("no connection");
  timeval patience{.tv_sec = 10, .tv_usec = 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

HttpClient::~HttpClient() {
  if (socket_ >= 0) ::close(socket_);
}

void HttpClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

bool HttpClient::fill() {
  char bytes[16384];
  const ssize_t got = ::recv(socket_, bytes, sizeof bytes, 0);
  if (got < 0 && errno != ECONNRESET) throw std::runtime_error("the server is silent");
  if (got <= 0) return false;
  buffer_.append(bytes, static_cast<size_t>(got));
  return true;
}

std::string HttpClient::read_until(std::string_view text) {
  size_t at = 0;
  while ((at = buffer_.find(text)) == std::string::npos)
    if (!fill()) throw std::runtime_error("the server closed after: " + buffer_);
  std::string found = buffer_.substr(0, at + text.size());
  buffer_.erase(0, found.size());
  return found;
}

HttpAnswer HttpClient::receive(bool has_body) {
  HttpAnswer answer;
  const std::string head = read_until("\r\n\r\n");
  answer.status = std::stoi(head.substr(9, 3));
  size_t at = head.find("\r\n") + 2;
  while (at + 2 < head.size()) {
    const size_t end = head.find("\r\n", at);
    const size_t colon = head.find(": ", at);
    answer.headers.emplace_back(lower(head.substr(at, colon - at)),
                                head.substr(colon + 2, end - colon - 2));
    at = end + 2;
  }
  if (!has_body) return answer;
  if (answer.header("transfer-encoding") == "chunked") {
    for (;;) {
      const size_t size = std::stoul(read_until("\r\n"), nullptr, 16);
      while (buffer_.size() < size + 2)
        if (!fill()) throw std::runtime_error("a chunk was cut");
      answer.body += buffer_.substr(0, size);
      buffer_.erase(0, size + 2);
      if (size == 0) return answer;
    }
  }
  if (const std::string length = answer.header("content-length"); !length.empty()) {
    const size_t size = std::stoul(length);
    while (buffer_.size() < size)
      if (!fill()) throw std::runtime_error("the body was cut");
    answer.body = buffer_.substr(0, size);
    buffer_.erase(0, size);
    return answer;
  }
  if (answer.status == 204 || answer.status == 100) return answer;
  while (fill()) {
  }
  answer.body.swap(buffer_);
  return answer;
}

HttpAnswer HttpClient::request(const std::string& method, const std::string& target,
                               const std::string& body, const std::string& more_headers) {
  std::string bytes = method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n" + more_headers;
  if (method == "POST")
    bytes +=
        "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  send(bytes + "\r\n" + body);
  return receive(method != "HEAD");
}

bool HttpClient::closed() {
  while (fill()) {
  }
  return true;
}

void HttpClient::half_close() {
  ::shutdown(socket_, SHUT_WR);
}

void HttpClient::reset() {
  linger hard{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  ::close(socket_);
  socket_ = -1;
}

}  // namespace spear::test
