#include "spear/formats/gguf.h"

#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/gguf_builder.h"

namespace spear {
namespace {

using test::GgufBuilder;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

GgufBuilder small_file() {
  GgufBuilder b;
  b.add_text("general.architecture", "llama").add_u32("llama.block_count", 2);
  b.f32_tensor("a.weight", {4, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  b.f32_tensor("b.weight", {3}, {1, 2, 3});
  return b;
}

// The sentence of the refusal; empty (and a failed test) when the file was accepted.
std::string refusal(const std::string& file) {
  const auto parsed = parse_gguf(bytes_of(file), "f.gguf");
  EXPECT_FALSE(parsed.has_value());
  if (parsed) return "";
  EXPECT_EQ(parsed.error().message.find("f.gguf: "), 0u) << parsed.error().message;
  return parsed.error().message;
}

void expect_refusal(const std::string& file, std::string_view part) {
  const std::string message = refusal(file);
  EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(Gguf, ReadsMetadataAndTensors) {
  GgufBuilder b = small_file();
  b.add_texts("words", {"one", "", "three"}).add_numbers<int32_t>("numbers", 5, {-1, 2});
  b.add_bool("flag", true)
      .add_f32("real", 0.5f)
      .entry("big", 10, GgufBuilder::raw<uint64_t>(~0ull));
  const std::string file = b.build();
  const auto parsed = parse_gguf(bytes_of(file), "f.gguf");
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  ASSERT_EQ(parsed->entries.size(), 7u);
  EXPECT_EQ(parsed->entries[0].value.as_text(), "llama");
  EXPECT_EQ(parsed->entries[1].value.as_integer(), 2);
  EXPECT_EQ(parsed->entries[2].value.strings, (std::vector<std::string_view>{"one", "", "three"}));
  EXPECT_EQ(parsed->entries[3].value.integer_at(0), -1);
  EXPECT_EQ(parsed->entries[3].value.integer_at(2), std::nullopt);
  EXPECT_EQ(parsed->entries[4].value.as_bool(), true);
  EXPECT_EQ(parsed->entries[5].value.as_real(), 0.5);
  EXPECT_EQ(parsed->entries[6].value.as_integer(), std::nullopt);  // does not fit 63 bits
  ASSERT_EQ(parsed->tensors.size(), 2u);
  EXPECT_EQ(parsed->tensors[0].shape, (Shape{2, 4}));
  EXPECT_EQ(parsed->tensors[1].bytes.size(), 12u);
}

TEST(Gguf, AcceptsAVocabularyWithoutTensors) {
  GgufBuilder b;
  b.add_text("general.architecture", "llama");
  EXPECT_TRUE(parse_gguf(bytes_of(b.build()), "f.gguf").has_value());
}

TEST(Gguf, RefusesEveryTruncation) {
  const std::string file = small_file().build();
  for (size_t length = 0; length < file.size(); ++length) {
    // An own allocation of exactly this length: a read past it is an error under the sanitizer.
    const std::vector<char> cut(file.begin(), file.begin() + static_cast<ptrdiff_t>(length));
    EXPECT_FALSE(parse_gguf(std::as_bytes(std::span(cut)), "f.gguf").has_value()) << length;
  }
}

TEST(Gguf, NeverCrashesOnAChangedByte) {
  const std::string file = small_file().build();
  for (size_t at = 0; at < file.size(); ++at)
    for (const int flip : {0x01, 0x80, 0xff}) {
      std::string changed = file;
      changed[at] = static_cast<char>(changed[at] ^ flip);
      const auto parsed = parse_gguf(bytes_of(changed), "f.gguf");
      EXPECT_TRUE(parsed.has_value() || !parsed.error().message.empty());
    }
}

TEST(Gguf, RefusesWrongHeaders) {
  GgufBuilder b = small_file();
  b.magic = "GGML";
  expect_refusal(b.build(), "does not begin with \"GGUF\"");
  b.magic = "FUGG";
  expect_refusal(b.build(), "big-endian");
  b.magic = "GGUF";
  b.version = 0x03000000;
  expect_refusal(b.build(), "big-endian");
  for (const uint32_t version : {0u, 1u, 99u}) {
    b.version = version;
    expect_refusal(b.build(), "GGUF version " + std::to_string(version) + "; versions 2 and 3");
  }
  b.version = 2;
  EXPECT_TRUE(parse_gguf(bytes_of(b.build()), "f.gguf").has_value());
}

TEST(Gguf, RefusesCountsThatCannotFit) {
  GgufBuilder tensors = small_file();
  tensors.extra_tensors = std::numeric_limits<int64_t>::min();
  expect_refusal(tensors.build(), "tensors do not fit a file of");
  GgufBuilder entries = small_file();
  entries.extra_entries = std::numeric_limits<int64_t>::min();
  expect_refusal(entries.build(), "metadata entries do not fit a file of");
}

TEST(Gguf, RefusesBadKeys) {
  expect_refusal(GgufBuilder().add_u32("", 1).add_u32("pad", 1).build(), "an empty name");
  expect_refusal(GgufBuilder().add_u32(std::string("a\0b", 3), 1).build(), "byte 0x00");
  expect_refusal(GgufBuilder().add_u32("a\nb", 1).build(), "byte 0x0a");
  expect_refusal(GgufBuilder().add_u32("a\xff", 1).build(), "byte 0xff");
  expect_refusal(GgufBuilder().add_u32("k", 1).add_u32("k", 2).build(), "\"k\" stands twice");
  std::string huge = GgufBuilder().add_u32("key", 1).build();
  huge[24 + 5] = 1;  // the key's length becomes 2^40 + 3
  expect_refusal(huge, "at most 65535");
}

TEST(Gguf, RefusesBadValues) {
  const auto raw32 = GgufBuilder::raw<uint32_t>;
  const auto raw64 = GgufBuilder::raw<uint64_t>;
  expect_refusal(GgufBuilder().entry("k", 13, raw64(0)).build(), "value type 13 is unknown");
  expect_refusal(GgufBuilder().entry("k", 7, "\2").build(), "a bool is 0 or 1, found 2");
  expect_refusal(GgufBuilder().entry("k", 8, raw64(1u << 30) + "abc").build(),
                 "string of 1073741824");
  expect_refusal(GgufBuilder().entry("k", 9, raw32(10) + raw64(1ull << 62)).build(),
                 "an array of 4611686018427387904 uint64 values does not fit");
  expect_refusal(GgufBuilder().entry("k", 9, raw32(8) + raw64(2) + GgufBuilder::text("x")).build(),
                 "does not fit");
  std::string nested =
      raw32(9) + raw64(1) + raw32(9) + raw64(1) + raw32(9) + raw64(1) + raw32(0) + raw64(0);
  expect_refusal(GgufBuilder().entry("k", 9, nested).build(), "nested deeper than 3");
}

TEST(Gguf, ReadsNestedArrays) {
  const std::string payload = GgufBuilder::raw<uint32_t>(9) + GgufBuilder::raw<uint64_t>(2) +
                              GgufBuilder::raw<uint32_t>(0) + GgufBuilder::raw<uint64_t>(2) +
                              "\1\2" + GgufBuilder::raw<uint32_t>(8) +
                              GgufBuilder::raw<uint64_t>(1) + GgufBuilder::text("x");
  const std::string file = GgufBuilder().entry("k", 9, payload).build();
  const auto parsed = parse_gguf(bytes_of(file), "f.gguf");
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  const GgufValue& value = parsed->entries[0].value;
  ASSERT_EQ(value.arrays.size(), 2u);
  EXPECT_EQ(value.arrays[0].integer_at(1), 2);
  EXPECT_EQ(value.arrays[1].strings[0], "x");
}

TEST(Gguf, RefusesBadAlignment) {
  for (const uint32_t alignment : {0u, 3u, 4u, 1u << 31u})
    expect_refusal(
        GgufBuilder().add_u32("general.alignment", alignment).build(),
        "a power of two between 8 and 65536 expected, found " + std::to_string(alignment));
  expect_refusal(GgufBuilder().add_text("general.alignment", "32").build(), "found string");
}

TEST(Gguf, RefusesBadShapes) {
  const std::string data(64, '\0');
  const auto with = [&](const std::vector<int64_t>& extents, uint32_t type) {
    return GgufBuilder().tensor("t", extents, type, data).build();
  };
  expect_refusal(with({}, 0), "0 dimensions, 1 to 4");
  expect_refusal(with({1, 1, 1, 1, 1}, 0), "5 dimensions");
  expect_refusal(with({0}, 0), "dimension 0 is 0");
  expect_refusal(with({2, -1}, 0), "dimension 1 is -1");
  expect_refusal(with({1ll << 42, 1ll << 42}, 0), "overflows");
  expect_refusal(with({(1ll << 42) + 1, 1ll << 20, 1ll << 10}, 1), "overflows");
  expect_refusal(with({33}, 2), "not a multiple of Q4_0's block of 32");
  expect_refusal(with({32}, 20), "stored as IQ4_NL; spear reads F32");
  expect_refusal(with({32}, 77), "stored as type 77");
}

TEST(Gguf, RefusesBadTensorNames) {
  const std::string data(64, '\0');
  expect_refusal(GgufBuilder().tensor("", {4}, 0, data).build(), "an empty name");
  expect_refusal(GgufBuilder().tensor(std::string(65, 'x'), {4}, 0, data).build(), "at most 64");
  expect_refusal(GgufBuilder().tensor("t", {4}, 0, data).tensor("t", {4}, 0, data).build(),
                 "tensor \"t\" stands twice");
}

TEST(Gguf, RefusesBadPlaces) {
  const std::string data(64, '\0');
  GgufBuilder unaligned = GgufBuilder().tensor_at("t", {4}, 0, 8);
  unaligned.data = data;
  expect_refusal(unaligned.build(), "offset 8 is not a multiple of the alignment 32");
  GgufBuilder past = GgufBuilder().tensor_at("t", {4}, 0, 1ull << 40);
  past.data = data;
  expect_refusal(past.build(), "run past the end");
  GgufBuilder over = GgufBuilder().tensor_at("t", {16}, 0, 0).tensor_at("u", {4}, 0, 32);
  over.data = data;
  expect_refusal(over.build(), "\"t\" and \"u\" overlap");
  std::string cut = small_file().build();
  cut.pop_back();
  expect_refusal(cut, "the file is cut or damaged");
}

TEST(Gguf, OpensTheReferenceModel) {
  const char* folder = std::getenv("SPEAR_TEST_ASSETS");
  const std::filesystem::path path =
      std::filesystem::path(folder == nullptr ? "" : folder) / "smollm2-135m.gguf";
  if (folder == nullptr || !std::filesystem::exists(path))
    GTEST_SKIP() << "SPEAR_TEST_ASSETS names no folder with smollm2-135m.gguf";
  const auto file = GgufFile::open(path);
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ(file->tensors().size(), 272u);
  EXPECT_EQ(file->integer("llama.embedding_length").value(), 576);
  ASSERT_NE(file->find_tensor("token_embd.weight"), nullptr);
  EXPECT_EQ(file->find_tensor("token_embd.weight")->shape, (Shape{49152, 576}));
  EXPECT_EQ(file->find_tensor("output.weight"), nullptr);
  EXPECT_FALSE(file->integer("llama.nothing").has_value());
  EXPECT_FALSE(file->integer("general.architecture").has_value());
}

}  // namespace
}  // namespace spear
