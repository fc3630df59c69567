// Where Boost's headers are missing the program is built without a server and says so.
#include "spear/serve/http_server.h"

namespace spear {

class HttpServer::Impl {};

HttpServer::HttpServer(Service&, HttpOptions) {
  throw Failure(ErrorCode::kUnsupported,
                "this build has no server: install libboost1.81-dev and build spear again");
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
