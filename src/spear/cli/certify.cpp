#include "spear/cli/certify.h"

#include "spear/base/log.h"
#include "spear/eval/evaluate.h"
#include "spear/eval/text_encoder.h"
#include "spear/eval/texts.h"

namespace spear {

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
  return [options, &backend, reference = request.model.string(), output = request.output.string()](
             const DenseModel& dense, const QuantizedModel& model, const Tokenizer& tokenizer,
             Progress& progress) {
    const CompressedModel compressed{output, &model, {}};
    return to_json_text(evaluate(backend, text_encoder(tokenizer), {reference, &dense},
                                 {&compressed, 1}, options, progress));
  };
}

}  // namespace spear
