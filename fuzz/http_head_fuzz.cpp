// Bytes of a connection, as the server's own parser takes them: in pieces of the size that the
// first byte says. Whatever comes is refused with a status of ours, waits for more, or is a request
// whose head the service can judge.
#include <cstdint>
#include <cstdlib>

#include <boost/asio/buffer.hpp>

#include "spear/serve/http_head.h"
#include "spear/serve/service.h"

namespace {

void judge(const spear::HttpParser& parser, const spear::Service& service) {
  const spear::HttpRequest request = spear::request_of(parser, 7);
  for (const char c : request.id)
    if (c <= ' ' || c == '"' || c == 0x7f) std::abort();  // it will stand in a log line
  if (request.path().find('?') != std::string_view::npos) std::abort();
  const auto refusal = service.refuse_head(request);
  if (refusal && (refusal->status < 400 || refusal->body.empty())) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const spear::Service service(
      spear::ServiceOptions{spear::ApiKeys({"sesame"}), {}, "0", {}, false});
  if (size == 0) return 0;
  const size_t piece = 1 + data[0];
  ++data;
  --size;
  spear::HttpParser parser;
  parser.eager(true);
  spear::set_limits(parser, service.limits());
  bool judged = false;
  size_t begin = 0;
  for (size_t end = 0; begin < size && end < size && !parser.is_done();) {
    end = std::min(size, end + piece);
    boost::beast::error_code error;
    begin += parser.put(boost::asio::buffer(data + begin, end - begin), error);
    if (error == boost::beast::http::error::need_more) continue;
    if (error) {
      const auto refusal = spear::parser_refusal(error, service.limits());
      if (refusal && (refusal->status < 400 || refusal->message.empty())) std::abort();
      return 0;
    }
    if (parser.is_header_done() && !judged) judge(parser, service);
    judged = judged || parser.is_header_done();
  }
  if (parser.is_done() && parser.get().body().size() > service.limits().body_bytes) std::abort();
  return 0;
}
