#include "spear/backend/gpu/program_weights.h"

#include <cuda_runtime_api.h>

#include <fmt/format.h>

#include "spear/base/check.h"
#include "spear/base/error.h"
#include "spear/kernels/gpu/check.h"
#include "spear/kernels/gpu/packed_matrix.h"

namespace spear {
namespace {

bool refuse(std::string* why, std::string text) {
  if (why != nullptr) *why = std::move(text);
  return false;
}

// Device bytes a matrix will take, close enough to refuse a model that cannot fit.
size_t estimate(const QuantizedView& w) {
  const size_t wide = w.bits <= 4 ? 1 : w.bits <= 8 ? 2 : 4;
  return (static_cast<size_t>(w.n) * static_cast<size_t>(w.k) * wide + 1) / 2 + w.scale_count() * 4;
}

void require_memory(const DecoderSpec& spec) {
  size_t wanted = estimate(spec.embedding) + estimate(spec.head);
  for (const ProgramLayer& l : spec.layers)
    for (const ProgramLinear* p : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down})
      wanted += estimate(p->weight);
  size_t free = 0;
  size_t total = 0;
  gpu::check(cudaMemGetInfo(&free, &total));
  if (wanted > free)
    throw Failure(ErrorCode::kUnsupported,
                  fmt::format("the model's weights take {} MiB of GPU memory and {} MiB of {} MiB "
                              "are free; free some of it, or use --device cpu",
                              wanted >> 20, free >> 20, total >> 20));
}

}  // namespace

template <class T>
const T* ProgramWeights::put(const T* host, size_t count) {
  if (host == nullptr || count == 0) return nullptr;
  DeviceBuffer buffer = backend_->allocate(count * sizeof(T) + 16);  // tables are read in words
  backend_->upload(buffer.as<void>(), host, count * sizeof(T));
  bytes_ += buffer.bytes();
  const T* device = buffer.as<T>();
  buffers_.push_back(std::move(buffer));
  return device;
}

bool ProgramWeights::product(std::vector<const ProgramLinear*> parts, bool interleaved,
                             const std::string& name, FusedProduct* out, std::string* why) {
  const auto order = interleaved ? gpu::RowOrder::kInterleaved : gpu::RowOrder::kStacked;
  std::vector<QuantizedView> views;
  std::vector<CompensatorView> ecs;
  std::vector<float> bias;
  bool biased = false;
  for (const ProgramLinear* part : parts) {
    if (part->weight.k % 8 != 0)
      return refuse(why,
                    fmt::format("{} has {} inputs, not a multiple of 8", name, part->weight.k));
    views.push_back(part->weight);
    ecs.push_back(part->ec);
    biased |= part->bias != nullptr;
  }
  const gpu::PackedMatrix packed = gpu::pack_matrices(views, order);
  gpu::PackedCompensators ec;
  if (!gpu::pack_compensators(ecs, views, order, &ec))
    return refuse(why, fmt::format("{} has F16 factors, or ranks that sum to more than 512", name));
  expanded_ += packed.expanded ? 1 : 0;
  const gpu::PackedShape& shape = packed.shape;
  out->w = {.n = shape.n,
            .k = shape.k,
            .bits = shape.bits,
            .group = shape.group,
            .tiles = shape.tiles(),
            .units = shape.units(),
            .unit_bytes = shape.unit_bytes(),
            .data = put(packed.units),
            .row_scales = put(packed.row_scales)};
  if (biased) {
    bias.assign(static_cast<size_t>(shape.n), 0.0f);
    size_t row = 0;
    for (size_t p = 0; p < parts.size(); ++p)
      for (int32_t i = 0; i < views[p].n; ++i, ++row)
        if (parts[p]->bias != nullptr)
          bias[interleaved ? 2 * static_cast<size_t>(i) + p : row] = parts[p]->bias[i];
    out->bias = put(bias);
  }
  if (ec.width == 0) {
    backend_->synchronize();  // the packed copies go away
    return true;
  }
  out->ec.width = ec.width;
  out->ec.b_stride = ec.b_stride;
  out->ec.modules = static_cast<int32_t>(ec.modules.size());
  out->ec.interleaved = interleaved;
  for (size_t i = 0; i < ec.modules.size(); ++i) {
    const gpu::PackedModule& m = ec.modules[i];
    out->ec.module[i] = {m.first_row, m.rank, m.hidden, m.offset, m.gate};
  }
  out->ec.b = put(ec.b);
  out->ec.a_scales = put(ec.a_scales);
  out->ec.b_scales = put(ec.b_scales);
  out->ec.gate_halves = static_cast<int32_t>(ec.gate.size());
  out->ec.gate = put(ec.gate);
  out->a = put(ec.a);
  backend_->synchronize();
  return true;
}

