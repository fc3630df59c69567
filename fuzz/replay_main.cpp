// Runs a fuzz target without a fuzzing engine: on every file of the given folders, and on seeded
// mutations of each (cut short, bytes changed, pieces repeated), so that ordinary builds guard what
// fuzzing once found. usage: fuzz_NAME [--mutations N] FILE_OR_FOLDER...     Exit code 1 when there
// was no input at all.
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/rng.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

Bytes read(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

Bytes mutated(Bytes bytes, spear::Rng& rng) {
  const auto position = [&] { return rng.below(static_cast<uint32_t>(bytes.size())); };
  for (uint32_t edits = 1 + rng.below(4); edits > 0 && !bytes.empty(); --edits) {
    switch (rng.below(4)) {
      case 0:  // cut short
        bytes.resize(position());
        break;
      case 1:  // a bit
        bytes[position()] ^= static_cast<uint8_t>(1u << rng.below(8));
        break;
      case 2: {  // a field of up to eight bytes becomes an extreme value
        const uint32_t begin = position();
        const size_t end = std::min<size_t>(bytes.size(), begin + (size_t{1} << rng.below(4)));
        const uint8_t fill = rng.below(2) == 0 ? 0xff : 0x00;
        std::fill(bytes.begin() + begin, bytes.begin() + static_cast<ptrdiff_t>(end), fill);
        break;
      }
      default: {  // a piece comes twice
        const uint32_t begin = position();
        const uint32_t length = std::min<uint32_t>(64, static_cast<uint32_t>(bytes.size()) - begin);
        const Bytes piece(bytes.begin() + begin, bytes.begin() + begin + length);
        bytes.insert(bytes.begin() + position(), piece.begin(), piece.end());
        break;
      }
    }
  }
  return bytes;
}

// A copy of the exact size on the heap, so that the address sanitizer sees a read past its end.
void run(const Bytes& bytes) {
  const Bytes exact(bytes.begin(), bytes.end());
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

}  // namespace

int main(int argc, char** argv) {
  int mutations = 0;
  std::vector<std::filesystem::path> inputs;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--mutations" && i + 1 < argc) {
      const std::string_view value = argv[++i];
      std::from_chars(value.data(), value.data() + value.size(), mutations);
    } else if (std::filesystem::is_directory(argument)) {
      for (const auto& entry : std::filesystem::recursive_directory_iterator(argument))
        if (entry.is_regular_file()) inputs.push_back(entry.path());
    } else {
      inputs.emplace_back(argument);
    }
  }
  std::sort(inputs.begin(), inputs.end());
  for (const std::filesystem::path& path : inputs) {
    const Bytes bytes = read(path);
    std::printf("%s: %zu bytes\n", path.filename().c_str(), bytes.size());
    std::fflush(stdout);  // the last line names the input that crashed
    run(bytes);
    spear::Rng rng(bytes.size());
    for (int i = 0; i < mutations; ++i) run(mutated(bytes, rng));
  }
  std::printf("%zu inputs, %d mutations of each\n", inputs.size(), mutations);
  return inputs.empty() ? 1 : 0;
}
