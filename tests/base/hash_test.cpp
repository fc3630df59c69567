#include "spear/base/hash.h"

#include <algorithm>
#include <vector>

#include <gtest/gtest.h>

#include "support/temporary_directory.h"

namespace spear {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::string counted(int count, int modulus) {
  std::string text;
  for (int i = 0; i < count; ++i) text += static_cast<char>(i % modulus);
  return text;
}

// FIPS 180-4 examples, and Python's hashlib.
TEST(Sha256, GivesKnownAnswers) {
  EXPECT_EQ(sha256_hex(bytes_of("")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex(bytes_of("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(bytes_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(bytes_of(std::string(1000000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_EQ(sha256_hex(bytes_of(counted(1000, 251))),
            "4e4c294b331f7a2099a379bec34b9f9fc03dc46ab465d998f4d683da53487e6d");
}

TEST(Sha256, IsTheSameInPieces) {
  const std::string text = counted(1000, 251);
  for (const size_t cut : {0u, 1u, 63u, 64u, 65u, 999u, 1000u}) {
    Sha256 digest;
    digest.update(bytes_of(text).first(cut));
    digest.update(bytes_of(text).subspan(cut));
    EXPECT_EQ(digest.hex(), sha256_hex(bytes_of(text))) << cut;
  }
}

TEST(Sha256, ReadsFilesAndSaysWhichIsMissing) {
  const test::TemporaryDirectory directory;
  const auto path = directory.file("abc", "abc");
  EXPECT_EQ(sha256_of_file(path).value(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const auto missing = sha256_of_file(directory / "missing");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_NE(missing.error().message.find("missing"), std::string::npos);
}

// Python's xxhash package.
TEST(Xxh3, GivesKnownAnswers) {
  EXPECT_EQ(xxh3(bytes_of("")), 0x2d06800538d394c2u);
  EXPECT_EQ(xxh3(bytes_of("a")), 0xe6c632b61e964e1fu);
  EXPECT_EQ(xxh3(bytes_of("abc")), 0x78af5f94892f3950u);
  EXPECT_EQ(xxh3(bytes_of(counted(256, 256))), 0x9408a4433b952d71u);
  EXPECT_EQ(xxh3(bytes_of(counted(1000, 251))), 0x33ef703fb2b20ed1u);
}

TEST(Xxh3, SeesEveryFlippedBit) {
  std::string text = counted(300, 256);
  const uint64_t whole = xxh3(bytes_of(text));
  for (char& c : text)
    for (int bit = 0; bit < 8; ++bit) {
      c = static_cast<char>(c ^ (1 << bit));
      ASSERT_NE(xxh3(bytes_of(text)), whole);
      c = static_cast<char>(c ^ (1 << bit));
    }
}

TEST(Hash, Xxh3InPiecesEqualsXxh3AtOnce) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 7);
  const auto bytes = std::as_bytes(std::span(text));
  Xxh3 pieces;
  for (size_t at = 0; at < bytes.size(); at += 37)
    pieces.update(bytes.subspan(at, std::min<size_t>(37, bytes.size() - at)));
  EXPECT_EQ(pieces.digest(), xxh3(bytes));
}

}  // namespace
}  // namespace spear
