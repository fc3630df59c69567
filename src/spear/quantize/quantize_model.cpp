#include "spear/quantize/quantize_model.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

#include "spear/base/check.h"
#include "spear/quantize/rtn.h"

namespace spear {
namespace {

template <size_t N>
bool one_of(int32_t value, const std::array<int32_t, N>& allowed) {
  return std::find(allowed.begin(), allowed.end(), value) != allowed.end();
}

constexpr std::array<int32_t, 4> kLinearBits = {2, 3, 4, 8};
constexpr std::array<int32_t, 5> kGroups = {0, 32, 64, 128, 256};
constexpr std::array<int32_t, 4> kTableBits = {4, 6, 8, 16};
constexpr int64_t kTableGroup = 32;   // of 4-bit tables
constexpr int64_t kTableRows = 4096;  // rows of a table that are F32 at one time

HostTensor as_f16(std::span<const float> values) {
  if (values.empty()) return {};
  HostTensor out({static_cast<int64_t>(values.size())}, DType::kF16);
  std::transform(values.begin(), values.end(), out.as<uint16_t>().begin(), f16_from_float);
  return out;
}

std::vector<float> diagonal_of(const HostTensor& covariance) {
  const int64_t k = covariance.shape()[0];
  std::vector<float> diagonal(static_cast<size_t>(k));
  for (int64_t i = 0; i < k; ++i)
    diagonal[static_cast<size_t>(i)] = covariance.as<float>()[static_cast<size_t>(i * k + i)];
  return diagonal;
}

void check_finite(std::span<const float> values, const std::string& where) {
  if (std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); }))
    return;
  throw Failure(ErrorCode::kBadFile,
                where + ".weight: holds a value that is not finite; the model file is damaged");
}

class Quantization {
 public:
  Quantization(const DenseModel& model, const Covariances* covariances,
               const QuantizeOptions& options, ThreadPool& pool, const ModuleVisitor& visitor)
      : model_(model),
        covariances_(covariances),
        options_(options),
        pool_(pool),
        visitor_(visitor) {
    if (options.rotate) rotation_ = make_rotation(model.config, options.seed);
  }

  QuantizedLayer layer(int32_t index) {
    const DenseLayer& from = model_.layers[static_cast<size_t>(index)];
    QuantizedLayer layer;
    if (!rotation_) {
      layer.input_norm = from.input_norm.clone();
      layer.post_attention_norm = from.post_attention_norm.clone();
    }
    layer.q_norm = from.q_norm.clone();
    layer.k_norm = from.k_norm.clone();
    for (int site = 0; site < kSitesPerLayer; ++site)
      read_site(index, static_cast<InputSite>(site), layer);
    return layer;
  }
  [[nodiscard]] std::optional<Rotation> take_rotation() { return std::move(rotation_); }

 private:
  // The modules that read one input share its covariance and GPTQ factor.
  void read_site(int32_t index, InputSite site, QuantizedLayer& layer) {
    HostTensor covariance;
    std::optional<GptqFactor> factor;
    std::vector<float> importance;
    if (covariances_ != nullptr) {
      covariance = covariances_->load(index, site);
      if (rotation_) rotate_covariance(model_, index, site, *rotation_, pool_, covariance);
      importance = diagonal_of(covariance);
    }
    for (const Module module : kModules) {
      if (input_site(module) != site) continue;
      const ModuleId id{index, module};
      if (options_.method == QuantizeMethod::kGptq && !factor)
        factor = make_gptq_factor(covariance.as<float>().data(), covariance.shape()[0],
                                  options_.damping, options_.activation_order, name_of(id));
      layer.linear(module) = linear(id, covariance, factor ? &*factor : nullptr, importance);
    }
  }

  QuantizedLinear linear(const ModuleId& id, const HostTensor& covariance, const GptqFactor* factor,
                         const std::vector<float>& importance) {
    const WorkingLinear working =
        working_linear(model_, id, rotation_ ? &*rotation_ : nullptr, pool_);
    check_finite(working.weight.as<float>(), name_of(id));
    const float* weight = working.weight.as<float>().data();
    const int64_t n = working.weight.shape()[0], k = working.weight.shape()[1];
    const GridOptions grid = options_.grid();
    ModuleWork work{
        id,
        working.weight,
        covariance.empty() ? nullptr : &covariance,
        factor,
        factor != nullptr
            ? gptq(weight, n, *factor, grid, pool_)
            : rtn(weight, n, k, grid, importance.empty() ? nullptr : importance.data(), pool_),
        stored_zero_kind(grid),
        {}};
    if (visitor_) visitor_(work);
    return {pack(work.quantized, work.zero_kind), std::move(work.compensator),
            as_f16(working.bias)};
  }

