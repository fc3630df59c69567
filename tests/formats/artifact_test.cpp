#include "spear/formats/artifact.h"

#include <csignal>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "spear/formats/artifact_layout.h"

#include "support/temporary_directory.h"

namespace spear {
namespace {

using artifact_layout::Entry;
using artifact_layout::Header;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::string counted(size_t count, int step) {
  std::string out(count, '\0');
  for (size_t i = 0; i < count; ++i) out[i] = static_cast<char>(static_cast<int>(i) * step + 1);
  return out;
}

void write_small(const std::filesystem::path& path) {
  ArtifactWriter writer(path);
  writer.add_section("config", R"({"hidden_size": 8})");
  writer.begin_section("weights");
  writer.add_tensor("a.codes", "u4", {3, 5}, bytes_of(counted(9, 3)));
  writer.add_tensor("a.scales", "f16", {3}, bytes_of(counted(6, 5)));
  writer.add_tensor("b", "u8", {5000}, bytes_of(counted(5000, 7)));
  writer.end_section();
  writer.add_section("empty", "");
  writer.commit();
}

std::string read_all(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// The sentence of the refusal, by opening or by verifying.
std::string refusal(std::string_view file) {
  const auto index = parse_artifact(bytes_of(file), "m.spear");
  if (!index) return index.error().message;
  const auto verified = verify_artifact(*index, bytes_of(file), "m.spear");
  return verified ? "" : verified.error().message;
}

// A file whose checksums are right whatever a test has changed in its table or header.
class Forgery {
 public:
  explicit Forgery(std::string file) : file_(std::move(file)) {
    std::memcpy(&header, file_.data(), sizeof header);
    entries.resize(header.section_count);
    std::memcpy(entries.data(), file_.data() + header.table_offset, entries.size() * sizeof(Entry));
  }
  [[nodiscard]] std::string build() {
    file_.resize(header.table_offset);
    file_.append(reinterpret_cast<const char*>(entries.data()), entries.size() * sizeof(Entry));
    header.table_checksum = xxh3(bytes_of(file_).subspan(header.table_offset));
    header.checksum =
        xxh3(std::as_bytes(std::span(&header, 1)).first(artifact_layout::kCheckedHeaderBytes));
    std::memcpy(file_.data(), &header, sizeof header);
    return file_;
  }
  Header header;
  std::vector<Entry> entries;

 private:
  std::string file_;
};

class ArtifactFile : public testing::Test {
 protected:
  void SetUp() override {
    write_small(path_);
    file_ = read_all(path_);
  }
  test::TemporaryDirectory folder_;
  std::filesystem::path path_ = folder_.path() / "m.spear";
  std::string file_;
};

TEST_F(ArtifactFile, ReadsBackWhatWasWritten) {
  const auto artifact = Artifact::open(path_);
  ASSERT_TRUE(artifact.has_value()) << artifact.error().message;
  EXPECT_TRUE(artifact->verify().has_value());
  EXPECT_EQ(artifact->text("config").value(), R"({"hidden_size": 8})");
  EXPECT_TRUE(artifact->section("empty").value().empty());
  ASSERT_EQ(artifact->tensors().size(), 3u);
  const auto codes = artifact->tensor("a.codes", "u4", {3, 5});
  ASSERT_TRUE(codes.has_value()) << codes.error().message;
  EXPECT_EQ(std::memcmp(codes->data(), counted(9, 3).data(), 9), 0);
  const auto big = artifact->tensor("b", "u8", {5000});
  ASSERT_TRUE(big.has_value());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(big->data()) % 64, 0u);  // mapped at a page, so aligned
  EXPECT_EQ(std::memcmp(big->data(), counted(5000, 7).data(), 5000), 0);
}

TEST_F(ArtifactFile, IsTheSameFileWhenWrittenAgain) {
  write_small(folder_.path() / "again.spear");
  EXPECT_EQ(file_, read_all(folder_.path() / "again.spear"));
}

TEST_F(ArtifactFile, NamesWhatIsMissingOrOfAnotherShape) {
  const auto artifact = Artifact::open(path_);
  ASSERT_TRUE(artifact.has_value());
  EXPECT_NE(artifact->section("tokenizer").error().message.find("\"tokenizer\" is missing"),
            std::string::npos);
  EXPECT_NE(artifact->tensor("c", "u8", {1}).error().message.find("\"c\" is missing"),
            std::string::npos);
  EXPECT_NE(artifact->tensor("a.codes", "u4", {3, 6})
                .error()
                .message.find("u4 [3, 5], expected u4 [3, 6]"),
            std::string::npos);
}

TEST_F(ArtifactFile, RefusesEveryTruncation) {
  for (size_t length = 0; length < file_.size(); length += length < 400 ? 1 : 13) {
    const std::vector<char> cut(file_.begin(), file_.begin() + static_cast<ptrdiff_t>(length));
    EXPECT_FALSE(parse_artifact(std::as_bytes(std::span(cut)), "m.spear").has_value()) << length;
  }
}

TEST_F(ArtifactFile, NoticesEveryChangedByte) {
  for (size_t at = 0; at < file_.size(); ++at) {
    std::string changed = file_;
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    EXPECT_NE(refusal(changed), "") << "byte " << at;
  }
}

TEST_F(ArtifactFile, NamesTheDamagedSection) {
  std::string changed = file_;
  changed[changed.find("hidden_size")] = 'H';
  EXPECT_NE(refusal(changed).find("section \"config\": checksum"), std::string::npos)
      << refusal(changed);
}

TEST_F(ArtifactFile, AsksForAnUpdateWhenItIsNewer) {
  Forgery forgery(file_);
  forgery.header.version = 2;
  const auto parsed = parse_artifact(bytes_of(forgery.build()), "m.spear");
  ASSERT_FALSE(parsed.has_value());
  EXPECT_EQ(parsed.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(parsed.error().message.find("artifact version 2"), std::string::npos);
  EXPECT_NE(parsed.error().message.find("update spear"), std::string::npos);
}

TEST_F(ArtifactFile, RefusesForgedTables) {
  const auto with = [&](auto change) {
    Forgery forgery(file_);
    change(forgery);
    return refusal(forgery.build());
  };
  EXPECT_EQ(with([](Forgery&) {}), "");
  const auto expect = [](const std::string& message, std::string_view part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect(with([](Forgery& f) { f.entries[1].offset += 8; }), "not a multiple of 64");
  expect(with([](Forgery& f) { f.entries[1].offset = 64; }), "inside what ends at byte");
  expect(with([](Forgery& f) { f.entries[0].offset = 0; }), "inside what ends at byte 64");
  expect(with([](Forgery& f) { f.entries[1].offset = ~uint64_t{63}; }), "run into the table");
  expect(with([](Forgery& f) { f.entries[1].bytes = ~uint64_t{0}; }), "run into the table");
  expect(with([](Forgery& f) { f.entries[1].name = f.entries[0].name; }),
         "\"config\" stands twice");
  expect(with([](Forgery& f) { f.entries[1].name[0] = '\0'; }), "printable ASCII");
  expect(with([](Forgery& f) { f.entries[1].name[0] = '\n'; }), "printable ASCII");
  expect(with([](Forgery& f) { f.entries[1].name.fill('x'); }), "printable ASCII");
  expect(with([](Forgery& f) { f.entries[1].reserved = 1; }), "reserved");
  expect(with([](Forgery& f) { f.header.reserved[0] = 1; }), "reserved");
  expect(with([](Forgery& f) { f.header.version = 0; }), "version 0");
  expect(with([](Forgery& f) { f.header.section_count = ~0u; }), "do not end the file");
  expect(with([](Forgery& f) { f.header.file_bytes += 1; }), "cut or damaged");
  expect(with([](Forgery& f) { f.entries[3].name[0] = 'M'; }), "\"manifest\" is missing");
}

// A file with this manifest and a section "weights" of 64 bytes.
std::string with_manifest(const std::string& manifest) {
  const test::TemporaryDirectory folder;
  const auto path = folder.path() / "m.spear";
  {
    ArtifactWriter writer(path);
    writer.add_section("weights", counted(64, 1));
    writer.add_section("forged", manifest);
    writer.commit();
  }
  Forgery forgery(read_all(path));
  std::swap(forgery.entries[1].name, forgery.entries[2].name);
  return forgery.build();
}

TEST(ArtifactManifest, RefusesWhatCannotBe) {
  const auto expect = [](const std::string& manifest, std::string_view part) {
    const std::string message = refusal(with_manifest(manifest));
    EXPECT_NE(message.find(part), std::string::npos) << manifest << " -> " << message;
  };
  const auto tensor = [](const std::string& rest) {
    return R"({"tensors":{"weights":[[)" + rest + "]]}}";
  };
  EXPECT_EQ(refusal(with_manifest(tensor(R"("t","u8",[64],0)"))), "");
  expect("[]", "an object \"tensors\" expected");
  expect("{", "not valid JSON");
  expect(R"({"tensors":{"nowhere":[]}})", "which the file does not have");
  expect(R"({"tensors":{"weights":{}}})", "a list of tensors expected");
  expect(tensor(R"("t","u8",[64])"), "[name, type, shape, offset] expected");
  expect(tensor(R"("t","u8",[64],-8)"), "[name, type, shape, offset] expected");
  expect(tensor(R"("t","q9",[64],0)"), "type \"q9\" is not known");
  expect(tensor(R"("t","u8",[65],0)"), "run past section \"weights\"");
  expect(tensor(R"("t","u8",[8],60)"), "run past section");
  expect(tensor(R"("t","u8",[8],18446744073709551608)"), "run past section");
  expect(tensor(R"("t","u8",[8],4)"), "not a multiple of 8");
  expect(tensor(R"("t","u8",[],0)"), "1 to 4 numbers");
  expect(tensor(R"("t","u8",[0],0)"), "dimension 0");
  expect(tensor(R"("t","u8",[1.5],0)"), "dimension 0");
  expect(tensor(R"("t","f32",[281474976710656,281474976710656],0)"), "overflows");
  expect(tensor(R"("","u8",[8],0)"), "printable ASCII");
  expect(tensor(R"("t","u8",[16],0],["u","u8",[8],8)"), "inside the tensor before it");
  expect(tensor(R"("t","u8",[8],0],["t","u8",[8],8)"), "stands twice");
  expect(std::string(100000, '['), "nested deeper");
}

TEST(ArtifactLayout, CountsPackedRows) {
  EXPECT_EQ(artifact_layout::tensor_bytes("u3", {2, 3}), 4);  // nine bits a row
  EXPECT_EQ(artifact_layout::tensor_bytes("bf16", {2, 3}), 12);
  EXPECT_EQ(artifact_layout::tensor_bytes("u5", {2, 3}), std::nullopt);
}

// A disk that is full: the limit on file sizes stands in for it, writing fails the same way.
TEST_F(ArtifactFile, AFullDiskLeavesTheOldFile) {
  const auto previous_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit previous{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &previous), 0);
  rlimit tight = previous;
  tight.rlim_cur = 100000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  std::string message;
  ErrorCode code = ErrorCode::kInternal;
  try {
    ArtifactWriter writer(path_);
    for (int i = 0; i < 40; ++i) writer.add_section("part" + std::to_string(i), counted(4096, i));
    writer.commit();
  } catch (const Failure& failure) {
    message = failure.error().message;
    code = failure.error().code;
  }
  setrlimit(RLIMIT_FSIZE, &previous);
  std::signal(SIGXFSZ, previous_handler);
  EXPECT_EQ(code, ErrorCode::kIo);
  EXPECT_NE(message.find("m.spear"), std::string::npos) << message;
  EXPECT_EQ(read_all(path_), file_);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
    files += entry.exists() ? 1 : 0;
  EXPECT_EQ(files, 1);  // no temporary file is left
}

}  // namespace
}  // namespace spear
