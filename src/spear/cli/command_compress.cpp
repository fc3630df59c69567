#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"
#include "spear/base/log.h"
#include "spear/cli/certify.h"
#include "spear/cli/commands.h"
#include "spear/cli/machine.h"
#include "spear/cli/open_model.h"
#include "spear/cli/progress_bar.h"
#include "spear/cli/text.h"
#include "spear/cli/values.h"
#include "spear/eval/eval_result.h"
#include "spear/eval/texts.h"
#include "spear/hub/pull.h"

namespace spear {
namespace {

namespace fs = std::filesystem;

struct CompressSettings {
  std::string model, output;
  std::string recipe = "closed";
  std::string budget = "1%", target_gap;
  std::string certificate = "auto";
  std::string method = "gptq", zeros = "u8", start = "zero", metric = "covariance";
  std::vector<std::string> texts;
  bool no_text = false, no_rotate = false, no_gate = false, gate = false, row_bias = false;
  std::string costs, export_file, apply_file;
  double memory_gb = 0;
  RecipeOptions options;
  MachineSettings machine;
  std::vector<const CLI::Option*> grid_options;  // given: the grid is used as it stands
};

// Texts to calibrate on: those given, else the training texts of the data folder where there is
// one.
std::vector<fs::path> calibration_texts(const CompressSettings& s, const CommandContext& context) {
  if (s.no_text) return {};
  if (!s.texts.empty()) return {s.texts.begin(), s.texts.end()};
  const Result<fs::path> data = find_data_folder(context.environment.data_dir);
  std::vector<fs::path> found;
  if (data)
    for (const char* name : {"wikitext2/wiki.train.first1m.raw", "web/c4_calib.txt"})
      if (std::error_code error; fs::exists(*data / name, error)) found.push_back(*data / name);
  if (found.empty())
    log(LogLevel::kInfo,
        "calibration: on text sampled from the model alone (--text adds real text)");
  return found;
}

RecipeOptions recipe_options(const CompressSettings& s, const CommandContext& context) {
  RecipeOptions options = s.options;
  options.recipe = value_or_throw(recipe_from_name(s.recipe));
  options.budget = parse_share(s.budget, "--budget");
  if (context.options.seed != 0) options.seed = context.options.seed;
  if (s.row_bias) options.row_bias = true;
  if (s.gate || s.no_gate) options.gate = s.gate;
  options.start = s.start == "small" ? FactorStart::kRandomSmall : FactorStart::kRandomZero;
  if (s.metric != "covariance")
    options.metric = s.metric == "plain" ? FactorMetric::kPlain : FactorMetric::kDiagonal;
  QuantizeOptions& q = options.quantize;
  q.method = s.method == "rtn" ? QuantizeMethod::kRtn : QuantizeMethod::kGptq;
  q.rotate = !s.no_rotate;
  q.zero_kind = s.zeros == "u4" ? ZeroKind::kU4 : s.zeros == "u8" ? ZeroKind::kU8 : ZeroKind::kF16;
  for (const CLI::Option* option : s.grid_options)
    if (option->count() > 0) options.keep_grid = true;
  return options;
}

// Before hours of work: can the result be written there?
fs::path checked_output(const CompressSettings& s, const fs::path& model) {
  const fs::path stem = fs::path(s.model).filename().stem();
  const fs::path output =
      s.output.empty() ? fs::path(stem.string() + ".spear") : fs::path(s.output);
  std::error_code error;
  const fs::path folder = output.has_parent_path() ? output.parent_path() : fs::path(".");
  if (!fs::is_directory(folder, error))
    throw Failure(ErrorCode::kNotFound, fmt::format("--output {}: the folder {} is not there",
                                                    output.string(), folder.string()));
  if (access(folder.c_str(), W_OK) != 0)
    throw Failure(ErrorCode::kIo, fmt::format("--output {}: the folder {} cannot be written to",
                                              output.string(), folder.string()));
  if (fs::is_directory(output, error) || fs::equivalent(output, model, error))
    throw Failure(ErrorCode::kUsage,
                  fmt::format("--output {}: a new file expected, not a folder or the model itself",
                              output.string()));
  return output;
}

CompressRequest make_request(const CompressSettings& s, const CommandContext& context) {
  CompressRequest request;
  request.model = value_or_throw(resolve_model(s.model, context.environment));
  if (is_artifact(request.model) || request.model.extension() == ".spear")
    throw Failure(
        ErrorCode::kUsage,
        fmt::format("{}: compressed already; give the full-precision model (a GGUF file or "
                    "a folder of safetensors)",
                    request.model.string()));
  request.output = checked_output(s, request.model);
  request.cache = context.environment.cache_dir / "compress";
  request.recipe = recipe_options(s, context);
  if (!s.target_gap.empty()) request.target_gap = parse_share(s.target_gap, "--target-gap");
  request.texts = calibration_texts(s, context);
  if (!s.costs.empty())
    request.costs =
        value_or_throw(cost_table_from_json_text(value_or_throw(read_text_file(s.costs)), s.costs));
  request.compute = s.machine.arithmetic();
  request.memory = static_cast<size_t>(s.memory_gb * 1e9);
  request.command = context.command_line;
  request.export_parameters = s.export_file;
  request.apply_parameters = s.apply_file;
  return request;
}

std::string phases_text(const CompressResult& result) {
  std::string text;
  double total = 0;
  for (const PhaseTime& phase : result.phases) {
    text +=
        fmt::format("{}{} {}", text.empty() ? "" : ", ", phase.name, duration_text(phase.seconds));
    total += phase.seconds;
  }
  return fmt::format("took {}: {}\n", duration_text(total), text);
}

std::string summary_text(const CompressRequest& request, const CompressResult& r) {
  std::string text = fmt::format(
      "{}: {} of tensors, {:+.2f}% against plain 4-bit weights; {:.3f} bits per weight of the "
      "linears; {} compensators\n",
      request.output.string(), size_text(static_cast<int64_t>(r.file_bytes)), 100 * r.extra_share(),
      r.bits_per_weight, r.compensated);
  text += fmt::format(
      "divergence from the reference on text it sampled and nothing was trained on: plain W4 "
      "{:.4f}, now {:.4f}: {:.1f}% of the gap closed\n",
      r.plain_kl, r.final_kl, 100 * r.gap_closed());
  if (r.training.dropped > 0)
    text += fmt::format(
        "{} compensators were worth nothing and dropped; their {} bytes bought {} ranks\n",
        r.training.dropped, r.training.freed_bytes, r.training.ranks_added);
  return text + phases_text(r);
}

std::string certificate_of(const fs::path& output) {
  return value_or_throw(load_model(output)).texts.certificate;
}

int run(const CompressSettings& s, CommandContext& context) {
  CompressRequest request = make_request(s, context);
  const Machine machine = make_machine(s.machine, context);
  request.certify = make_certify(s.certificate, request, *machine.backend, context);
  if (s.certificate == "full") request.certificate = "full";
  std::error_code error;
  fs::create_directories(request.cache, error);
  if (error)
    throw Failure(ErrorCode::kIo, fmt::format("cannot make the folder {}: {}",
                                              request.cache.string(), error.message()));
  const CompressResult result =
      compress(request, *machine.backend, *machine.pool, context.progress);
  const std::string certificate = certificate_of(request.output);
  if (context.options.json) {
    Json json = value_or_throw(parse_json(to_json_text(result), "result"));
    json["path"] = request.output.string();
    json["certificate"] = certificate.empty()
                              ? Json(nullptr)
                              : value_or_throw(parse_json(certificate, "certificate"));
    print_out(json_text(json));
    return 0;
  }
  print_out(summary_text(request, result));
  if (!certificate.empty())
    print_out("\n" +
              to_table(value_or_throw(eval_result_from_json_text(certificate, "certificate"))));
  return 0;
}

void declare_recipe(CLI::App& app, CompressSettings& s) {
  app.add_option("MODEL", s.model, "The full-precision model: a path or a pulled name")
      ->required()
      ->type_name("MODEL");
  app.add_option("-o,--output", s.output,
                 "The file to write; without it, the model's name with .spear")
      ->type_name("FILE");
  app.add_option(
         "--recipe", s.recipe,
         "How much work: closed takes no gradients, fast a short training, best a long one; "
         "paper is the published method, plain quantizes alone")
      ->type_name("NAME")
      ->check(CLI::IsMember({"plain", "closed", "fast", "best", "paper"}));
  app.add_option("--budget", s.budget, "Extra bytes as a share of the plain 4-bit file")
      ->type_name("SHARE");
  app.add_option("--bits", s.options.bits,
                 "All stored bits of the linears per weight, in place of --budget")
      ->type_name("X");
  app.add_option("--target-gap", s.target_gap,
                 "The smallest file that closes this share of the divergence of plain W4")
      ->type_name("SHARE");
  app.add_option("--text", s.texts,
                 "Calibrate on this UTF-8 text as well; without it on the training "
                 "texts of the data folder, where there is one")
      ->type_name("FILE")
      ->allow_extra_args(false);
  app.add_flag("--no-text", s.no_text, "Calibrate on text sampled from the model alone");
  app.add_option("--certificate", s.certificate,
                 "Measure the result: auto is quick where the data folder is found")
      ->type_name("KIND")
      ->check(CLI::IsMember({"auto", "none", "quick", "full"}));
  app.add_option("--export", s.export_file, "Write the trained parameters alone as well")
      ->type_name("FILE");
  app.add_option("--apply", s.apply_file,
                 "Take trained parameters from a file in place of training")
      ->type_name("FILE");
  app.add_option("--memory", s.memory_gb, "Gigabytes that training may hold; 0: what is free")
      ->type_name("GB")
      ->check(CLI::Range(0.0, 1e6));
}

void declare_training(CLI::App& app, CompressSettings& s) {
  RecipeOptions& o = s.options;
  app.add_option("--steps", o.steps, "Training steps; 0: the recipe's")->type_name("N");
  app.add_option("--batch", o.batch, "Sequences of a step; 0: the recipe's")->type_name("N");
  app.add_option("--samples", o.self_samples, "Sequences sampled from the model; 0: the recipe's")
      ->type_name("N");
  app.add_option("--real-sequences", o.real_sequences,
                 "Sequences of real text at most; 0: the recipe's")
      ->type_name("N");
  app.add_option("--factor-bits", o.factor_bits, "Bits of the compensators' factors")
      ->type_name("N")
      ->check(CLI::IsMember({4, 8, 16}));
  app.add_option("--metric", s.metric,
                 "What closed forms minimise: the output's error for correlated inputs (QERA), for "
                 "uncorrelated ones (LQER), or the weight's own (SVD)")
      ->type_name("NAME")
      ->check(CLI::IsMember({"covariance", "diagonal", "plain"}));
  app.add_flag("--gate", s.gate, "Compensators with the paper's gate, whatever the recipe");
  app.add_flag("--no-gate", s.no_gate, "Compensators without a gate")->excludes("--gate");
  app.add_flag("--row-bias", s.row_bias, "Train a bias of each output row");
  app.add_option("--alpha", o.alpha, "Recipe paper: the factor before B")->type_name("X");
  app.add_option("--start", s.start, "Recipe paper: B at first all zero, or small")
      ->type_name("NAME")
      ->check(CLI::IsMember({"zero", "small"}));
  app.add_option("--costs", s.costs, "Recipe paper: a table of what a compensator costs, JSON")
      ->type_name("FILE");
}

void declare_grid(CLI::App& app, CompressSettings& s) {
  QuantizeOptions& q = s.options.quantize;
  const auto keep = [&s](const CLI::Option* option) { s.grid_options.push_back(option); };
  keep(app.add_option("--method", s.method,
                      "Rounding; with any of the options of the grid from here on, "
                      "all of them hold in place of the recipe's")
           ->type_name("NAME")
           ->check(CLI::IsMember({"gptq", "rtn"})));
  keep(app.add_option("--weight-bits", q.bits, "Bits of a code")
           ->type_name("N")
           ->check(CLI::IsMember({2, 3, 4, 8})));
  keep(app.add_option("--group", q.group, "Weights that share a scale; 0: a whole row")
           ->type_name("N")
           ->check(CLI::IsMember({0, 32, 64, 128, 256})));
  keep(app.add_option("--zeros", s.zeros, "Zero points: integers, sixteenths, or half floats")
           ->type_name("NAME")
           ->check(CLI::IsMember({"u4", "u8", "f16"})));
  keep(app.add_flag("--symmetric", q.symmetric, "No zero points"));
  keep(app.add_flag("--clip", q.clip, "Search the range of each row or group"));
  keep(app.add_flag("--no-rotate", s.no_rotate, "Do not rotate the residual stream and heads"));
  keep(app.add_option("--embedding-bits", q.embedding_bits, "0: 8 where the head shares it, else 4")
           ->type_name("N")
           ->check(CLI::IsMember({0, 4, 6, 8, 16})));
  keep(app.add_option("--head-bits", q.head_bits, "Bits of a head of its own")
           ->type_name("N")
           ->check(CLI::IsMember({4, 6, 8, 16})));
}

}  // namespace

Command compress_command() {
  return {.name = "compress",
          .summary = "Make a compensated 4-bit model of a full-precision one",
          .description =
              "Quantizes the linears to 4 bits, gives them small error compensators within the "
              "budget, trains where the recipe says so, measures the result and writes one .spear "
              "file. Ctrl-C leaves what was done; the same command goes on and ends with the same "
              "bytes.",
          .examples = {{"spear compress smollm2-135m --recipe closed -o smollm2.spear",
                        "Minutes: no gradients."},
                       {"spear compress smollm2-135m --recipe best --bits 4.5 -o best.spear",
                        "The best model of 4.5 stored bits per weight."},
                       {"spear compress ./Llama-3.2-1B --recipe fast --target-gap 85%",
                        "The smallest file that closes 85% of the gap."}},
          .declare = [](CLI::App& app) -> RunCommand {
            auto settings = std::make_shared<CompressSettings>();
            declare_recipe(app, *settings);
            declare_training(app, *settings);
            declare_grid(app, *settings);
            add_machine_options(app, settings->machine);
            return [settings](CommandContext& context) { return run(*settings, context); };
          }};
}

}  // namespace spear
