// From the parser's view of a request to ours, without any connection: limits, headers, refusals.
// Pure functions. Seen by http_*.cpp and a fuzz target only.
#pragma once

#include <cstdint>
#include <optional>

#include <boost/beast/core/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "spear/serve/api_error.h"
#include "spear/serve/http_message.h"
#include "spear/serve/serve_limits.h"

namespace spear {

using HttpParser = boost::beast::http::request_parser<boost::beast::http::string_body>;

void set_limits(HttpParser& parser, const ServeLimits& limits);
// Of a parser that has the whole head; `number` makes an id where the client's cannot be used.
HttpRequest request_of(const HttpParser& parser, uint64_t number);
// What the parser minds, as a reply; nothing: there is nobody to tell, or nothing to say.
std::optional<ApiError> parser_refusal(const boost::beast::error_code& error,
                                       const ServeLimits& limits);

}  // namespace spear