  const DenseModel& model_;
  const Covariances* covariances_;
  const QuantizeOptions& options_;
  ThreadPool& pool_;
  const ModuleVisitor& visitor_;
  std::optional<Rotation> rotation_;
};

}  // namespace

Result<void> validate(const QuantizeOptions& options, const ModelConfig& config) {
  if (!one_of(options.bits, kLinearBits))
    return fail(ErrorCode::kUsage,
                fmt::format("bits: {} asked for the linears; choose 2, 3, 4 or 8", options.bits));
  if (!one_of(options.group, kGroups))
    return fail(ErrorCode::kUsage,
                fmt::format("group: {} asked for; choose 32, 64, 128, 256, or 0 for one scale per "
                            "output channel",
                            options.group));
  for (const int32_t bits : {options.head_bits, options.embedding_bits})
    if (bits != 0 && !one_of(bits, kTableBits))
      return fail(ErrorCode::kUsage,
                  fmt::format("embedding and head: {} bits asked for; choose 4, 6, 8 or 16", bits));
  if (!(options.damping >= 0 && options.damping <= 1))
    return fail(
        ErrorCode::kUsage,
        fmt::format("damping: {} asked for; choose a share between 0 and 1", options.damping));
  if (options.group == 0) return {};
  for (const Module module : kModules)
    if (in_features(config, module) % options.group != 0)
      return fail(
          ErrorCode::kUnsupported,
          fmt::format("{}: its {} inputs do not divide into groups of {}; choose another group "
                      "size, or 0 for one scale per output channel",
                      name_of({0, module}), in_features(config, module), options.group));
  return {};
}

QuantizedMatrix quantize_table(const HostTensor& table, int32_t bits, ThreadPool& pool) {
  if (bits == 16) return keep_bf16(table.view());
  const int64_t rows = table.shape()[0], k = table.shape()[1];
  GridOptions grid{.bits = bits, .symmetric = bits > 4, .search = bits <= 4};
  if (bits == 4 && k % kTableGroup == 0) grid.group = kTableGroup;
  UnpackedMatrix whole;
  std::vector<float> slab(static_cast<size_t>(std::min(rows, kTableRows) * k));
  for (int64_t first = 0; first < rows; first += kTableRows) {
    const int64_t count = std::min(kTableRows, rows - first);
    for (int64_t i = 0; i < count * k; ++i) {
      const auto at = static_cast<size_t>(first * k + i);
      slab[static_cast<size_t>(i)] = table.dtype() == DType::kBF16
                                         ? float_from_bf16(table.as<uint16_t>()[at])
                                         : table.as<float>()[at];
    }
    check_finite(std::span(slab).first(static_cast<size_t>(count * k)), "embedding or head");
    UnpackedMatrix part = rtn(slab.data(), count, k, grid, nullptr, pool);
    if (first == 0) {
      whole = std::move(part);
      whole.codes.reserve(static_cast<size_t>(rows * k));
      continue;
    }
    whole.codes.insert(whole.codes.end(), part.codes.begin(), part.codes.end());
    whole.scales.insert(whole.scales.end(), part.scales.begin(), part.scales.end());
    whole.zeros.insert(whole.zeros.end(), part.zeros.begin(), part.zeros.end());
  }
  whole.n = static_cast<int32_t>(rows);
  return pack(whole, stored_zero_kind(grid));
}

QuantizedModel quantize_model(const DenseModel& model, const Covariances* covariances,
                              const QuantizeOptions& options, ThreadPool& pool, Progress& progress,
                              const ModuleVisitor& visitor) {
  value_or_throw(validate(options, model.config));
  expects(options.method == QuantizeMethod::kRtn || covariances != nullptr);
  const auto layers = static_cast<int32_t>(model.layers.size());
  progress.begin("quantize", layers + 1);
  QuantizedModel out;
  out.config = model.config;
  Quantization quantization(model, covariances, options, pool, visitor);
  for (int32_t layer = 0; layer < layers; ++layer) {
    if (progress.stop_requested())
      throw Failure(ErrorCode::kInterrupted, "stopped while quantizing; nothing was written");
    out.layers.push_back(quantization.layer(layer));
    progress.advance(1);
  }
  const bool tied = model.head.empty();
  const int32_t embedding_bits = options.embedding_bits != 0 ? options.embedding_bits
                                 : tied                      ? 8
                                                             : 4;
  out.embedding = quantize_table(model.embedding, embedding_bits, pool);
  if (!tied) out.head = quantize_table(model.head, options.head_bits, pool);
  out.final_norm = model.final_norm.clone();
  if (std::optional<Rotation> rotation = quantization.take_rotation())
    out.rotation = std::move(rotation->residual);
  progress.advance(1);
  progress.end();
  return out;
}

}  // namespace spear
