#include "spear/cli/open_model.h"

#include <fstream>
#include <string_view>

#include <fmt/format.h>

#include "spear/hub/pull.h"
#include "spear/model/checkpoint.h"
#include "spear/model/import_tokenizer.h"

namespace spear {
namespace {

OpenedModel open_artifact(const std::filesystem::path& path) {
  OpenedModel opened;
  opened.path = path;
  opened.file = std::make_unique<ModelFile>(value_or_throw(load_model(path)));
  const ModelTexts& texts = opened.file->texts;
  opened.tokenizer = value_or_throw(
      Tokenizer::parse(texts.tokenizer, fmt::format("{}: section tokenizer", path.string())));
  if (opened.tokenizer->vocab_size() > opened.config().vocab_size)
    throw Failure(ErrorCode::kBadFile,
                  fmt::format("{}: the tokenizer has {} tokens, the model {}", path.string(),
                              opened.tokenizer->vocab_size(), opened.config().vocab_size));
  opened.chat_template =
      texts.chat_template.empty() ? opened.tokenizer->chat_template() : texts.chat_template;
  opened.license = texts.license;
  return opened;
}

OpenedModel open_checkpoint(const std::filesystem::path& path, DType dtype, ThreadPool& pool,
                            Progress& progress) {
  const Checkpoint checkpoint = value_or_throw(Checkpoint::open(path));
  OpenedModel opened;
  opened.path = path;
  opened.tokenizer = value_or_throw(load_tokenizer(checkpoint));
  opened.chat_template = checkpoint.chat_template().empty() ? opened.tokenizer->chat_template()
                                                            : checkpoint.chat_template();
  opened.license = checkpoint.license();
  opened.dense = std::make_unique<DenseModel>(load_dense(checkpoint, dtype, pool, progress));
  return opened;
}

}  // namespace

bool is_artifact(const std::filesystem::path& path) {
  constexpr std::string_view kMagic = "\x89SPEAR\r\n";
  char head[kMagic.size()] = {};
  std::ifstream file(path, std::ios::binary);
  file.read(head, sizeof head);
  return file.good() && std::string_view(head, sizeof head) == kMagic;
}

OpenedModel open_model(const std::string& name, const Environment& env, DType dtype,
                       ThreadPool& pool, Progress& progress) {
  const std::filesystem::path path = value_or_throw(resolve_model(name, env));
  // A name that ends in .spear is taken at its word: its errors speak of that format.
  if (is_artifact(path) || path.extension() == ".spear") return open_artifact(path);
  return open_checkpoint(path, dtype, pool, progress);
}

OpenedModel open_reference(const std::string& name, const Environment& env, DType dtype,
                           ThreadPool& pool, Progress& progress, const char* purpose) {
  const std::filesystem::path path = value_or_throw(resolve_model(name, env));
  if (is_artifact(path) || path.extension() == ".spear")
    throw Failure(ErrorCode::kUsage,
                  fmt::format("{}: a compressed model cannot be {}: give the full-precision model "
                              "(a GGUF file or a folder of safetensors)",
                              path.string(), purpose));
  return open_checkpoint(path, dtype, pool, progress);
}

}  // namespace spear
