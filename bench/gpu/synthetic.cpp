#include "synthetic.h"

#include <cmath>
#include <random>
#include <span>

#include <cuda_runtime_api.h>

#include "spear/kernels/gpu/check.h"
#include "spear/kernels/gpu/packed_matrix.h"

namespace spear::bench {
namespace {

uint64_t next_seed() {
  static uint64_t seed = 1;  // every fill differs, every run is the same
  return seed++;
}

// One module's compensator: rank and width of the gate.
struct Ranks {
  int32_t rank = 0, hidden = 0;
};

gpu::DeviceCompensators random_compensators(std::span<const Ranks> modules,
                                            std::span<const int32_t> rows, bool interleaved,
                                            int32_t k, const int8_t** a, Memory& memory) {
  gpu::DeviceCompensators ec;
  int32_t total = 0;
  int32_t widest = 0;
  int32_t first = 0;
  for (size_t i = 0; i < modules.size(); ++i) {
    const auto [rank, hidden] = modules[i];
    ec.module[i] = {interleaved ? static_cast<int32_t>(i) : first, rank, hidden, total,
                    ec.gate_halves};
    if (hidden > 0) ec.gate_halves += 2 * rank * hidden + hidden + rank;
    total += rank;
    widest = std::max(widest, rank);
    first += rows[i];
  }
  if (total == 0) return {};
  ec.modules = static_cast<int32_t>(modules.size());
  ec.interleaved = interleaved;
  ec.width = 8;
  while (ec.width < total) ec.width *= 2;
  ec.b_stride = (widest + 3) / 4 * 4;
  const auto a_bytes = static_cast<size_t>(k) * static_cast<size_t>(ec.width);
  auto* factor = memory.take(a_bytes);
  fill_words(factor, a_bytes, next_seed());
  *a = static_cast<const int8_t*>(factor);
  const auto b_bytes = static_cast<size_t>(first) * static_cast<size_t>(ec.b_stride);
  auto* b = memory.take(b_bytes);
  fill_words(b, b_bytes, next_seed());
  ec.b = static_cast<const int8_t*>(b);
  auto* scales = memory.take_array<float>(static_cast<size_t>(ec.width) * 2);
  fill_floats(scales, ec.width * 2, 1e-3f, next_seed());
  ec.a_scales = scales;
  ec.b_scales = scales + ec.width;
  auto* gate = memory.take_array<uint16_t>(static_cast<size_t>(ec.gate_halves) + 2);
  fill_halves(gate, ec.gate_halves, 0.3f, next_seed());
  ec.gate = gate;
  return ec;
}

}  // namespace

Memory::~Memory() {
  for (void* block : blocks_) (void)cudaFree(block);
}

void* Memory::take(size_t bytes) {
  void* block = nullptr;
  gpu::check(cudaMalloc(&block, std::max<size_t>(bytes, 16)));
  blocks_.push_back(block);
  return block;
}

std::vector<ModelShape> paper_shapes() {
  return {{"1B", 2048, 8192, 16, 32, 8, 64, 128256},
          {"3B", 3072, 8192, 28, 24, 8, 128, 128256},
          {"7B", 4096, 11008, 32, 32, 32, 128, 32000},
          {"13B", 5120, 13824, 40, 40, 40, 128, 32000}};
}

const char* layout_name(EcLayout layout) {
  switch (layout) {
    case EcLayout::kNone:
      return "w4";
    case EcLayout::kRank2:
      return "w4+ec rank 2 on all";
    case EcLayout::kGated16:
      return "w4+ec gated 16 on 38 %";
  }
  return "";
}

gpu::DeviceMatrix random_matrix(int32_t n, int32_t k, int32_t bits, int32_t group, Memory& memory) {
  const gpu::PackedShape shape{n, k, bits, group};
  auto* data = static_cast<unsigned char*>(memory.take(shape.bytes()));
  const float spread = bits == 8 ? 74.0f : 4.6f;  // of codes around their zero point
  const float scale = 1.0f / (spread * std::sqrt(static_cast<float>(k)));
  gpu::DeviceMatrix out{n,    k,      bits, group, shape.tiles(), shape.units(), shape.unit_bytes(),
                        data, nullptr};
  if (bits == 16) {
    fill_halves(data, static_cast<int64_t>(shape.bytes() / 2),
                1.7f / std::sqrt(static_cast<float>(k)), next_seed());
    return out;
  }
  fill_words(data, shape.bytes(), next_seed());
  const float zero = bits == 8 ? 127.5f : 7.5f;
  if (group == 0) {
    auto* pairs = memory.take_array<uint16_t>(static_cast<size_t>(shape.tiles()) * 16);
    fill_pairs(pairs, shape.tiles() * 8, shape.tiles() * 8, 0, scale, zero);
    out.row_scales = pairs;
  } else {
    const int64_t per_unit = 128 / group * 8;
    fill_pairs(data + 512, static_cast<int64_t>(shape.tiles()) * shape.units() * per_unit, per_unit,
               shape.unit_bytes(), scale, zero);
  }
  return out;
}

FusedDecoder random_decoder(const ModelShape& shape, int32_t group, EcLayout layout,
                            int32_t head_bits, Memory& memory) {
  FusedDecoder d;
  d.hidden = shape.hidden;
  d.intermediate = shape.intermediate;
  d.vocab = shape.vocab;
  d.heads = shape.heads;
  d.kv_heads = shape.kv_heads;
  d.head_dim = shape.head_dim;
  d.eps = 1e-5f;
  std::mt19937_64 random(20240607);
  const auto ranks = [&]() -> Ranks {
    if (layout == EcLayout::kRank2) return {2, 0};
    if (layout == EcLayout::kGated16 && random() % 100 < 38) return {16, 64};
    return {};
  };
  const auto product = [&](std::vector<int32_t> rows, int32_t k, bool interleaved) {
    FusedProduct p;
    int32_t n = 0;
    std::vector<Ranks> modules;
    for (const int32_t r : rows) {
      n += r;
      modules.push_back(ranks());
    }
    p.w = random_matrix(n, k, 4, group, memory);
    p.ec = random_compensators(modules, rows, interleaved, k, &p.a, memory);
    return p;
  };
  const int32_t q = shape.heads * shape.head_dim;
  const int32_t kv = shape.kv_heads * shape.head_dim;
  for (int32_t l = 0; l < shape.layers; ++l) {
    FusedLayer& layer = d.layers.emplace_back();
    layer.qkv = product({q, kv, kv}, shape.hidden, false);
    layer.o = product({shape.hidden}, q, false);
    layer.gate_up = product({shape.intermediate, shape.intermediate}, shape.hidden, true);
    layer.down = product({shape.hidden}, shape.intermediate, false);
  }
  d.head = random_matrix(shape.vocab, shape.hidden, head_bits, 0, memory);
  // 4 bits in groups of 32, as compress stores an embedding that is not the head.
  const auto vocab = static_cast<size_t>(shape.vocab);
  const auto hidden = static_cast<size_t>(shape.hidden);
  auto* codes = memory.take(vocab * hidden / 2);
  fill_words(codes, vocab * hidden / 2, next_seed());
  auto* scales = memory.take_array<uint16_t>(vocab * hidden / 32);
  fill_halves(scales, static_cast<int64_t>(vocab * hidden / 32), 0.01f, next_seed());
  d.embedding = {.n = shape.vocab,
                 .k = shape.hidden,
                 .bits = 4,
                 .group = 32,
                 .zero_kind = ZeroKind::kNone,
                 .codes = static_cast<const uint8_t*>(codes),
                 .scales = scales,
                 .zeros = nullptr};
  std::vector<float> frequencies;
  for (int32_t j = 0; j < shape.head_dim / 2; ++j)
    frequencies.push_back(
        std::pow(10000.0f, -2.0f * static_cast<float>(j) / static_cast<float>(shape.head_dim)));
  auto* device = memory.take_array<float>(frequencies.size());
  gpu::check(cudaMemcpy(device, frequencies.data(), frequencies.size() * sizeof(float),
                        cudaMemcpyHostToDevice));
  d.inverse_frequencies = device;
  return d;
}

}  // namespace spear::bench
