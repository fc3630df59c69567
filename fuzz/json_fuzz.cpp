// Any text: parse_json() answers with a value or an error, and a value survives printing and
// parsing again.
#include <cstdlib>
#include <string>
#include <string_view>

#include "spear/base/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const spear::Result<spear::Json> value = spear::parse_json(text, "fuzz");
  if (!value) return 0;
  const std::string printed = value->dump(-1, ' ', false, spear::Json::error_handler_t::replace);
  if (!spear::parse_json(printed, "printed")) std::abort();
  return 0;
}
