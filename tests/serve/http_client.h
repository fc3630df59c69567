// A client of plain sockets for tests: sends any bytes, reads replies of HTTP/1.1 with lengths,
// chunks, or until the end. Throws where the server is silent for ten seconds.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spear::test {

struct HttpAnswer {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};
  [[nodiscard]] std::string header(std::string_view name) const;
};

class HttpClient {
 public:
  explicit HttpClient(uint16_t port);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  void send(std::string_view bytes);  // what the server no longer takes is dropped
  HttpAnswer receive(bool has_body = true);
  HttpAnswer request(const std::string& method, const std::string& target,
                     const std::string& body = {}, const std::string& more_headers = {});
  // Bytes until `text` was seen.
  std::string read_until(std::string_view text);
  // True when the server has closed: no byte more comes.
  bool closed();
  void half_close();
  void reset();  // RST instead of FIN

 private:
  bool fill();  // false: the end

  int socket_ = -1;
  std::string buffer_;
};

}  // namespace spear::test
