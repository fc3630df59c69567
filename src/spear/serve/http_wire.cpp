#include "spear/serve/http_wire.h"

#include <ctime>

#include <fmt/format.h>

namespace spear {
namespace {

std::string date_text() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[64];
  const size_t length = std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc);
  return {text, length};
}

// Header values hold nothing that ends a line.
void append_header(std::string& out, std::string_view name, std::string_view value) {
  out += name;
  out += ": ";
  for (const char c : value) out += c == '\r' || c == '\n' ? ' ' : c;
  out += "\r\n";
}

}  // namespace

std::string head_bytes(const HttpReply& reply, Framing framing, bool keep_alive) {
  std::string out = fmt::format("HTTP/1.1 {} {}\r\n", reply.status, reason_phrase(reply.status));
  append_header(out, "Date", date_text());
  append_header(out, "Server", "spear");
  if (!reply.content_type.empty()) append_header(out, "Content-Type", reply.content_type);
  if (framing == Framing::kLength && reply.status != 204)
    append_header(out, "Content-Length", fmt::format("{}", reply.body.size()));
  if (framing == Framing::kChunked) append_header(out, "Transfer-Encoding", "chunked");
  for (const auto& [name, value] : reply.headers) append_header(out, name, value);
  append_header(out, "Connection", keep_alive ? "keep-alive" : "close");
  return out + "\r\n";
}

std::string reply_bytes(const HttpReply& reply, bool keep_alive, bool with_body) {
  std::string out = head_bytes(reply, Framing::kLength, keep_alive);
  if (with_body && reply.status != 204) out += reply.body;
  return out;
}

HttpReply event_stream_head() {
  HttpReply reply{.status = 200, .content_type = "text/event-stream; charset=utf-8"};
  reply.headers.emplace_back("Cache-Control", "no-cache");
  reply.headers.emplace_back("X-Accel-Buffering", "no");
  return reply;
}

void append_chunk(std::string& out, std::string_view bytes) {
  if (bytes.empty()) return;  // an empty chunk would end the body
  out += fmt::format("{:x}\r\n", bytes.size());
  out += bytes;
  out += "\r\n";
}

}  // namespace spear
