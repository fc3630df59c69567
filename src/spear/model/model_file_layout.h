// Names that the writer and the reader of a model file share (docs/artifact-format.md).
#pragma once

#include <cstdint>
#include <string>

#include "spear/model/model_file.h"

namespace spear::model_file_layout {

inline std::string code_type(int32_t bits) {
  return bits == 16 ? "bf16" : "u" + std::to_string(bits);
}

inline const char* factor_type(int32_t bits) {
  return bits == 16 ? "f16" : bits == 8 ? "i8" : "i4";
}

struct TextSection {
  const char* name;
  std::string ModelTexts::*text;
};
inline constexpr TextSection kTextSections[] = {
    {"tokenizer", &ModelTexts::tokenizer},     {"chat_template", &ModelTexts::chat_template},
    {"license", &ModelTexts::license},         {"provenance", &ModelTexts::provenance},
    {"certificate", &ModelTexts::certificate}, {"diagnosis", &ModelTexts::diagnosis}};

}  // namespace spear::model_file_layout
