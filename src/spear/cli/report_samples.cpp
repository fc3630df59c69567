#include "spear/cli/report_samples.h"

#include <optional>

#include <fmt/format.h>

#include "spear/base/json.h"
#include "spear/base/log.h"
#include "spear/cli/open_model.h"
#include "spear/hub/model_cache.h"
#include "spear/quantize/quantize_model.h"
#include "spear/report/plots.h"
#include "spear/report/samples.h"
#include "spear/tokenizer/chat_template.h"

namespace spear {
namespace {

constexpr const char* kPrompts[] = {"Why is the sky blue?",
                                    "Write two sentences about a lighthouse in winter.",
                                    "What should I pack for a weekend in the mountains?"};

// The digest that a provenance names its reference by; empty when it names none.
std::string reference_digest(const std::filesystem::path& artifact) {
  const Result<ModelFile> file = load_model(artifact, FileChecks::kStructure);
  if (!file) return {};
  const Result<Json> json = parse_json(file->texts.provenance, "provenance");
  if (!json || !json->is_object() || !json->contains("reference")) return {};
  const Json& reference = json->at("reference");
  if (!reference.is_object() || !reference.contains("sha256")) return {};
  return reference.at("sha256").is_string() ? reference.at("sha256").get<std::string>() : "";
}

std::string find_reference(const SampleRequest& request, const Environment& env) {
  if (!request.reference.empty() || request.artifacts.empty()) return request.reference;
  const std::string digest = reference_digest(request.artifacts[0]);
  for (const PulledModel& model : ModelCache(env.cache_dir).list())
    if (!digest.empty() && model.files.size() == 1 && model.files[0].sha256 == digest)
      return model.name;
  return {};
}

std::vector<SamplePrompt> read_prompts(const SampleRequest& request, const OpenedModel& reference) {
  std::vector<std::string> texts = request.prompts;
  if (texts.empty()) texts.assign(std::begin(kPrompts), std::end(kPrompts));
  const Tokenizer& tokenizer = *reference.tokenizer;
  const auto text_of = [&](int32_t id) { return id < 0 ? "" : tokenizer.decode({&id, 1}); };
  std::vector<SamplePrompt> prompts;
  for (const std::string& text : texts) {
    if (reference.chat_template.empty()) {
      prompts.push_back({text, tokenizer.encode(text, {.add_special = true})});
    } else {
      const ChatTemplate chat = value_or_throw(ChatTemplate::parse(reference.chat_template));
      const std::string prompt = value_or_throw(
          chat.render({{"user", text}}, text_of(tokenizer.bos_id()), text_of(tokenizer.eos_id())));
      prompts.push_back({text, tokenizer.encode(prompt, {.parse_special = true})});
    }
    if (prompts.back().tokens.empty())
      throw Failure(ErrorCode::kUsage, "--prompt: a text expected, found none");
  }
  return prompts;
}

SampleSettings sample_settings(const SampleRequest& request, const OpenedModel& reference) {
  SampleSettings settings;
  settings.seed = request.seed;
  settings.most_tokens = request.most_tokens;
  settings.stop_ids = reference.tokenizer->stop_ids();
  const std::vector<int32_t>& ends = reference.config().eos_token_ids;
  settings.stop_ids.insert(settings.stop_ids.end(), ends.begin(), ends.end());
  settings.decode = [tokenizer = *reference.tokenizer](std::span<const int32_t> ids) {
    std::vector<int32_t> known;  // rows that only pad the vocabulary have no text
    for (const int32_t id : ids)
      if (tokenizer.is_id(id)) known.push_back(id);
    return tokenizer.decode(known, true);
  };
  return settings;
}

}  // namespace

std::vector<TextSample> make_samples(const SampleRequest& request, const MachineSettings& settings,
                                     CommandContext& context) {
  const std::string name = find_reference(request, context.environment);
  if (name.empty()) {
    log(LogLevel::kWarning,
        "the report will have no samples of text: the model that was compressed is not among the "
        "pulled ones; name it with --reference");
    return {};
  }
  const Machine machine = make_machine(settings, context);
  const Compute compute = settings.arithmetic();
  const OpenedModel reference = open_reference(name, context.environment, settings.dtype(),
                                               *machine.pool, context.progress, "the reference");
  const std::vector<SamplePrompt> prompts = read_prompts(request, reference);
  const SampleSettings sampling = sample_settings(request, reference);
  std::vector<std::string> models;
  std::vector<std::vector<std::string>> answers;
  const auto ask = [&](const std::string& model, Decoder decoder) {
    models.push_back(model);
    answers.push_back(continue_prompts(decoder, prompts, sampling, context.progress));
  };
  ask("reference", reference.decoder(*machine.backend, compute));
  {
    QuantizeOptions plain;
    plain.method = QuantizeMethod::kRtn;
    plain.rotate = false;
    const QuantizedModel rounded =
        quantize_model(*reference.dense, nullptr, plain, *machine.pool, context.progress);
    ask("plain W4", Decoder(*machine.backend, rounded, compute));
  }
  for (const std::filesystem::path& path : request.artifacts) {
    const OpenedModel model = open_model(path.string(), context.environment, settings.dtype(),
                                         *machine.pool, context.progress);
    if (model.config().vocab_size != reference.config().vocab_size)
      throw Failure(ErrorCode::kUsage, fmt::format("{}: not made from the reference {}",
                                                   path.string(), reference.path.string()));
    ask(short_model_name(path.string(), 40), model.decoder(*machine.backend, compute));
  }
  return to_samples(prompts, request.seed, models, answers);
}

}  // namespace spear
