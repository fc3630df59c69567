// The measurement: the reference's residual stream is kept before every layer, so that a changed
// module costs only the layers from its own on.
#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "spear/base/atomic_file.h"
#include "spear/base/json.h"
#include "spear/base/log.h"
#include "spear/diagnose/cka.h"
#include "spear/diagnose/damage_report.h"

namespace spear {
namespace {

class Diagnosis {
 public:
  Diagnosis(Decoder& decoder, const TokenSequences& tokens, const DiagnoseOptions& options,
            ThreadPool& pool)
      : decoder_(decoder),
        config_(decoder.config()),
        tokens_(tokens),
        options_(options),
        pool_(pool),
        cache_(decoder.backend(), config_, options.batch, tokens.length, false),
        rows_(tokens.count * tokens.length) {}

  // Residual streams before each layer, and the reference's final states and logits at the scored
  // positions.
  void run_reference(Progress& progress) {
    const auto floats = static_cast<size_t>(rows_ * config_.hidden_size);
    for (int64_t l = 0; l < config_.num_hidden_layers; ++l) streams_.emplace_back(floats);
    hidden_ = run_from(0, nullptr, &progress);
    for (int64_t t = 0; t < rows_; t += options_.kl_stride) scored_.push_back(t);
  }

  [[nodiscard]] const std::vector<float>& reference_hidden() const { return hidden_; }

  // The final hidden states [tokens, hidden] when layers from `first` on run again. `order`: which
  // sequences stand beside one another in a batch; results stay in the order of the tokens.
  std::vector<float> run_from(int32_t first, const std::vector<int64_t>* order,
                              Progress* progress) {
    std::vector<float> out(static_cast<size_t>(rows_ * config_.hidden_size));
    for (int64_t begin = 0; begin < tokens_.count; begin += options_.batch) {
      std::vector<int64_t> members;
      for (int64_t i = begin; i < std::min(begin + options_.batch, tokens_.count); ++i)
        members.push_back(order != nullptr ? (*order)[static_cast<size_t>(i)] : i);
      run_batch(first, members, progress != nullptr, out.data());
      if (progress != nullptr) progress->advance(1);
    }
    return out;
  }

  // Mean KL to the reference over the scored positions.
  double kl(const std::vector<float>& hidden) {
    Backend& backend = decoder_.backend();
    const int64_t vocab = config_.vocab_size;
    const int64_t width = config_.hidden_size;
    constexpr int64_t kChunk = 256;  // rows of logits that exist at once
    const auto floats = [&](int64_t count) {
      return backend.allocate(static_cast<size_t>(count) * sizeof(float));
    };
    const DeviceBuffer states = floats(kChunk * width), teacher = floats(kChunk * vocab),
                       student = floats(kChunk * vocab);
    const DeviceBuffer values = floats(kChunk);
    std::vector<float> rows(static_cast<size_t>(kChunk * width));
    std::vector<float> result(static_cast<size_t>(kChunk));
    double total = 0;
    for (size_t begin = 0; begin < scored_.size(); begin += kChunk) {
      const auto count =
          static_cast<int64_t>(std::min(scored_.size() - begin, static_cast<size_t>(kChunk)));
      const auto logits_of = [&](const std::vector<float>& from, const DeviceBuffer& logits) {
        for (int64_t i = 0; i < count; ++i)
          std::copy_n(from.data() + scored_[begin + static_cast<size_t>(i)] * width, width,
                      rows.data() + i * width);
        backend.upload(states.as<float>(), rows.data(),
                       static_cast<size_t>(count * width) * sizeof(float));
        decoder_.logits(states.as<float>(), count, logits.as<float>());
      };
      logits_of(hidden_, teacher);
      logits_of(hidden, student);
      backend.kl_divergence(
          {count, vocab, teacher.as<float>(), student.as<float>(), 1.0f, 0.0f, values.as<float>()});
      backend.download(result.data(), values.as<float>(),
                       static_cast<size_t>(count) * sizeof(float));
      for (int64_t i = 0; i < count; ++i)
        total += static_cast<double>(result[static_cast<size_t>(i)]);
    }
    return total / static_cast<double>(scored_.size());
  }

 private:
  void run_batch(int32_t first, const std::vector<int64_t>& members, bool keep, float* out) {
    Backend& backend = decoder_.backend();
    const int64_t width = config_.hidden_size;
    const int64_t m = static_cast<int64_t>(members.size()) * tokens_.length;
    const auto row_floats = static_cast<size_t>(tokens_.length * width);
    std::vector<int32_t> ids;
    std::vector<AttentionSequence> sequences;
    cache_.reset_all();
    for (size_t i = 0; i < members.size(); ++i) {
      const auto row = tokens_.row(members[i]);
      ids.insert(ids.end(), row.begin(), row.end());
      sequences.push_back(cache_.append(static_cast<int64_t>(i),
                                        static_cast<int64_t>(i) * tokens_.length, tokens_.length));
    }
    const Batch batch{ids, sequences};
    const DeviceBuffer x = backend.allocate(static_cast<size_t>(m * width) * sizeof(float));
    const auto at = [&](std::vector<float>& stream, size_t member) {
      return stream.data() + static_cast<size_t>(members[member]) * row_floats;
    };
    if (keep) {
      decoder_.embed(ids, x.as<float>());
    } else {
      for (size_t i = 0; i < members.size(); ++i)
        backend.upload(x.as<float>() + i * row_floats, at(streams_[static_cast<size_t>(first)], i),
                       row_floats * sizeof(float));
    }
    for (int32_t l = first; l < static_cast<int32_t>(config_.num_hidden_layers); ++l) {
      if (keep)
        for (size_t i = 0; i < members.size(); ++i)
          backend.download(at(streams_[static_cast<size_t>(l)], i), x.as<float>() + i * row_floats,
                           row_floats * sizeof(float));
      decoder_.run_layer(l, batch, cache_, x.as<float>());
    }
    decoder_.finish(x.as<float>(), m, x.as<float>());
    for (size_t i = 0; i < members.size(); ++i)
      backend.download(out + static_cast<size_t>(members[i]) * row_floats,
                       x.as<float>() + i * row_floats, row_floats * sizeof(float));
  }

