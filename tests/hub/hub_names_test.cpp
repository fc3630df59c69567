#include <string>

#include <gtest/gtest.h>

#include "spear/hub/http.h"
#include "spear/hub/hub_files.h"
#include "spear/hub/hub_model_id.h"

namespace spear {
namespace {

TEST(HubModelId, ReadsNameRevisionAndFile) {
  const HubModelId plain = parse_hub_model_id("acme/tiny-1.5").value();
  EXPECT_EQ(plain.repository, "acme/tiny-1.5");
  EXPECT_EQ(plain.revision, "main");
  EXPECT_TRUE(plain.file.empty());
  const HubModelId full = parse_hub_model_id("acme/tiny@refs/pr/1:sub/x.gguf").value();
  EXPECT_EQ(full.repository, "acme/tiny");
  EXPECT_EQ(full.revision, "refs/pr/1");
  EXPECT_EQ(full.file, "sub/x.gguf");
}

TEST(HubModelId, RefusesWhatIsNoName) {
  for (const char* text : {"", "acme", "/tiny", "acme/", "a/b/c", "../x", "acme/..", "acme/tiny@",
                           "acme/tiny:", "acme/tiny:../x.gguf", "acme/tiny@../../x", "acme/ti ny",
                           "acme/tiny?x", "acme/tiny@a b", "acme/tiny:/etc/passwd"}) {
    const auto id = parse_hub_model_id(text);
    ASSERT_FALSE(id.has_value()) << text;
    EXPECT_EQ(id.error().code, ErrorCode::kUsage);
  }
}

TEST(SafeRelativePath, NeverLeavesTheFolder) {
  for (const char* good : {"a", "a/b.c", "model-00001-of-00002.safetensors"})
    EXPECT_TRUE(safe_relative_path(good)) << good;
  for (const char* bad :
       {"", "/a", "a/", "a//b", "..", "a/../b", ".hidden", "a/.b", "a\\b", "a\nb"})
    EXPECT_FALSE(safe_relative_path(bad)) << bad;
  EXPECT_FALSE(safe_relative_path(std::string(256, 'a')));
}

TEST(SameOrigin, ComparesSchemeHostAndPort) {
  EXPECT_TRUE(same_origin("https://hub.example/a", "https://HUB.example:443/b"));
  EXPECT_FALSE(same_origin("https://hub.example", "http://hub.example"));
  EXPECT_FALSE(same_origin("https://hub.example", "https://hub.example.evil.example"));
  EXPECT_FALSE(same_origin("http://127.0.0.1:80", "http://127.0.0.1:81"));
  EXPECT_FALSE(same_origin("not an address", "not an address"));
}

TEST(PercentEncoded, KeepsOnlyWhatIsPlain) {
  EXPECT_EQ(percent_encoded("a-Z_0.~"), "a-Z_0.~");
  EXPECT_EQ(percent_encoded("a/b c%\xC3\xA9"), "a%2Fb%20c%25%C3%A9");
}

constexpr const char* kCommit = "\"sha\": \"0123456789abcdef0123456789abcdef01234567\"";

TEST(HubListing, IgnoresEntriesThatMakeNoSense) {
  const std::string text = std::string("{") + kCommit +
                           R"(, "siblings": [1,
    {"rfilename": 3}, {"rfilename": "../x"}, {},
    {"rfilename": "a.gguf", "size": -5, "lfs": {"sha256": "zz", "size": 1e99},
     "blobId": "short"}]})";
  const HubListing listing = parse_hub_listing(text, "test").value();
  ASSERT_EQ(listing.files.size(), 1U);
  EXPECT_EQ(listing.files[0].bytes, -1);
  EXPECT_TRUE(listing.files[0].sha256.empty());
  EXPECT_TRUE(listing.files[0].git_sha1.empty());
}

TEST(HubListing, RefusesWhatIsNone) {
  for (const char* text : {"", "[]", "{}", "{\"siblings\": {}}", "{\"siblings\": []}",
                           "{\"siblings\": [], \"sha\": \"main\"}", "7"})
    EXPECT_FALSE(parse_hub_listing(text, "test").has_value()) << text;
}

TEST(NeededFiles, RefusesSplitGguf) {
  HubListing listing;
  listing.files = {{.name = "m-00001-of-00002.gguf", .bytes = 1, .sha256 = {}, .git_sha1 = {}}};
  const auto files = needed_files(
      listing, {.repository = "a/b", .revision = "main", .file = "m-00001-of-00002.gguf"});
  ASSERT_FALSE(files.has_value());
  EXPECT_EQ(files.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace spear