bool ProgramWeights::load(const DecoderSpec& spec, Backend& backend, std::string* why) {
  backend_ = &backend;
  if (!gpu::decode_attention_supports(static_cast<int32_t>(spec.heads),
                                      static_cast<int32_t>(spec.kv_heads),
                                      static_cast<int32_t>(spec.head_dim)))
    return refuse(why, fmt::format("heads of {} with {} query heads for {} of keys: the fused "
                                   "attention knows 64 and 128, and up to 8 for one",
                                   spec.head_dim, spec.heads, spec.kv_heads));
  require_memory(spec);
  FusedDecoder& d = decoder_;
  d.hidden = static_cast<int32_t>(spec.hidden);
  d.intermediate = static_cast<int32_t>(spec.intermediate);
  d.vocab = static_cast<int32_t>(spec.vocab);
  d.heads = static_cast<int32_t>(spec.heads);
  d.kv_heads = static_cast<int32_t>(spec.kv_heads);
  d.head_dim = static_cast<int32_t>(spec.head_dim);
  d.eps = spec.norm_eps;
  const auto hidden = static_cast<size_t>(spec.hidden);
  const auto head_dim = static_cast<size_t>(spec.head_dim);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const ProgramLayer& from = spec.layers[i];
    FusedLayer& layer = d.layers.emplace_back();
    const auto name = [&](const char* module) { return fmt::format("layer {}, {}", i, module); };
    if (!product({&from.q, &from.k, &from.v}, false, name("q, k, v"), &layer.qkv, why) ||
        !product({&from.o}, false, name("o"), &layer.o, why) ||
        !product({&from.gate, &from.up}, true, name("gate, up"), &layer.gate_up, why) ||
        !product({&from.down}, false, name("down"), &layer.down, why))
      return false;
    layer.input_norm = put(from.input_norm, hidden);
    layer.post_attention_norm = put(from.post_attention_norm, hidden);
    layer.q_norm = put(from.q_norm, head_dim);
    layer.k_norm = put(from.k_norm, head_dim);
  }
  d.embedding = spec.embedding;
  d.embedding.codes = put(spec.embedding.codes, spec.embedding.code_bytes());
  d.embedding.scales = put(spec.embedding.scales, spec.embedding.scale_count());
  d.embedding.zeros = put(static_cast<const uint8_t*>(spec.embedding.zeros),
                          spec.embedding.zeros == nullptr ? 0 : spec.embedding.zero_bytes());
  const ProgramLinear head{.weight = spec.head, .ec = {}, .bias = nullptr};
  FusedProduct packed_head;
  if (!product({&head}, false, "head", &packed_head, why)) return false;
  d.head = packed_head.w;
  d.final_norm = put(spec.final_norm, hidden);
  d.inverse_frequencies = put(spec.inverse_frequencies, head_dim / 2);
  d.rotation = spec.rotation;
  if (spec.rotation.n > 0) {
    d.rotation.signs_in = put(spec.rotation.signs_in, hidden);
    d.rotation.signs_out = put(spec.rotation.signs_out, hidden);
    d.rotation.factor =
        put(spec.rotation.factor, static_cast<size_t>(spec.rotation.p * spec.rotation.p));
  }
  backend.synchronize();
  return true;
}

}  // namespace spear
