#include "spear/formats/ggml_types.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace spear {
namespace {

std::string read_golden(const std::string& name) {
  const std::string path = std::string(SPEAR_SOURCE_DIR) + "/tests/golden/ggml/" + name + ".bin";
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream.good()) << path;
  return {std::istreambuf_iterator<char>(stream), {}};
}

class GgmlGolden : public testing::TestWithParam<std::string> {};

// A value is d * code - offset in float: two roundings, each within half an epsilon of the larger
// term. Terms can cancel, so the bound is taken from the largest value of the row.
TEST_P(GgmlGolden, EqualsAnIndependentImplementation) {
  const std::string file = read_golden(GetParam());
  ASSERT_GE(file.size(), 12u);
  uint32_t header[3];
  std::memcpy(header, file.data(), sizeof header);
  const auto info = find_ggml_type(header[0]);
  ASSERT_TRUE(info.has_value());
  const int64_t rows = header[1];
  const int64_t columns = header[2];
  const auto packed_bytes = static_cast<size_t>(rows * row_bytes(info->type, columns));
  const auto count = static_cast<size_t>(rows * columns);
  ASSERT_EQ(file.size(), sizeof header + packed_bytes + count * sizeof(float));
  std::vector<float> expected(count);
  std::memcpy(expected.data(), file.data() + sizeof header + packed_bytes, count * sizeof(float));
  std::vector<float> found(count, std::numeric_limits<float>::quiet_NaN());
  dequantize_rows(info->type, rows, columns,
                  reinterpret_cast<const std::byte*>(file.data() + sizeof header), found.data());
  float largest = 0;
  for (const float value : expected) largest = std::max(largest, std::abs(value));
  const float bound = 2 * largest * std::numeric_limits<float>::epsilon();
  for (size_t i = 0; i < count; ++i)
    ASSERT_LE(std::abs(found[i] - expected[i]), bound)
        << "value " << i << ": " << found[i] << ", expected " << expected[i];
}

INSTANTIATE_TEST_SUITE_P(All, GgmlGolden,
                         testing::Values("f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1",
                                         "q8_0", "q4_k", "q5_k", "q6_k"),
                         [](const auto& spec) { return spec.param; });

TEST(GgmlTypes, NamesWhatItCannotRead) {
  EXPECT_FALSE(find_ggml_type(20).has_value());
  EXPECT_EQ(name_of_ggml_type(20), "IQ4_NL");
  EXPECT_EQ(name_of_ggml_type(99), "type 99");
  EXPECT_EQ(name_of_ggml_type(12), "Q4_K");
}

TEST(GgmlTypes, RowsOfRowRangesEqualTheWhole) {
  const std::string file = read_golden("q6_k");
  const auto* packed = reinterpret_cast<const std::byte*>(file.data() + 12);
  std::vector<float> whole(512);
  std::vector<float> second(256);
  dequantize_rows(GgmlType::kQ6_K, 2, 256, packed, whole.data());
  dequantize_rows(GgmlType::kQ6_K, 1, 256, packed + row_bytes(GgmlType::kQ6_K, 256), second.data());
  EXPECT_TRUE(std::equal(second.begin(), second.end(), whole.begin() + 256));
}

}  // namespace
}  // namespace spear
