#include "serve/tls_client.h"

#include <cstdio>
#include <stdexcept>

#include <netinet/in.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

namespace spear::test {

void write_certificate(const std::string& certificate, const std::string& key) {
  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> pair(EVP_EC_gen("P-256"), EVP_PKEY_free);
  const std::unique_ptr<X509, void (*)(X509*)> x509(X509_new(), X509_free);
  X509_set_version(x509.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x509.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(x509.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(x509.get()), 3600);
  X509_set_pubkey(x509.get(), pair.get());
  X509_NAME* name = X509_get_subject_name(x509.get());
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("localhost"), -1, -1, 0);
  X509_set_issuer_name(x509.get(), name);
  if (X509_sign(x509.get(), pair.get(), EVP_sha256()) == 0)
    throw std::runtime_error("no certificate");
  const auto written = [](const std::string& path, auto&& write) {
    std::FILE* file = std::fopen(path.c_str(), "w");
    const bool good = file != nullptr && write(file) == 1;
    if (file == nullptr || std::fclose(file) != 0 || !good)
      throw std::runtime_error(path + ": cannot be written");
  };
  written(certificate, [&](std::FILE* file) { return PEM_write_X509(file, x509.get()); });
  written(key, [&](std::FILE* file) {
    return PEM_write_PrivateKey(file, pair.get(), nullptr, nullptr, 0, nullptr, nullptr);
  });
  chmod(key.c_str(), S_IRUSR | S_IWUSR);
}

struct TlsClient::Session {
  std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context{SSL_CTX_new(TLS_client_method()),
                                                       SSL_CTX_free};
  std::unique_ptr<SSL, void (*)(SSL*)> ssl{SSL_new(context.get()), SSL_free};
  int socket = -1;
  ~Session() {
    if (socket >= 0) ::close(socket);
  }
};

TlsClient::TlsClient(uint16_t port) : session_(std::make_unique<Session>()) {
  session_->socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  timeval patience{.tv_sec = 10, .tv_usec = 0};
  ::setsockopt(session_->socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (::connect(session_->socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    throw std::runtime_error("no connection");
  SSL_set_fd(session_->ssl.get(), session_->socket);
  if (SSL_connect(session_->ssl.get()) != 1) throw std::runtime_error("no handshake");
}

TlsClient::~TlsClient() = default;

void TlsClient::send(const std::string& bytes) {
  if (SSL_write(session_->ssl.get(), bytes.data(), static_cast<int>(bytes.size())) <= 0)
    throw std::runtime_error("the server takes nothing");
}

std::string TlsClient::read_until(const std::string& text) {
  size_t at = 0;
  while ((at = buffer_.find(text)) == std::string::npos) {
    char bytes[4096];
    const int got = SSL_read(session_->ssl.get(), bytes, sizeof bytes);
    if (got <= 0) throw std::runtime_error("the server closed after: " + buffer_);
    buffer_.append(bytes, static_cast<size_t>(got));
  }
  std::string found = buffer_.substr(0, at + text.size());
  buffer_.erase(0, found.size());
  return found;
}

bool TlsClient::ended_properly() {
  char bytes[4096];
  int got = 1;
  while (got > 0) got = SSL_read(session_->ssl.get(), bytes, sizeof bytes);
  return SSL_get_error(session_->ssl.get(), got) == SSL_ERROR_ZERO_RETURN;
}

}  // namespace spear::test
