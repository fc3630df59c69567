#include "hostile_texts.h"

#include <cstdint>
#include <vector>

#include "spear/tokenizer/utf8.h"

namespace spear::test {
namespace {

std::vector<uint32_t> scalars() {
  std::vector<uint32_t> points;
  for (uint32_t point = 0; point < 0x110000; ++point)
    if (point < 0xd800 || point >= 0xe000) points.push_back(point);
  return points;
}

std::vector<uint64_t> random_numbers() {
  uint64_t state = 1;
  std::vector<uint64_t> numbers(300000);
  for (uint64_t& number : numbers) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    number = state >> 33;
  }
  return numbers;
}

bool is_mark(uint32_t point) {
  return (point >= 0x300 && point < 0x370) || (point >= 0x591 && point < 0x5c8) ||
         (point >= 0x1dc0 && point < 0x1e00);
}

std::string mixed(const std::vector<uint32_t>& points, const std::vector<uint64_t>& numbers) {
  std::vector<uint32_t> marks;
  for (const uint32_t point : points)
    if (is_mark(point)) marks.push_back(point);
  std::vector<uint32_t> pool;
  for (size_t i = 0; i < 64; ++i) pool.push_back(points[numbers[i] % points.size()]);
  for (const char c : std::string("ab 1'sLL.\n\t\r e")) pool.push_back(static_cast<uint8_t>(c));
  std::string text;
  for (const uint64_t number : numbers)
    append_utf8(text, number % 4 == 0 ? marks[(number >> 4) % marks.size()]
                                      : pool[(number >> 4) % pool.size()]);
  return text;
}

}  // namespace

std::map<std::string, std::string> hostile_texts() {
  const std::vector<uint32_t> points = scalars();
  const std::vector<uint64_t> numbers = random_numbers();
  std::map<std::string, std::string> texts;
  std::string& all = texts["every character"];
  std::string& spaced = texts["every character spaced"];
  for (const uint32_t point : points) {
    append_utf8(all, point);
    append_utf8(spaced, point);
    spaced.push_back(' ');
  }
  texts["marks and scripts mixed"] = mixed(points, numbers);
  std::string letters;
  for (size_t i = 0; i < 250000; ++i) letters.push_back(static_cast<char>('a' + numbers[i] % 26));
  texts["1 MB without a space"] = letters + letters + letters + letters;
  return texts;
}

}  // namespace spear::test
