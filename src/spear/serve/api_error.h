// Why a request is refused, in the form that clients of the OpenAI API read: always JSON, always
// nested under "error", with a code that is a string or null. Plain values.
#pragma once

#include <string>

#include "spear/base/error.h"
#include "spear/serve/http_message.h"

namespace spear {

struct ApiError {
  int status = 400;
  std::string message = {};  // one sentence; names the field where there is one
  std::string param = {};    // the field; empty: null
  std::string code = {};     // "context_length_exceeded"; empty: null
  double retry_after = 0;    // seconds until it may work; 0: not said
};

template <class T>
using ApiResult = tl::expected<T, ApiError>;

inline tl::unexpected<ApiError> refuse(ApiError error) {
  return tl::unexpected<ApiError>(std::move(error));
}
// 400 about one field.
tl::unexpected<ApiError> refuse_field(std::string param, std::string message,
                                      std::string code = "invalid_value");
// A sentence of the engine ("temperature: 0 to 100 expected, found -1") as a 400 about that field.
ApiError from_sentence(const std::string& sentence);

std::string error_body(const ApiError& error);  // one line
HttpReply error_reply(const ApiError& error);   // with the headers that clients retry by

}  // namespace spear
