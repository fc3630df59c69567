// One HTTP GET, one hop: redirects, retries and their rules stand in hub_client.h. The
// implementation is libcurl (http_curl.cpp); a build without it says so in a sentence
// (http_none.cpp). One thread at a time per session.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace spear {

struct HttpRequest {
  std::string url;
  std::string token;        // sent as "Authorization: Bearer"; empty: not sent
  int64_t range_begin = 0;  // > 0: "Range: bytes=N-"
};

struct HttpResponse {
  int status = 0;                              // 0: no answer; `problem` says why
  std::map<std::string, std::string> headers;  // names in lower case; the last one of a name
  std::string redirect;                        // absolute address of a 3xx answer
  std::string problem;                         // the connection failed or broke off
  bool retryable = false;                      // trying again may help with `problem`
  bool stopped = false;                        // keep_going or the body's reader said no

  [[nodiscard]] std::string header(const std::string& lower_case_name) const {
    const auto found = headers.find(lower_case_name);
    return found == headers.end() ? std::string() : found->second;
  }
};

class HttpSession {
 public:
  // Takes the body of a 2xx answer in pieces; `head` has status and headers. False: stop.
  using BodyReader =
      std::function<bool(const HttpResponse& head, std::span<const std::byte> piece)>;

  HttpSession();
  ~HttpSession();
  HttpSession(const HttpSession&) = delete;
  HttpSession& operator=(const HttpSession&) = delete;

  HttpResponse get(const HttpRequest& request, const BodyReader& on_body,
                   const std::function<bool()>& keep_going);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Same scheme, host and port: the only place a token may go.
bool same_origin(const std::string& a, const std::string& b);
// For one segment of a path, or a query: everything but letters, digits and -._~ becomes %XX.
std::string percent_encoded(std::string_view text);

}  // namespace spear
