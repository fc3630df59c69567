// A request and a reply of HTTP without their connection: what the service is handed and what it
// hands back. Plain values.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spear {

struct HttpRequest {
  std::string method = {};  // "POST"
  std::string target = {};  // as sent: "/v1/models?x=1"
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};
  std::string id = {};      // of the request: the client's, or made by the server
  bool has_length = false;  // Content-Length, or chunks

  // The first header of that name, whatever its case; empty where there is none.
  [[nodiscard]] std::string_view header(std::string_view name) const;
  // The target without its query, from an absolute form too.
  [[nodiscard]] std::string_view path() const;
};

struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body = {};
  std::vector<std::pair<std::string, std::string>> headers = {};
  bool close = false;  // the connection ends with this reply
};

const char* reason_phrase(int status);

// The client's X-Request-Id where it is short and harmless to log, else one made of `number`.
std::string request_id(std::string_view from_client, uint64_t number);

}  // namespace spear
