#include "spear/compensate/compress_job.h"

#include <algorithm>

#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/hash.h"
#include "spear/base/json.h"
#include "spear/base/log.h"
#include "spear/compensate/allocate.h"
#include "spear/compensate/base_model.h"
#include "spear/compensate/calibration_set.h"
#include "spear/compensate/phase_clock.h"
#include "spear/compensate/train_report_json.h"
#include "spear/compensate/trained_parameters.h"
#include "spear/diagnose/damage_report.h"
#include "spear/model/checkpoint.h"
#include "spear/model/import_tokenizer.h"
#include "spear/model/model_file.h"
#include "spear/quantize/rtn.h"

namespace spear {
namespace {

constexpr int kFormat = 1;  // of the work folder: a change of what phases leave makes a new one

std::string sha_of(std::string_view text) {
  return sha256_hex(std::as_bytes(std::span(text.data(), text.size())));
}

// The reference and what was read with it; shared by the jobs of a search for a target.
struct Source {
  explicit Source(const CompressRequest& request, ThreadPool& pool, Progress& progress)
      : checkpoint(value_or_throw(Checkpoint::open(request.model))),
        tokenizer(value_or_throw(load_tokenizer(checkpoint))),
        dense(load_dense(checkpoint, DType::kBF16, pool, progress)),
        hash(dense.content_hash) {}

  Checkpoint checkpoint;
  Tokenizer tokenizer;
  DenseModel dense;
  std::string hash;
};

std::string key_of(const CompressRequest& request, const RecipePlan& plan, const Source& source,
                   const std::vector<CalibrationText>& texts) {
  Json json = {{"format", kFormat},
               {"model", source.hash},
               {"plan", Json::parse(to_json_text(plan))},
               {"seed", request.recipe.seed},
               {"compute", request.compute == Compute::kBF16 ? "bf16" : "f32"},
               {"texts", Json::array()}};
  for (const CalibrationText& text : texts) json["texts"].push_back(text.sha256);
  if (plan.select_by_damage) json["costs"] = to_json_text(request.costs);
  if (!request.apply_parameters.empty())
    json["parameters"] = value_or_throw(sha256_of_file(request.apply_parameters));
  return sha_of(json.dump());
}

class Job {
 public:
  Job(const CompressRequest& request, const Source& source, Backend& backend, ThreadPool& pool,
      Progress& progress)
      : request_(request),
        source_(source),
        backend_(backend),
        pool_(pool),
        progress_(progress),
        plan_(value_or_throw(plan_recipe(request.recipe, source.dense.config))),
        texts_(read_texts(request, source, plan_)),
        key_(key_of(request, plan_, source, texts_)),
        work_(make_folder(request.cache / ("compress-" + key_.substr(0, 16)))),
        clock_(work_ / "phases.json") {}

  // Everything up to the finished model.
  void build() {
    try {
      calibration_ = clock_.time("samples", [&] { return calibrate(); });
      if (plan_.quantize.method == QuantizeMethod::kGptq || plan_.start == FactorStart::kClosedForm)
        gather();
      base();
      if (plan_.select_by_damage) clock_.time("diagnosis", [&] { diagnose_modules(); });
      if (!request_.apply_parameters.empty())
        apply();
      else if (!plan_.stages.empty())
        train();
      clock_.time("measure", [&] { measure(); });
      clock_.save();
    } catch (...) {
      clock_.save();
      throw;
    }
  }

  [[nodiscard]] CompressResult result() const {
    CompressResult out;
    out.plan = plan_;
    const ByteCount bytes = count_bytes(model());
    out.file_bytes = bytes.total();
    out.plain_bytes = plain_w4_bytes(source_.dense.config);
    out.bits_per_weight =
        stored_bits(source_.dense.config,
                    bytes.weights + bytes.scales + bytes.zeros + bytes.compensators + bytes.biases);
    for (const QuantizedLayer& layer : model().layers)
      out.compensated += std::count_if(
          layer.linears.begin(), layer.linears.end(),
          [](const QuantizedLinear& linear) { return linear.compensator.has_value(); });
    out.training = training_;
    out.plain_kl = plain_kl_;
    out.base_kl = base_kl_;
    out.final_kl = final_kl_;
    out.phases = clock_.phases();
    return out;
  }

