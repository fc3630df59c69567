// The bytes of replies: heads, and the chunks of a stream. Pure functions, every thread.
#pragma once

#include <string>
#include <string_view>

#include "spear/serve/http_message.h"

namespace spear {

enum class Framing : uint8_t {
  kLength,   // Content-Length
  kChunked,  // of HTTP/1.1
  kClose,    // the end of the connection is the end of the body
};

// Status line and headers; `keep_alive` says what Connection says.
std::string head_bytes(const HttpReply& reply, Framing framing, bool keep_alive);
// Status line, headers and body (without it for HEAD).
std::string reply_bytes(const HttpReply& reply, bool keep_alive, bool with_body);
// What an event stream's reply says of itself.
HttpReply event_stream_head();

void append_chunk(std::string& out, std::string_view bytes);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace spear