  Decoder& decoder_;
  const ModelConfig& config_;
  const TokenSequences& tokens_;
  const DiagnoseOptions& options_;
  ThreadPool& pool_;
  KvCache cache_;
  int64_t rows_;
  std::vector<std::vector<float>> streams_;  // [layers][tokens, hidden]
  std::vector<float> hidden_;                // [tokens, hidden]
  std::vector<int64_t> scored_;
};

// Finished modules of an earlier run of the same measurement.
std::vector<ModuleDamage> load_state(const DiagnoseOptions& options, const DamageReport& report,
                                     int64_t modules) {
  if (options.state_file.empty()) return {};
  const Result<std::string> text = read_text_file(options.state_file);
  if (!text) return {};
  Result<Json> json = parse_json(*text, options.state_file.string());
  if (!json) return {};
  // A state holds any number of modules; the reader of reports wants whole layers.
  while (json->contains("modules") && (*json)["modules"].size() % kModulesPerLayer != 0)
    (*json)["modules"].erase((*json)["modules"].size() - 1);
  const Result<DamageReport> state =
      damage_report_from_json_text(json->dump(), options.state_file.string());
  if (!state || state->model_hash != report.model_hash || state->quantizer != report.quantizer ||
      state->sequences_hash != report.sequences_hash || state->kl_stride != report.kl_stride ||
      static_cast<int64_t>(state->modules.size()) > modules)
    return {};
  return state->modules;
}

void save_state(const DiagnoseOptions& options, const DamageReport& report) {
  if (!options.state_file.empty()) write_file_atomically(options.state_file, to_json_text(report));
}

}  // namespace

void diagnose(Decoder& reference, const TokenSequences& tokens, const QuantizedAlone& quantize,
              const DiagnoseOptions& options, ThreadPool& pool, Progress& progress,
              DamageReport& report) {
  const ModelConfig& config = reference.config();
  const int64_t count = config.num_hidden_layers * kModulesPerLayer;
  report.sequences_hash = tokens.hash();
  report.sequences = tokens.count;
  report.length = tokens.length;
  report.kl_stride = options.kl_stride;
  report.modules = load_state(options, report, count);
  if (!report.modules.empty())
    log(LogLevel::kInfo, fmt::format("diagnosis: {} of {} modules are already measured",
                                     report.modules.size(), count));

  Diagnosis diagnosis(reference, tokens, options, pool);
  progress.begin("reference", (tokens.count + options.batch - 1) / options.batch);
  diagnosis.run_reference(progress);
  const CkaReference cka(diagnosis.reference_hidden().data(), tokens.count * tokens.length,
                         config.hidden_size, pool);
  std::vector<int64_t> reversed(static_cast<size_t>(tokens.count));
  std::iota(reversed.rbegin(), reversed.rend(), int64_t{0});
  report.noise_floor = cka.damage(diagnosis.run_from(0, &reversed, nullptr).data());

  // Steps of the bar are layers that run again, so that the ETA is right.
  progress.begin("diagnosis", count * (config.num_hidden_layers + 1) / 2);
  for (int64_t i = 0; i < count; ++i) {
    const ModuleId id{static_cast<int32_t>(i / kModulesPerLayer),
                      kModules[static_cast<size_t>(i % kModulesPerLayer)]};
    const int64_t layers = config.num_hidden_layers - id.layer;
    if (i < static_cast<int64_t>(report.modules.size())) {
      progress.advance(layers);
      continue;
    }
    const HostTensor weight = quantize(id);
    const LinearPointer original = reference.exchange(id, nullptr);
    reference.exchange(id, reference.backend().prepare_dense(weight.view(), reference.bias_of(id),
                                                             reference.compute()));
    const std::vector<float> hidden = diagnosis.run_from(id.layer, nullptr, nullptr);
    reference.exchange(id, original);
    report.modules.push_back({id, cka.damage(hidden.data()), diagnosis.kl(hidden)});
    progress.advance(layers, fmt::format("{} 1-CKA {:.2e} KL {:.2e}", name_of(id),
                                         report.modules.back().cka, report.modules.back().kl));
    const bool stop = progress.stop_requested();
    if (stop || i % kModulesPerLayer == kModulesPerLayer - 1) save_state(options, report);
    if (stop)
      throw Failure(ErrorCode::kInterrupted,
                    "diagnosis was stopped; the same command goes on from here");
  }
  progress.end();
}

}  // namespace spear
