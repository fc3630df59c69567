#include "spear/cli/certify.h"

#include "spear/base/log.h"
#include "spear/base/thread_pool.h"
#include "spear/cli/model_path.h"
#include "spear/eval/evaluate.h"
#include "spear/eval/text_encoder.h"
#include "spear/eval/texts.h"

namespace spear {
namespace {

constexpr int64_t kActivationWindows = 8;

// On this machine's processor, whatever made the model: it is there that activations have 8 bits.
ActivationCost activation_cost(int threads, EvalOptions options, const ReferenceModel& reference,
                               CompressedModel model, const TextEncoder& encoder,
                               Progress& progress) {
  ThreadPool pool(threads);
  const auto backend = value_or_throw(make_cpu_backend(pool));
  options.quick = false;
  options.texts = {default_texts().back()};
  options.texts[0].protocol.max_windows = kActivationWindows;
  const auto kl_of = [&](DecoderPath path) {
    model.decoder_path = path;
    const EvalResult result =
        evaluate(*backend, encoder, reference, {&model, 1}, options, progress);
    return result.models.at(0).texts.at(0).divergence->kl.mean;
  };
  const double exact = kl_of(DecoderPath::kFusedExact);
  return {exact, kl_of(DecoderPath::kFused)};
}

}  // namespace

Certify make_certify(const std::string& kind, const CompressRequest& request, Backend& backend,
                     const CommandContext& context) {
  if (kind == "none") return {};
  const Result<std::filesystem::path> data = find_data_folder(context.environment.data_dir);
  if (!data && kind == "auto") {
    log(LogLevel::kWarning, "the file will have no quality certificate: " + data.error().message);
    return {};
  }
  EvalOptions options;
  options.data_folder = value_or_throw(data);
  options.cache_folder = context.environment.cache_dir / "eval";
  options.reference_compute = options.model_compute = request.compute;
  options.quick = kind != "full";
  const int threads = context.options.threads;
  return [options, &backend, threads, reference = request.model.string(),
          output = request.output.string()](const DenseModel& dense, const QuantizedModel& model,
                                            const Tokenizer& tokenizer, Progress& progress) {
    const CompressedModel compressed{output, &model, {}, DecoderPath::kPlain};
    const std::string certificate =
        to_json_text(evaluate(backend, text_encoder(tokenizer), {reference, &dense},
                              {&compressed, 1}, options, progress));
    return with_activation_cost(certificate,
                                activation_cost(threads, options, {reference, &dense}, compressed,
                                                text_encoder(tokenizer), progress));
  };
}

}  // namespace spear
