#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509err.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spear/base/error.h"
#include "spear/serve/http_stream.h"

namespace spear {
namespace {

void check_readable(const std::string& path) {
  if (access(path.c_str(), R_OK) != 0)
    throw Failure(ErrorCode::kNotFound, fmt::format("{}: {}", path, std::strerror(errno)));
}

void check_private(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) == 0 && (status.st_mode & (S_IROTH | S_IWOTH)) != 0)
    throw Failure(ErrorCode::kUsage,
                  fmt::format("{}: other users may read or write this key; chmod 600 it", path));
}

// An encrypted key is refused rather than asked about: a server has nobody to ask.
int no_password(char*, int, int, void*) {
  return 0;
}

}  // namespace

std::unique_ptr<boost::asio::ssl::context> tls_context(const std::string& certificate,
                                                       const std::string& key) {
  for (const std::string& path : {certificate, key}) check_readable(path);
  check_private(key);
  auto context = std::make_unique<boost::asio::ssl::context>(boost::asio::ssl::context::tls_server);
  SSL_CTX* raw = context->native_handle();
  SSL_CTX_set_min_proto_version(raw, TLS1_2_VERSION);
  SSL_CTX_set_options(raw, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_session_cache_mode(raw, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_default_passwd_cb(raw, no_password);
  ERR_clear_error();
  if (SSL_CTX_use_certificate_chain_file(raw, certificate.c_str()) != 1)
    throw Failure(ErrorCode::kUsage,
                  fmt::format("{}: a certificate in PEM form expected", certificate));
  if (SSL_CTX_use_PrivateKey_file(raw, key.c_str(), SSL_FILETYPE_PEM) != 1) {
    const bool other = ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH ||
                       ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_TYPE_MISMATCH;
    throw Failure(
        ErrorCode::kUsage,
        other ? fmt::format("{}: this key does not belong to the certificate {}", key, certificate)
              : fmt::format("{}: an unencrypted private key in PEM form expected", key));
  }
  if (SSL_CTX_check_private_key(raw) != 1)
    throw Failure(
        ErrorCode::kUsage,
        fmt::format("{}: this key does not belong to the certificate {}", key, certificate));
  return context;
}

}  // namespace spear