  // Certificate, provenance and files.
  void finish() {
    ModelTexts texts;
    texts.tokenizer = source_.tokenizer.serialize();
    texts.chat_template = source_.checkpoint.chat_template();
    if (texts.chat_template.empty()) texts.chat_template = source_.tokenizer.chat_template();
    texts.license = source_.checkpoint.license();
    texts.diagnosis = diagnosis_;
    if (request_.certify)
      texts.certificate = clock_.time("evaluation", [&] { return certificate(); });
    clock_.save();
    texts.provenance = provenance();
    if (!request_.export_parameters.empty())
      export_parameters(request_.export_parameters, model(), texts.provenance);
    if (!request_.output.empty()) save_model(request_.output, model(), texts);
  }

 private:
  static std::vector<CalibrationText> read_texts(const CompressRequest& request,
                                                 const Source& source, const RecipePlan& plan) {
    std::vector<CalibrationText> texts;
    if (plan.real_sequences == 0) return texts;
    for (const auto& path : request.texts)
      texts.push_back(read_calibration_text(path, source.tokenizer, plan.length));
    return texts;
  }
  static std::filesystem::path make_folder(const std::filesystem::path& folder) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error)
      throw Failure(ErrorCode::kIo,
                    fmt::format("cannot make the folder {}: {}", folder.string(), error.message()));
    return folder;
  }

  [[nodiscard]] QuantizedModel& model() { return file_.model; }
  [[nodiscard]] const QuantizedModel& model() const { return file_.model; }

  Decoder& reference() {
    if (!reference_)
      reference_ = std::make_unique<Decoder>(backend_, source_.dense, request_.compute);
    return *reference_;
  }

  CalibrationSet calibrate() {
    const ModelConfig& config = source_.dense.config;
    if (plan_.length > config.max_position_embeddings)
      throw Failure(ErrorCode::kUsage,
                    fmt::format("sequences of {} tokens do not fit the model's context of {}",
                                plan_.length, config.max_position_embeddings));
    return make_calibration_set(
        plan_, request_.recipe.seed, source_.hash, texts_, config.vocab_size,
        [&]() -> Decoder& { return reference(); }, request_.cache, pool_, progress_);
  }

  void gather() {
    clock_.time("covariances", [&] {
      covariances_.emplace(request_.cache, source_.dense.config, source_.hash,
                           calibration_.covariance.hash(), request_.compute);
      if (covariances_->complete()) return;
      GatherOptions options;
      options.compute = request_.compute;
      gather_covariances(reference(), calibration_.covariance, options, *covariances_, pool_,
                         progress_);
    });
  }

  // Each module's own rounding alone, as the recipe quantizes it, in the basis of the reference.
  HostTensor quantized_alone(const ModuleId& id) {
    const WorkingLinear working = working_linear(source_.dense, id, nullptr, pool_);
    const int64_t n = working.weight.shape()[0];
    const int64_t k = working.weight.shape()[1];
    const UnpackedMatrix matrix =
        rtn(working.weight.as<float>().data(), n, k, plan_.quantize.grid(), nullptr, pool_);
    const QuantizedMatrix packed = pack(matrix, stored_zero_kind(plan_.quantize.grid()));
    HostTensor out(Shape{n, k}, DType::kF32);
    dequantize_rows(packed.view(), 0, n, out.as<float>().data());
    return out;
  }

