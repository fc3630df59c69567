// The format's document suffices: a reader in another language, written from it alone, reads what
// we write.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "spear/base/dtype.h"
#include "spear/base/json.h"
#include "spear/base/rng.h"
#include "spear/formats/artifact.h"
#include "spear/formats/artifact_layout.h"

#include "support/temporary_directory.h"

namespace spear {
namespace {

constexpr int64_t kRows = 3;
constexpr int64_t kColumns = 13;  // no multiple of anything: rows of packed types end inside a byte

struct Sample {
  std::string dtype;
  std::string bytes;
  std::vector<double> values;
};

// Appends rows of codes as bit streams, the slow and obvious way.
Sample packed_sample(const std::string& dtype, int bits, bool is_signed, Rng& rng) {
  Sample out{dtype, "", {}};
  for (int64_t row = 0; row < kRows; ++row) {
    std::string stream(static_cast<size_t>((kColumns * bits + 7) / 8), '\0');
    for (int64_t column = 0; column < kColumns; ++column) {
      const uint32_t code = rng.below(1u << static_cast<unsigned>(bits));
      for (int bit = 0; bit < bits; ++bit)
        if ((code >> bit & 1u) != 0) {
          const int64_t at = column * bits + bit;
          stream[static_cast<size_t>(at / 8)] |= static_cast<char>(1 << (at % 8));
        }
      const bool negative = is_signed && code >> (bits - 1) != 0;
      out.values.push_back(static_cast<double>(code) - (negative ? (1 << bits) : 0));
    }
    out.bytes += stream;
  }
  return out;
}

template <class T, class ToDouble>
Sample whole_sample(const std::string& dtype, Rng& rng, ToDouble to_double) {
  Sample out{dtype, "", {}};
  for (int64_t i = 0; i < kRows * kColumns; ++i) {
    const auto value = static_cast<T>(rng.below(30000));
    out.bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    out.values.push_back(to_double(value));
  }
  return out;
}

std::vector<Sample> samples() {
  Rng rng(11);
  const auto number = [](auto value) { return static_cast<double>(value); };
  std::vector<Sample> out;
  for (const auto& [name, bits] : {std::pair{"u2", 2}, {"u3", 3}, {"u4", 4}, {"u6", 6}})
    out.push_back(packed_sample(name, bits, false, rng));
  out.push_back(packed_sample("i4", 4, true, rng));
  out.push_back(whole_sample<float>("f32", rng, number));
  out.push_back(whole_sample<uint16_t>("f16", rng, float_from_f16));
  out.push_back(whole_sample<uint16_t>("bf16", rng, float_from_bf16));
  out.push_back(whole_sample<int32_t>("i32", rng, number));
  out.push_back(whole_sample<int8_t>("i8", rng, number));
  out.push_back(whole_sample<uint8_t>("u8", rng, number));
  return out;
}

std::string output_of(const std::string& command) {
  std::string out;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return out;
  std::array<char, 4096> buffer{};
  while (const size_t read = fread(buffer.data(), 1, buffer.size(), pipe))
    out.append(buffer.data(), read);
  return pclose(pipe) == 0 ? out : "";
}

TEST(ArtifactReaderInPython, ReadsEveryType) {
  if (std::system("python3 -c 'import numpy' >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "python3 with numpy is not installed";
  const test::TemporaryDirectory folder;
  const std::string path = (folder.path() / "m.spear").string();
  ArtifactWriter writer(path);
  writer.add_section("config", R"({"hidden_size": 8})");
  writer.begin_section("weights");
  for (const Sample& sample : samples())
    writer.add_tensor("t." + sample.dtype, sample.dtype, {kRows, kColumns},
                      std::as_bytes(std::span(sample.bytes)));
  writer.end_section();
  writer.commit();
  const std::string reader = "python3 '" SPEAR_SOURCE_DIR "/tools/read_artifact.py' '" + path + "'";
  EXPECT_EQ(output_of(reader + " --section config"), R"({"hidden_size": 8})");
  const auto list = parse_json(output_of(reader), "list");
  ASSERT_TRUE(list.has_value());
  EXPECT_EQ(list->at("tensors").size(), samples().size());
  std::string names;
  for (const Sample& sample : samples()) names += " t." + sample.dtype;
  const auto tensors = parse_json(output_of(reader + " --tensor" + names), "tensors");
  ASSERT_TRUE(tensors.has_value()) << tensors.error().message;
  for (const Sample& sample : samples()) {
    const Json& tensor = tensors->at("t." + sample.dtype);
    EXPECT_EQ(tensor.at("shape").dump(), "[3,13]");
    EXPECT_EQ(tensor.at("values").get<std::vector<double>>(), sample.values) << sample.dtype;
  }
}

}  // namespace
}  // namespace spear
