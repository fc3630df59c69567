// What tests of TLS need: a certificate of their own, and a client that speaks it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace spear::test {

// A self-signed certificate for localhost and its key, as PEM files of the given names; the key
// readable by its owner alone.
void write_certificate(const std::string& certificate, const std::string& key);

// Blocking; gives up after ten seconds of silence.
class TlsClient {
 public:
  explicit TlsClient(uint16_t port);
  ~TlsClient();  // without a farewell
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  void send(const std::string& bytes);
  std::string read_until(const std::string& text);
  // Reads to the end; whether the server said farewell before it closed.
  bool ended_properly();

 private:
  struct Session;
  std::unique_ptr<Session> session_;
  std::string buffer_;
};

}  // namespace spear::test