  void diagnose_modules() {
    DamageReport report;
    report.model = source_.dense.config.name;
    report.model_hash = source_.hash;
    report.quantizer =
        fmt::format("rtn, {} bits, {}", plan_.quantize.bits,
                    plan_.quantize.group == 0 ? "per channel"
                                              : fmt::format("groups of {}", plan_.quantize.group));
    DiagnoseOptions options;
    options.state_file = work_ / "diagnosis.state";
    const TokenSequences tokens = choose_sequences(calibration_.training, 64, request_.recipe.seed);
    diagnose(
        reference(), tokens, [&](const ModuleId& id) { return quantized_alone(id); }, options,
        pool_, progress_, report);
    diagnosis_ = to_json_text(report);
    chosen_ = choose(report);
  }

  [[nodiscard]] Allocation choose(const DamageReport& report) const {
    constexpr int64_t kTypicalRank = 24;  // for the cost of a compensator before its rank is known
    const ModelConfig& config = source_.dense.config;
    const std::vector<double> damage = report.cka_damages();
    const Cover cover = choose_cover(damage);
    std::vector<double> cost;
    for (const ModuleId& id : all_modules(config))
      cost.push_back(request_.costs.microseconds(config, id.module, kTypicalRank));
    std::vector<ModuleId> modules;
    for (const int64_t index : place(damage, cost, cover.count))
      modules.push_back({static_cast<int32_t>(index / kModulesPerLayer),
                         static_cast<Module>(index % kModulesPerLayer)});
    return value_or_throw(allocate_evenly(config, modules, compensator_budget(model(), plan_),
                                          {plan_.factor_bits, plan_.gate_per_rank}));
  }

  void base() {
    const std::filesystem::path path = work_ / "base.spear";
    if (auto stored = load_stored(path)) {
      file_ = std::move(*stored);
      return;
    }
    file_.model = clock_.time("quantize", [&] {
      return make_base_model(source_.dense, covariances_ ? &*covariances_ : nullptr, plan_, pool_,
                             progress_);
    });
    save_model(path, model(), {});
  }

  // A model that an earlier run left; one that is damaged is made again.
  static std::optional<ModelFile> load_stored(const std::filesystem::path& path) {
    std::error_code error;
    if (!std::filesystem::exists(path, error)) return std::nullopt;
    auto file = load_model(path);
    if (file) return std::move(*file);
    log(LogLevel::kWarning, fmt::format("{} is damaged and made again", path.string()));
    return std::nullopt;
  }

  void apply() {
    base_kl_ = unseen_kl(model());
    value_or_throw(apply_parameters(request_.apply_parameters, model()));
  }

  const TeacherStates& teacher_of_training() {
    if (!teacher_)
      teacher_.emplace(TeacherStates::gather(reference(), source_.hash, calibration_.training,
                                             request_.compute, request_.cache, pool_, progress_));
    return *teacher_;
  }

  void train() {
    const std::filesystem::path trained = work_ / "trained.spear";
    const std::filesystem::path report = work_ / "training.json";
    if (auto stored = load_stored(trained); stored && load_report(report)) {
      file_ = std::move(*stored);
      return;
    }
    base_kl_ = clock_.time("measure", [&] { return unseen_kl(model()); });
    const TeacherStates& teacher = clock_.time(
        "reference states", [&]() -> const TeacherStates& { return teacher_of_training(); });
    CompensatorList start;
    if (plan_.select_by_damage)
      start = random_compensators(source_.dense.config, chosen_, plan_, request_.recipe.seed);
    else if (plan_.gate_per_rank > 0)
      start = with_gates(model(), plan_.gate_per_rank, request_.recipe.seed);
    reference_.reset();  // its prepared weights are not needed any more
    const TrainContext context{source_.dense,
                               covariances_ ? &*covariances_ : nullptr,
                               calibration_.training,
                               teacher,
                               backend_,
                               pool_,
                               request_.compute,
                               request_.memory,
                               work_};
    training_ = clock_.time("training",
                            [&] { return train_model(model(), plan_, start, context, progress_); });
    save_report(report);
    save_model(trained, model(), {});
  }

