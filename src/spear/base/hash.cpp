#include "spear/base/hash.h"

#include <openssl/evp.h>
#include <xxhash.h>

#include "spear/base/check.h"
#include "spear/base/mapped_file.h"

namespace spear {

struct Sha256::Context {
  EVP_MD_CTX* handle = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(handle); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  expects(EVP_DigestInit_ex(context_->handle, EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() = default;

void Sha256::update(std::span<const std::byte> bytes) {
  expects(EVP_DigestUpdate(context_->handle, bytes.data(), bytes.size()) == 1);
}

std::string Sha256::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  expects(EVP_DigestFinal_ex(context_->handle, digest.data(), &length) == 1);
  std::string text;
  for (unsigned int i = 0; i < length; ++i) {
    text += "0123456789abcdef"[digest[i] >> 4u];
    text += "0123456789abcdef"[digest[i] & 15u];
  }
  return text;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 digest;
  digest.update(bytes);
  return digest.hex();
}

Result<std::string> sha256_of_file(const std::filesystem::path& path) {
  Result<MappedFile> file = MappedFile::open(path);
  if (!file) return tl::unexpected(file.error());
  return sha256_hex(file->bytes());
}

struct Xxh3::State {
  XXH3_state_t* handle = XXH3_createState();
  ~State() { XXH3_freeState(handle); }
};

Xxh3::Xxh3() : state_(std::make_unique<State>()) {
  expects(XXH3_64bits_reset(state_->handle) == XXH_OK);
}
Xxh3::~Xxh3() = default;

void Xxh3::update(std::span<const std::byte> bytes) {
  expects(XXH3_64bits_update(state_->handle, bytes.data(), bytes.size()) == XXH_OK);
}

uint64_t Xxh3::digest() const {
  return XXH3_64bits_digest(state_->handle);
}

uint64_t xxh3(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

}  // namespace spear
