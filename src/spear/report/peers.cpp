#include <algorithm>
#include <cctype>

#include "spear/report/report_input.h"

namespace spear {
namespace {

constexpr double kMegabyte = 1e6;

bool contains(std::string_view text, std::string_view part) {
  const auto same = [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; };
  return std::search(text.begin(), text.end(), part.begin(), part.end(), same) != text.end();
}

PeerSet smollm2() {
  return {.text = "wikitext2@512h",
          .source =
              "llama.cpp's own tool on the same reference in F16: context 512, second half of the "
              "first 96 "
              "chunks, 8-bit activations",
          .points = {{"Q4_0", 91.7 * kMegabyte, 1.248, .287, .715},
                     {"IQ4_NL", 92.1 * kMegabyte, 1.202, .184, .763},
                     {"Q4_K_M", 105.5 * kMegabyte, 1.061, .056, .866},
                     {"Q8_0", 144.8 * kMegabyte, 1.005, .004, .960}}};
}

PeerSet qwen_coder() {
  return {.text = "wikitext2@512h",
          .source =
              "llama.cpp's own tool on the same reference in F16: context 512, second half of the "
              "first 40 "
              "chunks, 8-bit activations; the embedding is quantized too",
          .points = {{"Q4_0", 428.7 * kMegabyte, 1.116, .110, .817},
                     {"IQ4_NL", 430.9 * kMegabyte, 1.064, .057, .865}}};
}

}  // namespace

std::optional<PeerSet> llama_cpp_peers(std::string_view reference_name) {
  if (contains(reference_name, "smollm2-135m")) return smollm2();
  if (contains(reference_name, "qwen2.5-coder-0.5b")) return qwen_coder();
  return std::nullopt;
}

}  // namespace spear
