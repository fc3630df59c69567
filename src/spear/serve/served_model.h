// The model behind the server as clients see it: its name, its tokenizer and chat template, what
// was measured of it, and the engine that runs it. Immutable once made: safe from every thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "spear/engine/engine.h"
#include "spear/serve/api_error.h"
#include "spear/tokenizer/chat_template.h"
#include "spear/tokenizer/tokenizer.h"

namespace spear {

struct ModelFacts {
  std::string name;           // clients call it so
  std::string fingerprint;    // of the weights and the build: "spear-1a2b3c4d"
  int64_t created = 0;        // seconds since 1970
  std::string chat_template;  // Jinja; empty: none
  std::string certificate;    // JSON; empty: none
  std::string facts;          // JSON object for /v1/models: architecture, bytes, compensators
};

class ServedModel {
 public:
  // The engine must outlive this and have a tokenizer. Throws Failure for a template, certificate
  // or facts that cannot be read.
  ServedModel(Engine& engine, ModelFacts facts);

  [[nodiscard]] Engine& engine() const { return engine_; }
  [[nodiscard]] const Tokenizer& tokenizer() const { return tokenizer_; }
  [[nodiscard]] const ModelFacts& facts() const { return facts_; }
  [[nodiscard]] const std::optional<ChatTemplate>& chat_template() const { return template_; }
  [[nodiscard]] int64_t max_context() const { return engine_.limits().max_context; }
  // No text of more bytes fits into the context.
  [[nodiscard]] size_t longest_text() const { return longest_text_; }

  // 404 for another name; an empty one is this model.
  [[nodiscard]] ApiResult<void> check_name(const std::string& name) const;
  // Of text that a client sent: refused before any work where it cannot fit.
  [[nodiscard]] ApiResult<std::vector<int32_t>> encode(const std::string& text, bool add_special,
                                                       bool parse_special, const char* field) const;

  [[nodiscard]] std::string card() const;              // of GET /v1/models/{id}
  [[nodiscard]] std::string list() const;              // of GET /v1/models
  [[nodiscard]] std::string tokenizer_config() const;  // of GET /tokenizer_info

 private:
  Engine& engine_;
  Tokenizer tokenizer_;
  ModelFacts facts_;
  std::optional<ChatTemplate> template_;
  size_t longest_text_ = 0;
};

}  // namespace spear
