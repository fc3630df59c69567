// Where Boost's headers or OpenSSL's libssl are missing the program is built without a server and
// says so.
#include "spear/serve/http_server.h"

namespace spear {

class HttpServer::Impl {};

HttpServer::HttpServer(Service&, const HttpOptions&) {
  throw Failure(
      ErrorCode::kUnsupported,
      "this build has no server: install libboost1.81-dev and libssl-dev and build spear again");
}
HttpServer::~HttpServer() = default;
uint16_t HttpServer::port() const {
  return 0;
}
size_t HttpServer::connections() const {
  return 0;
}
void HttpServer::stop(double) {}

}  // namespace spear
