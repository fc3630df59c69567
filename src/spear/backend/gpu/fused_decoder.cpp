#include "spear/backend/gpu/fused_decoder.h"

#include <algorithm>

#include "spear/base/check.h"

namespace spear {
namespace {

enum Site : int { kAttentionInput, kOutputInput, kMlpInput, kDownInput };

size_t align(size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// The most floats a token's partial sums for one site take, over all layers.
size_t partial_floats(const FusedDecoder& d, Site site, int32_t multiprocessors) {
  size_t most = 0;
  for (const FusedLayer& layer : d.layers) {
    const auto take = [&](const FusedProduct& product, int32_t parts) {
      most = std::max(most, static_cast<size_t>(product.ec.width) * static_cast<size_t>(parts));
    };
    if (site == kAttentionInput) take(layer.qkv, gpu::rows_blocks(layer.down.w, multiprocessors));
    if (site == kOutputInput) take(layer.o, d.kv_heads);
    if (site == kMlpInput) take(layer.gate_up, gpu::rows_blocks(layer.o.w, multiprocessors));
    if (site == kDownInput) take(layer.down, gpu::rows_blocks(layer.gate_up.w, multiprocessors));
  }
  return most;
}

// Walks the buffers of a step; `memory` null: counts only.
class Placer {
 public:
  explicit Placer(void* memory) : memory_(static_cast<std::byte*>(memory)) {}
  template <class T>
  void place(T*& pointer, size_t count) {
    if (memory_ != nullptr) pointer = reinterpret_cast<T*>(memory_ + bytes_);
    bytes_ += align(count * sizeof(T));
  }
  [[nodiscard]] size_t bytes() const { return bytes_; }

 private:
  std::byte* memory_;
  size_t bytes_ = 0;
};

size_t walk(const FusedDecoder& d, int32_t tokens, int32_t multiprocessors, void* memory,
            StepBuffers* out) {
  const auto m = static_cast<size_t>(tokens);
  const auto head_dim = static_cast<size_t>(d.head_dim);
  const auto heads = static_cast<size_t>(d.heads);
  Placer placer(memory);
  placer.place(out->x, m * static_cast<size_t>(d.hidden));
  placer.place(out->qkv, m * (heads + 2 * static_cast<size_t>(d.kv_heads)) * head_dim);
  placer.place(out->attended, m * heads * head_dim);
  placer.place(out->activated, m * static_cast<size_t>(d.intermediate));
  placer.place(out->normed, m * static_cast<size_t>(d.hidden));
  placer.place(out->angles, m * head_dim);
  for (const Site site : {kAttentionInput, kOutputInput, kMlpInput, kDownInput})
    placer.place(out->partials[site], m * partial_floats(d, site, multiprocessors));
  return placer.bytes();
}

// One product for all tokens, as many at a time as a block's memory holds.
void queue_product(gpu::RowsArgs args, int32_t m, int32_t multiprocessors, gpu::Stream stream) {
  const gpu::RowsArgs whole = args;
  const int64_t x_bytes = whole.input == gpu::RowsInput::kHalf ? 2 : 4;
  const int64_t blocks = gpu::rows_blocks(whole.w, multiprocessors);
  for (int32_t first = 0; first < m; first += args.m) {
    args.m = std::min(m - first, gpu::kMaxRowTokens);
    while (args.m > 1 && !gpu::rows_fits(args, multiprocessors)) --args.m;
    args.x = static_cast<const std::byte*>(whole.x) + first * x_bytes * whole.w.k;
    if (whole.y != nullptr) args.y = whole.y + static_cast<int64_t>(first) * whole.w.n;
    if (whole.half_y != nullptr)
      args.half_y = whole.half_y + static_cast<int64_t>(first) * (whole.w.n / 2);
    if (whole.u.partials != nullptr)
      args.u.partials =
          whole.u.partials + static_cast<int64_t>(first) * whole.u.parts * whole.ec.width;
    if (whole.next.partials != nullptr)
      args.next.partials =
          whole.next.partials + static_cast<int64_t>(first) * blocks * whole.next.width;
    gpu::rows(args, multiprocessors, true, stream);
  }
}

gpu::LowRankOutput owed(const FusedProduct* product, const float* norm, float* partials) {
  if (product == nullptr || product->ec.width == 0) return {};
  return {product->ec.width, product->a, norm, partials};
}

}  // namespace

size_t step_buffer_bytes(const FusedDecoder& decoder, int32_t m, int32_t multiprocessors) {
  StepBuffers none;
  return walk(decoder, m, multiprocessors, nullptr, &none);
}

StepBuffers place_step_buffers(const FusedDecoder& decoder, int32_t m, int32_t multiprocessors,
                               void* memory) {
  expects(memory != nullptr);
  StepBuffers out;
  walk(decoder, m, multiprocessors, memory, &out);
  return out;
}

void queue_head(const FusedDecoder& d, const uint16_t* normed, int32_t rows, float* logits,
                int32_t multiprocessors, gpu::Stream stream) {
  queue_product({.w = d.head, .x = normed, .output = gpu::RowsOutput::kStore, .y = logits}, rows,
                multiprocessors, stream);
}

void queue_decode_step(const FusedDecoder& d, const StepBuffers& b, const DecodeStepArgs& args,
                       int32_t multiprocessors, gpu::Stream stream) {
  const int32_t m = args.m;
  const auto count = static_cast<int32_t>(d.layers.size());
  const auto layer_at = [&](int32_t i) {
    return i < count ? &d.layers[static_cast<size_t>(i)] : nullptr;
  };
  const FusedLayer* first = layer_at(0);
  gpu::begin_step(
      {.m = m,
       .tables = args.tables,
       .embedding = d.embedding,
       .rotation = d.rotation,
       .head_dim = d.head_dim,
       .inverse_frequencies = d.inverse_frequencies,
       .x = b.x,
       .angles = b.angles,
       .next = owed(first != nullptr ? &first->qkv : nullptr,
                    first != nullptr ? first->input_norm : nullptr, b.partials[kAttentionInput])},
      stream);
  int32_t parts = 1;  // of the sums of u that await the next product
  for (int32_t l = 0; l < count; ++l) {
    const FusedLayer& layer = *layer_at(l);
    const FusedLayer* after = layer_at(l + 1);
    queue_product({.w = layer.qkv.w,
                   .input = gpu::RowsInput::kNorm,
                   .x = b.x,
                   .norm_weight = layer.input_norm,
                   .eps = d.eps,
                   .output = gpu::RowsOutput::kStore,
                   .bias = layer.qkv.bias,
                   .y = b.qkv,
                   .ec = layer.qkv.ec,
                   .u = {b.partials[kAttentionInput], parts}},
                  m, multiprocessors, stream);
    if (args.attention)
      gpu::decode_attention({.m = m,
                             .heads = d.heads,
                             .kv_heads = d.kv_heads,
                             .head_dim = d.head_dim,
                             .tables = args.tables,
                             .angles = b.angles,
                             .qkv = b.qkv,
                             .q_norm = layer.q_norm,
                             .k_norm = layer.k_norm,
                             .eps = d.eps,
                             .cache = args.cache[l],
                             .y = b.attended,
                             .y_stride = static_cast<int64_t>(d.heads) * d.head_dim,
                             .next = owed(&layer.o, nullptr, b.partials[kOutputInput])},
                            multiprocessors, stream);
    queue_product({.w = layer.o.w,
                   .x = b.attended,
                   .output = gpu::RowsOutput::kResidual,
                   .bias = layer.o.bias,
                   .y = b.x,
                   .ec = layer.o.ec,
                   .u = {b.partials[kOutputInput], d.kv_heads},
                   .next = owed(&layer.gate_up, layer.post_attention_norm, b.partials[kMlpInput])},
                  m, multiprocessors, stream);
    queue_product({.w = layer.gate_up.w,
                   .input = gpu::RowsInput::kNorm,
                   .x = b.x,
                   .norm_weight = layer.post_attention_norm,
                   .eps = d.eps,
                   .output = gpu::RowsOutput::kSilu,
                   .bias = layer.gate_up.bias,
                   .half_y = b.activated,
                   .ec = layer.gate_up.ec,
                   .u = {b.partials[kMlpInput], gpu::rows_blocks(layer.o.w, multiprocessors)},
                   .next = owed(&layer.down, nullptr, b.partials[kDownInput])},
                  m, multiprocessors, stream);
    queue_product(
        {.w = layer.down.w,
         .x = b.activated,
         .input_scale = gpu::kSiluScale,
         .output = gpu::RowsOutput::kResidual,
         .bias = layer.down.bias,
         .y = b.x,
         .ec = layer.down.ec,
         .u = {b.partials[kDownInput], gpu::rows_blocks(layer.gate_up.w, multiprocessors)},
         .next = owed(after != nullptr ? &after->qkv : nullptr,
                      after != nullptr ? after->input_norm : nullptr, b.partials[kAttentionInput])},
        m, multiprocessors, stream);
    parts = gpu::rows_blocks(layer.down.w, multiprocessors);
  }
  if (args.logit_count == 0) return;
  gpu::finish_step({.rows = args.logit_count,
                    .hidden = d.hidden,
                    .row_of = args.logit_rows,
                    .x = b.x,
                    .rotation = d.rotation,
                    .weight = d.final_norm,
                    .eps = d.eps,
                    .normed = args.hidden,
                    .half_y = b.normed},
                   stream);
  if (args.logits != nullptr)
    queue_head(d, b.normed, args.logit_count, args.logits, multiprocessors, stream);
}

size_t matrix_bytes(const gpu::DeviceMatrix& m) {
  const auto tiles = static_cast<size_t>(m.tiles);
  return tiles * static_cast<size_t>(m.units) * static_cast<size_t>(m.unit_bytes) +
         (m.row_scales != nullptr ? tiles * 8 * 4 : 0);
}

size_t product_bytes(const FusedProduct& p) {
  const auto width = static_cast<size_t>(p.ec.width);
  size_t bytes = matrix_bytes(p.w);
  if (width > 0)
    bytes += static_cast<size_t>(p.w.k) * width +
             static_cast<size_t>(p.w.n) * static_cast<size_t>(p.ec.b_stride) +
             static_cast<size_t>(p.ec.gate_halves) * 2 + width * 8;
  if (p.bias != nullptr) bytes += static_cast<size_t>(p.w.n) * 4;
  return bytes;
}

}  // namespace spear
