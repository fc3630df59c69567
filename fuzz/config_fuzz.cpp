// Any text as config.json and, behind a zero byte, generation_config.json: refused by a sentence,
// or a configuration that a decoder can have.
#include <cstdlib>
#include <string_view>

#include "spear/model/import_hf.h"
#include "spear/model/import_names.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spear;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t cut = text.find('\0');
  const std::string_view generation = cut == std::string_view::npos ? "" : text.substr(cut + 1);
  const auto config = config_from_hf_text(text.substr(0, cut), generation, "fuzz");
  if (!config) {
    if (config.error().message.empty()) std::abort();
    return 0;
  }
  if (!validate(*config, "fuzz")) std::abort();
  if (!config_from_json_text(to_json_text(*config), "printed")) std::abort();
  if (rope_inverse_frequencies(*config).size() != static_cast<size_t>(config->head_dim / 2))
    std::abort();
  if (config->num_hidden_layers < 64 && expected_tensors(*config).empty()) std::abort();
  return 0;
}
