// The server under TLS: the same answers, the same limits, and files that are wrong are named.
#include <filesystem>
#include <fstream>

#include "serve/http_fixture.h"
#include "serve/tls_client.h"
#include "support/temporary_directory.h"

namespace spear {
namespace {

using test::HttpClient;
using test::kEndless;
using test::post_bytes;
using test::TemporaryDirectory;
using test::TestServiceOptions;
using test::TlsClient;

class Tls : public test::HttpFixture {
 protected:
  void SetUp() override {
    test::write_certificate(certificate(), key());
    http_.tls_certificate = certificate();
    http_.tls_key = key();
  }
  [[nodiscard]] std::string certificate() const { return (folder_ / "cert.pem").string(); }
  [[nodiscard]] std::string key() const { return (folder_ / "key.pem").string(); }
  // The message with which a server of these options does not start.
  std::string refusal(const HttpOptions& http) {
    test::TestService service;
    try {
      const HttpServer server(service.service, http);
    } catch (const Failure& failure) {
      return failure.error().message;
    }
    return "it started";
  }

  TemporaryDirectory folder_;
  HttpOptions http_;
};

TEST_F(Tls, AnswersStreamsAndKeepsTheConnection) {
  start({}, http_);
  TlsClient client(port());
  for (int i = 0; i < 2; ++i) {
    client.send(post_bytes(R"({"prompt": "say:hello|>", "temperature": 0})"));
    EXPECT_NE(client.read_until("}}}").find("\"hello\""), std::string::npos);
    client.send(post_bytes(R"({"prompt": "say:hello|>", "temperature": 0, "stream": true})"));
    client.read_until("data: [DONE]\n\n");
    client.read_until("0\r\n\r\n");
  }
  EXPECT_EQ(server_->connections(), 1U);
  client.send("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(client.ended_properly()) << "a cut connection could be somebody else's doing";
}

TEST_F(Tls, WhoeverDoesNotShakeHandsIsCutOff) {
  http_.header_seconds = 0.3;
  start({}, http_);
  HttpClient silent(port());
  HttpClient plain(port());
  plain.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(plain.closed());
  EXPECT_TRUE(silent.closed());
  TlsClient client(port());
  client.send("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
  client.read_until("{\"status\":\"ok\"}");
}

TEST_F(Tls, AClientThatLeavesFreesItsPages) {
  TestServiceOptions options;
  options.step = std::chrono::milliseconds(5);
  options.context = 4096;
  options.pages = 4096;
  start(std::move(options), http_);
  {
    TlsClient client(port());
    client.send(post_bytes(kEndless));
    client.read_until("data: ");
    EXPECT_EQ(engine().stats().running, 1);
  }
  EXPECT_TRUE(soon([&] { return engine().stats().running == 0; }));
}

TEST_F(Tls, FilesThatAreWrongAreNamed) {
  const std::string other_certificate = (folder_ / "other.pem").string();
  const std::string other_key = (folder_ / "other-key.pem").string();
  test::write_certificate(other_certificate, other_key);
  const auto says = [&](const std::string& cert, const std::string& key, const std::string& part) {
    HttpOptions http;
    http.port = 0;
    http.tls_certificate = cert;
    http.tls_key = key;
    const std::string message = refusal(http);
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  says(certificate(), other_key, other_key + ": this key does not belong to the certificate");
  says(certificate(), "", "found one of them");
  says("", key(), "found one of them");
  says((folder_ / "none.pem").string(), key(), "none.pem: No such file");
  says(key(), key(), key() + ": a certificate in PEM form expected");
  std::filesystem::permissions(certificate(), std::filesystem::perms::owner_read);
  says(certificate(), certificate(), "private key in PEM form expected");
  std::filesystem::permissions(key(), std::filesystem::perms::others_read,
                               std::filesystem::perm_options::add);
  says(certificate(), key(), "chmod 600");
}

}  // namespace
}  // namespace spear
