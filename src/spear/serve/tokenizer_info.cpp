#include "spear/serve/tokenizer_info.h"

#include "spear/base/json.h"

namespace spear {

Json tokenizer_info(const Tokenizer& tokenizer, const std::string& chat_template,
                    int64_t max_length) {
  const auto text = [&tokenizer](int32_t id) -> Json {
    return tokenizer.is_id(id) ? Json(tokenizer.decode({&id, 1})) : Json(nullptr);
  };
  Json info = {
      {"tokenizer_class", "PreTrainedTokenizerFast"}, {"model_max_length", max_length},
      {"bos_token", text(tokenizer.bos_id())},        {"eos_token", text(tokenizer.eos_id())},
      {"unk_token", text(tokenizer.unknown_id())},    {"pad_token", text(tokenizer.padding_id())}};
  if (!chat_template.empty()) info["chat_template"] = chat_template;
  return info;
}

}  // namespace spear
