#include "spear/formats/safetensors.h"

#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "support/temporary_directory.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

std::string with_header(const std::string& header, size_t data_bytes) {
  std::string out(8, '\0');
  const uint64_t length = header.size();
  std::memcpy(out.data(), &length, sizeof length);
  return out + header + std::string(data_bytes, '\1');
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

const std::string kTwo = R"({"__metadata__":{"format":"pt"},)"
                         R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                         R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})";

void expect_refusal(const std::string& file, std::string_view part) {
  const auto parsed = parse_safetensors(bytes_of(file), "m.safetensors");
  ASSERT_FALSE(parsed.has_value()) << "accepted; expected: " << part;
  EXPECT_NE(parsed.error().message.find(part), std::string::npos) << parsed.error().message;
  EXPECT_EQ(parsed.error().message.find("m.safetensors: "), 0u) << parsed.error().message;
}

std::string one(const std::string& fields) {
  return R"({"a":{)" + fields + "}}";
}

TEST(Safetensors, ReadsTensorsInTheOrderOfTheirBytes) {
  const std::string file = with_header(kTwo, 32);
  const auto parsed = parse_safetensors(bytes_of(file), "m.safetensors");
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  ASSERT_EQ(parsed->size(), 2u);
  EXPECT_EQ((*parsed)[0].name, "a");
  EXPECT_EQ((*parsed)[0].shape, (Shape{2, 3}));
  EXPECT_EQ((*parsed)[0].type, GgmlType::kF32);
  EXPECT_EQ((*parsed)[1].type, GgmlType::kBF16);
  EXPECT_EQ((*parsed)[1].bytes.size(), 8u);
}

TEST(Safetensors, RefusesEveryTruncation) {
  const std::string file = with_header(kTwo, 32);
  for (size_t length = 0; length < file.size(); ++length) {
    const std::vector<char> cut(file.begin(), file.begin() + static_cast<ptrdiff_t>(length));
    EXPECT_FALSE(parse_safetensors(std::as_bytes(std::span(cut)), "m").has_value()) << length;
  }
}

TEST(Safetensors, NeverCrashesOnAChangedByte) {
  const std::string file = with_header(kTwo, 32);
  for (size_t at = 0; at < file.size(); ++at)
    for (int value = 0; value < 256; value += 15) {
      std::string changed = file;
      changed[at] = static_cast<char>(value);
      const auto parsed = parse_safetensors(bytes_of(changed), "m");
      EXPECT_TRUE(parsed.has_value() || !parsed.error().message.empty());
    }
}

TEST(Safetensors, RefusesBadHeaders) {
  expect_refusal("1234567", "too few");
  std::string huge = with_header(kTwo, 32);
  huge[7] = '\x80';  // a length above 2^63
  expect_refusal(huge, "at most 8388608 are read");
  std::string long_header = with_header(kTwo, 32);
  const uint64_t length = 200u << 20u;
  std::memcpy(long_header.data(), &length, sizeof length);
  expect_refusal(long_header, "a header of 209715200 bytes");
  expect_refusal(with_header("[]", 0), "does not begin with '{'");
  expect_refusal(with_header("{\"a\xff\":1}", 0), "JSON");
  expect_refusal(with_header("{\"a\":" + std::string(100000, '['), 0), "nested deeper");
  expect_refusal(with_header(R"({"a":1,"a":2})", 0), "stands twice");
  expect_refusal(with_header("{\"a\":1", 0), "not valid JSON");
}

TEST(Safetensors, RefusesBadTensors) {
  const auto refuse = [](const std::string& fields, size_t data, std::string_view part) {
    expect_refusal(with_header(one(fields), data), part);
  };
  refuse(R"("dtype":"I64","shape":[1],"data_offsets":[0,8])", 8, "stored as I64; spear reads F32");
  refuse(R"("dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1])", 1, "stored as F8_E4M3");
  refuse(R"("dtype":7,"shape":[1],"data_offsets":[0,4])", 4, "expected");
  refuse(R"("dtype":"F32","shape":[1])", 4, "expected");
  refuse(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1)", 4, "expected");
  refuse(R"("dtype":"F32","shape":[0],"data_offsets":[0,0])", 0, "dimension 0 is 0");
  refuse(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])", 4, "dimension 0 is -1");
  refuse(R"("dtype":"F32","shape":[1.5],"data_offsets":[0,4])", 4, "dimension 0 is 1.5");
  refuse(R"("dtype":"F32","shape":[],"data_offsets":[0,4])", 4, "a shape of 1 to 4 numbers");
  refuse(R"("dtype":"F32","shape":[1,1,1,1,1],"data_offsets":[0,4])", 4, "a shape of 1 to 4");
  refuse(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4])", 4, "overflows");
  refuse(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])", 4, "4 bytes for shape [2] of F32, 8");
  refuse(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])", 4, "not a begin and an end");
  refuse(R"("dtype":"F32","shape":[1],"data_offsets":[0,-4])", 4, "not a begin and an end");
  refuse(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", 4, "cut or damaged");
  refuse(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])", 5, "1 bytes behind the last tensor");
  refuse(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])", 8, "there is a hole");
  expect_refusal(with_header(R"({"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4),
                 "a tensor name of 0 bytes");
  expect_refusal(with_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                             R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                             12),
                 "overlaps");
}