  void save_report(const std::filesystem::path& path) const {
    Json json = to_json(training_);
    json["base_kl"] = base_kl_;
    write_file_atomically(path, json.dump());
  }

  bool load_report(const std::filesystem::path& path) {
    const auto text = read_text_file(path);
    if (!text) return false;
    const auto json = parse_json(*text, path.string());
    if (!json || !json->is_object() || !json->contains("base_kl")) return false;
    auto report = train_report_from_json(*json);
    if (!report || !json->at("base_kl").is_number()) return false;
    training_ = std::move(*report);
    base_kl_ = json->at("base_kl");
    return true;
  }

  double unseen_kl(const QuantizedModel& candidate) {
    return unseen_kl(make_student(candidate, {}));
  }

  double unseen_kl(const StudentModel& student) {
    if (!unseen_teacher_)
      unseen_teacher_.emplace(TeacherStates::gather(reference(), source_.hash, calibration_.unseen,
                                                    request_.compute, request_.cache, pool_,
                                                    progress_));
    ReversePassOptions options;
    options.compute = request_.compute;
    options.keep_matrices = false;
    const auto pass =
        make_reverse_pass(student, source_.dense.head_weight().view(), backend_, pool_, options);
    const TrainingData data{calibration_.unseen, *unseen_teacher_,
                            source_.dense.head_weight().view()};
    std::vector<int64_t> all;
    for (int64_t i = 0; i < calibration_.unseen.count; ++i) all.push_back(i);
    return mean_kl(*pass, student.start, data, all, TrainerOptions().micro_tokens, 1.0f);
  }

  // KL of plain W4 and of the finished model on sequences that nothing has seen.
  void measure() {
    QuantizeOptions plain;
    plain.method = QuantizeMethod::kRtn;
    plain.rotate = false;
    {
      QuantizedModel candidate = quantize_model(source_.dense, nullptr, plain, pool_, progress_);
      const StudentModel student = make_student(candidate, {});
      // The student holds the codes, a byte each: beside the reference there is no room for both.
      for (QuantizedLayer& layer : candidate.layers)
        for (QuantizedLinear& linear : layer.linears) linear.weight.codes = {};
      plain_kl_ = unseen_kl(student);
    }
    final_kl_ = unseen_kl(model());
    if (plan_.stages.empty() && request_.apply_parameters.empty()) base_kl_ = final_kl_;
  }

  std::string certificate() {
    const std::filesystem::path path =
        work_ / fmt::format("certificate-{}.json", request_.certificate);
    if (auto stored = read_text_file(path)) return std::move(*stored);
    reference_.reset();
    std::string text = request_.certify(source_.dense, model(), source_.tokenizer, progress_);
    write_file_atomically(path, text);
    return text;
  }

  [[nodiscard]] std::string provenance() const {
    Json texts = Json::array();
    for (const CalibrationText& text : texts_)
      texts.push_back({{"name", text.name}, {"sha256", text.sha256}, {"tokens", text.tokens}});
    Json json = {{"command", request_.command},
                 {"reference",
                  {{"name", source_.dense.config.name},
                   {"file", request_.model.filename().string()},
                   {"sha256", source_.hash}}},
                 {"seed", request_.recipe.seed},
                 {"plan", Json::parse(to_json_text(plan_))},
                 {"compute", request_.compute == Compute::kBF16 ? "bf16" : "f32"},
                 {"backend", backend_.describe()},
                 {"calibration",
                  {{"self_sampled", plan_.self_samples},
                   {"covariance_sequences", calibration_.covariance.count},
                   {"covariance_hash", calibration_.covariance.hash()},
                   {"training_sequences", plan_.stages.empty() ? 0 : calibration_.training.count},
                   {"training_hash", calibration_.training.hash()},
                   {"texts", std::move(texts)}}}};
    // No times: the same request gives the same bytes, interrupted or not.
    json["summary"] = Json::parse(to_json_text(result()));
    json["summary"].erase("phases");
    if (!training_.stages.empty()) {
      json["training"] = to_json(training_);
      json["training"]["base_kl"] = base_kl_;
      for (Json& stage : json["training"]["stages"]) stage.erase("seconds");
    }
    return json.dump();
  }

