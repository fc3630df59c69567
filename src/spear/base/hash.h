// Digests: SHA-256 for identity (downloads, models, token ids), XXH3 for the checksums of sections.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "spear/base/error.h"

namespace spear {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void update(std::span<const std::byte> bytes);
  [[nodiscard]] std::string hex();  // 64 lower-case digits; ends the digest

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// XXH3 of bytes that arrive in pieces.
class Xxh3 {
 public:
  Xxh3();
  ~Xxh3();
  Xxh3(const Xxh3&) = delete;
  Xxh3& operator=(const Xxh3&) = delete;
  void update(std::span<const std::byte> bytes);
  [[nodiscard]] uint64_t digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_hex(std::span<const std::byte> bytes);
Result<std::string> sha256_of_file(const std::filesystem::path& path);
uint64_t xxh3(std::span<const std::byte> bytes);

}  // namespace spear
