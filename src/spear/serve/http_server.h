// HTTP/1.1 in front of a Service: connections, their limits and their times. One thread of its own
// does all reading and writing; a few workers run what needs thought (parsing, tokenizing). Safe
// from every thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "spear/serve/service.h"

namespace spear {

struct HttpOptions {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;                  // 0: any that is free
  std::string tls_certificate, tls_key;  // files; both or none: plain HTTP
  int workers = 2;
  size_t max_connections = 16384;  // more get 503 at once
  size_t max_pending = 512;        // requests that wait for a worker; more get 429 at once
  double header_seconds = 10;      // from a request's first byte to the end of its headers
  double body_seconds = 60;        // for its body
  double idle_seconds = 60;        // between two requests
  double write_seconds = 30;       // for a client to take what is written
  double request_seconds = 3600;   // for an answer
  double ping_seconds = 15;        // of silence, until a stream gets a comment
  std::function<void(const std::string&)> log;  // a line a request; on the server's thread
};

class HttpServer {
 public:
  // Listens at once. Throws Failure: the port is taken, the address is none of this machine's, the
  // TLS files are wrong, or this build has no server. The service must outlive it. An engine that
  // it serves ends between stop() and the destructor.
  HttpServer(Service& service, const HttpOptions& options);
  ~HttpServer();  // stop(0)
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  [[nodiscard]] uint16_t port() const;
  [[nodiscard]] size_t connections() const;
  // Takes no more connections, closes idle ones, waits at most `seconds` for the others, then cuts
  // them off.
  void stop(double seconds);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace spear