  const CompressRequest& request_;
  const Source& source_;
  Backend& backend_;
  ThreadPool& pool_;
  Progress& progress_;
  RecipePlan plan_;
  std::vector<CalibrationText> texts_;
  std::string key_;
  std::filesystem::path work_;
  PhaseClock clock_;
  CalibrationSet calibration_;
  std::unique_ptr<Decoder> reference_;
  std::optional<Covariances> covariances_;
  std::optional<TeacherStates> teacher_, unseen_teacher_;
  ModelFile file_;
  std::string diagnosis_;
  Allocation chosen_;
  TrainReport training_;
  double plain_kl_ = 0, base_kl_ = 0, final_kl_ = 0;
};

// Budgets tried for a target, smallest file first: shares of the plain file, then stored bits that
// buy groups.
struct Rung {
  double budget = 0, bits = 0;
};
constexpr Rung kRungs[] = {{0.002, 0}, {0.005, 0}, {0.01, 0}, {0.02, 0},
                           {0.04, 0},  {0, 4.5},   {0, 4.75}, {0, 5.25}};

CompressResult reach_target(const CompressRequest& request, const Source& source, Backend& backend,
                            ThreadPool& pool, Progress& progress) {
  double best = 0;
  for (const Rung& rung : kRungs) {
    CompressRequest attempt = request;
    attempt.recipe.budget = rung.budget;
    attempt.recipe.bits = rung.bits;
    if (!plan_recipe(attempt.recipe, source.dense.config))
      continue;  // this rung is too small for the recipe
    Job job(attempt, source, backend, pool, progress);
    job.build();
    const CompressResult result = job.result();
    log(LogLevel::kInfo, fmt::format("{} extra bytes close {:.1f} % of the KL",
                                     static_cast<int64_t>(result.file_bytes) -
                                         static_cast<int64_t>(result.plain_bytes),
                                     100 * result.gap_closed()));
    best = std::max(best, result.gap_closed());
    if (result.gap_closed() < request.target_gap) continue;
    job.finish();
    return job.result();
  }
  throw Failure(ErrorCode::kBudget, fmt::format("--target-gap {:g}: no file tried reaches it; the "
                                                "best closes {:.3f} of the KL: ask for less, or "
                                                "for a longer recipe",
                                                request.target_gap, best));
}

}  // namespace

CompressResult compress(const CompressRequest& request, Backend& backend, ThreadPool& pool,
                        Progress& progress) {
  if (request.target_gap < 0 || request.target_gap >= 1)
    throw Failure(ErrorCode::kUsage,
                  fmt::format("--target-gap {}: expected a share between 0 and 1 (85 % is 0.85)",
                              request.target_gap));
  const Source source(request, pool, progress);
  if (request.target_gap > 0) return reach_target(request, source, backend, pool, progress);
  Job job(request, source, backend, pool, progress);
  job.build();
  job.finish();
  return job.result();
}

std::string to_json_text(const CompressResult& result) {
  Json phases = Json::object();
  for (const PhaseTime& phase : result.phases) phases[phase.name] = phase.seconds;
  const Json json = {{"recipe", name_of(result.plan.recipe)},
                     {"bytes", result.file_bytes},
                     {"plain_w4_bytes", result.plain_bytes},
                     {"extra_share", result.extra_share()},
                     {"bits_per_weight", result.bits_per_weight},
                     {"compensated_modules", result.compensated},
                     {"kl_on_unseen_samples",
                      {{"plain_w4", result.plain_kl},
                       {"before_training", result.base_kl},
                       {"final", result.final_kl}}},
                     {"gap_closed", result.gap_closed()},
                     {"phases", std::move(phases)}};
  return json.dump();
}

}  // namespace spear
