#include "spear/serve/api_error.h"

#include <cmath>

#include <fmt/format.h>

#include "spear/base/json.h"

namespace spear {
namespace {

const char* type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 404:
      return "not_found_error";
    case 408:
      return "timeout_error";
    case 429:
      return "rate_limit_error";
    case 500:
      return "server_error";
    case 501:
      return "not_supported_error";
    case 503:
      return "unavailable_error";
    default:
      return "invalid_request_error";
  }
}

Json text_or_null(const std::string& text) {
  return text.empty() ? Json(nullptr) : Json(text);
}

}  // namespace

tl::unexpected<ApiError> refuse_field(std::string param, std::string message, std::string code) {
  message = param + ": " + message;
  return refuse({400, std::move(message), std::move(param), std::move(code)});
}

ApiError from_sentence(const std::string& sentence) {
  ApiError error{400, sentence, "", "invalid_value"};
  const size_t colon = sentence.find(':');
  constexpr size_t kLongestField = 32;
  if (colon != std::string::npos && colon < kLongestField &&
      sentence.find(' ') > colon)  // one word before the colon
    error.param = sentence.substr(0, colon);
  return error;
}

std::string error_body(const ApiError& error) {
  const Json body = {{"error",
                      {{"message", error.message},
                       {"type", type_of(error.status)},
                       {"param", text_or_null(error.param)},
                       {"code", text_or_null(error.code)}}}};
  return one_line(body);
}

HttpReply error_reply(const ApiError& error) {
  HttpReply reply{.status = error.status, .body = error_body(error)};
  if (error.retry_after > 0) {
    reply.headers.emplace_back("Retry-After", fmt::format("{:.0f}", std::ceil(error.retry_after)));
    reply.headers.emplace_back("retry-after-ms", fmt::format("{:.0f}", 1000 * error.retry_after));
  }
  if (error.status == 501) reply.headers.emplace_back("x-should-retry", "false");
  if (error.status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

}  // namespace spear
