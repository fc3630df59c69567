#include "spear/serve/http_head.h"

#include <string>

#include <boost/beast/http/error.hpp>
#include <fmt/format.h>

namespace spear {

namespace beast = boost::beast;
namespace http = boost::beast::http;

void set_limits(HttpParser& parser, const ServeLimits& limits) {
  parser.header_limit(static_cast<uint32_t>(limits.header_bytes));
  parser.body_limit(limits.body_bytes);
}

HttpRequest request_of(const HttpParser& parser, uint64_t number) {
  const auto& head = parser.get();
  HttpRequest request{.method = std::string(head.method_string()),
                      .target = std::string(head.target())};
  for (const auto& field : head)
    request.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  request.id = request_id(request.header("x-request-id"), number);
  request.has_length = parser.content_length().has_value() || parser.chunked();
  return request;
}

std::optional<ApiError> parser_refusal(const beast::error_code& error, const ServeLimits& limits) {
  if (error == http::error::header_limit || error == http::error::buffer_overflow)
    return ApiError{431, fmt::format("at most {} bytes of headers expected", limits.header_bytes),
                    "", "headers_too_large"};
  if (error == http::error::body_limit)
    return ApiError{413, fmt::format("at most {} bytes of body expected", limits.body_bytes), "",
                    "body_too_large"};
  if (error == http::error::bad_version)
    return ApiError{505, "HTTP/1.1 expected", "", "bad_version"};
  if (error == http::error::end_of_stream || error == http::error::partial_message)
    return std::nullopt;
  if (error.category() == http::make_error_code(http::error::bad_target).category())
    return ApiError{400, fmt::format("not a request of HTTP/1.1: {}", error.message()), "",
                    "bad_request"};
  return std::nullopt;
}

}  // namespace spear