TEST(Safetensors, RefusesAHundredThousandEmptyTensors) {
  std::string header = "{";
  for (int i = 0; i < 100000; ++i)
    header += (i == 0 ? "\"t" : ",\"t") + std::to_string(i) + "\":{}";
  expect_refusal(with_header(header + "}", 0),
                 "\"dtype\", \"shape\" and \"data_offsets\" expected");
}

void expect_index_refusal(const std::string& text, std::string_view part) {
  const auto parsed = parse_safetensors_index(text, "index.json");
  ASSERT_FALSE(parsed.has_value()) << text;
  EXPECT_NE(parsed.error().message.find(part), std::string::npos) << parsed.error().message;
}

TEST(SafetensorsIndex, RefusesShardsOutsideTheFolder) {
  for (const char* shard : {"../m.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "",
                            "a\\\\b", "C:x", ".hidden"})
    expect_index_refusal(R"({"weight_map":{"a":")" + std::string(shard) + R"("}})", "plain name");
  expect_index_refusal(R"({"weight_map":{"a":7}})", "plain name");
  expect_index_refusal(R"({"weight_map":[]})", "weight_map");
  expect_index_refusal(R"({"weight_map":{}})", "weight_map");
  expect_index_refusal("[]", "weight_map");
  expect_index_refusal(std::string(100000, '['), "nested deeper");
}

class SafetensorsFolder : public testing::Test {
 protected:
  static std::string shard(const std::string& name) {
    return with_header("{\"" + name + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4);
  }
  void expect_refusal_of_folder(std::string_view part) const {
    const auto opened = open_safetensors_folder(folder_.path());
    ASSERT_FALSE(opened.has_value());
    EXPECT_NE(opened.error().message.find(part), std::string::npos) << opened.error().message;
  }
  test::TemporaryDirectory folder_;
};

TEST_F(SafetensorsFolder, OpensShards) {
  folder_.file("s1.safetensors", shard("a"));
  folder_.file("s2.safetensors", shard("b"));
  folder_.file("model.safetensors.index.json",
               R"({"weight_map":{"a":"s1.safetensors","b":"s2.safetensors"}})");
  const auto opened = open_safetensors_folder(folder_.path());
  ASSERT_TRUE(opened.has_value()) << opened.error().message;
  EXPECT_EQ(opened->size(), 2u);
}

TEST_F(SafetensorsFolder, RefusesAMissingShard) {
  folder_.file("model.safetensors.index.json", R"({"weight_map":{"a":"s1.safetensors"}})");
  expect_refusal_of_folder("names the shard s1.safetensors, which is not there");
}

TEST_F(SafetensorsFolder, RefusesAnIndexThatDisagreesWithItsShards) {
  folder_.file("s1.safetensors", shard("a"));
  folder_.file("model.safetensors.index.json", R"({"weight_map":{"b":"s1.safetensors"}})");
  expect_refusal_of_folder("does not name tensor \"a\" of the shard s1.safetensors");
  folder_.file("model.safetensors.index.json",
               R"({"weight_map":{"a":"s1.safetensors","c":"s1.safetensors"}})");
  expect_refusal_of_folder("tensor \"c\" is not in the shard s1.safetensors");
}

TEST_F(SafetensorsFolder, FollowsLinksInsideTheFolderOnly) {
  const test::TemporaryDirectory elsewhere;
  fs::create_symlink(elsewhere.file("secret.safetensors", shard("a")),
                     folder_ / "model.safetensors");
  expect_refusal_of_folder("a link that leads out of the model's folder");
  fs::remove(folder_ / "model.safetensors");
  folder_.file("data.safetensors", shard("a"));
  fs::create_symlink("data.safetensors", folder_ / "model.safetensors");
  EXPECT_TRUE(open_safetensors_folder(folder_.path()).has_value());
}

TEST_F(SafetensorsFolder, FollowsAHubCacheFromItsSnapshotToItsBlobs) {
  folder_.file("blobs/0123", shard("a"));
  fs::create_directories(folder_ / "snapshots/main");
  fs::create_symlink("../../blobs/0123", folder_ / "snapshots/main/model.safetensors");
  const auto opened = open_safetensors_folder(folder_ / "snapshots/main");
  EXPECT_TRUE(opened.has_value()) << opened.error().message;
}

}  // namespace
}  // namespace spear
