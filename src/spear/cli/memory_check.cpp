#include "spear/cli/memory_check.h"

#include <filesystem>
#include <system_error>

#include <fmt/format.h>

#include "spear/base/memory_info.h"
#include "spear/cli/open_model.h"
#include "spear/cli/text.h"
#include "spear/hub/pull.h"
#include "spear/model/checkpoint.h"

namespace spear {

Result<void> require_memory(const std::string& what, int64_t needed, int64_t available) {
  if (needed <= available) return {};
  return fail(ErrorCode::kUnsupported,
              fmt::format("{} needs {} of memory, {} are free; close other programs, or choose a "
                          "smaller model or context",
                          what, size_text(needed), size_text(available)));
}

int64_t dense_bytes(const ModelConfig& c, DType dtype) {
  const int64_t attention = c.hidden_size * (2 * c.q_size() + 2 * c.kv_size());
  const int64_t mlp = 3 * c.hidden_size * c.intermediate_size;
  const int64_t tables = (c.tie_word_embeddings ? 1 : 2) * c.vocab_size * c.hidden_size;
  return (tables + c.num_hidden_layers * (attention + mlp)) * static_cast<int64_t>(size_of(dtype));
}

void check_memory_for(const std::string& name, const Environment& env, DType dtype) {
  const Result<std::filesystem::path> path = resolve_model(name, env);
  if (!path) return;
  if (is_artifact(*path)) {
    // The file's own bytes stay mapped; the kernels' layout is a copy of about the same size.
    std::error_code error;
    const auto bytes = static_cast<int64_t>(std::filesystem::file_size(*path, error));
    if (!error) value_or_throw(require_memory(path->string(), bytes, available_memory()));
    return;
  }
  const Result<Checkpoint> checkpoint = Checkpoint::open(*path);
  if (!checkpoint) return;
  value_or_throw(require_memory(fmt::format("{} as {}", path->string(), name_of(dtype)),
                                dense_bytes(checkpoint->config(), dtype), available_memory()));
}

}  // namespace spear
