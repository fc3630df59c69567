#include "spear/backend/cpu/program_memory.h"

#include <algorithm>

namespace spear {
namespace {

size_t rounded(size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

// Per token, the most of each array over all jobs.
struct TokenSizes {
  size_t codes = 0, blocks = 0, segments = 0, ranks = 0, modules = 0;
  void add(const Job& job) {
    const cpu::InputShape& in = job.input;
    const auto digits = static_cast<size_t>(in.digits);
    codes = std::max(codes, digits * static_cast<size_t>(in.columns));
    blocks = std::max(blocks, digits * static_cast<size_t>(cpu::pieces(in.columns, in.block)));
    segments = std::max(segments, static_cast<size_t>(cpu::pieces(in.columns, in.segment)));
    ranks = std::max(ranks, static_cast<size_t>(job.rank_stride));
    modules = std::max(modules, job.modules.size());
  }
};

}  // namespace

bool TokenMemory::reserve(const ProgramLayout& layout, int64_t tokens) {
  if (tokens <= tokens_) return false;
  TokenSizes most;
  for (const LayerJobs& layer : layout.layers())
    for (const Job* job : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) most.add(*job);
  if (layout.head() != nullptr) most.add(*layout.head());
  const auto m = static_cast<size_t>(tokens);
  const size_t sizes[] = {rounded(m * most.codes),
                          rounded(m * most.blocks * 4),
                          rounded(m * most.blocks * 4),
                          rounded(m * most.segments * 4),
                          rounded(m * 4),
                          rounded(m * most.ranks * 2),
                          rounded(m * most.modules * 4)};
  size_t total = 0;
  for (const size_t size : sizes) total += size;
  memory_ = HostBuffer(total);
  tokens_ = tokens;
  auto* at = memory_.as<std::byte>();
  const auto next = [&at](size_t size) {
    std::byte* here = at;
    at += size;
    return here;
  };
  all_.codes = reinterpret_cast<int8_t*>(next(sizes[0]));
  all_.scales = reinterpret_cast<float*>(next(sizes[1]));
  all_.counts = reinterpret_cast<int32_t*>(next(sizes[2]));
  all_.sums = reinterpret_cast<float*>(next(sizes[3]));
  all_.totals = reinterpret_cast<float*>(next(sizes[4]));
  all_.ranks = reinterpret_cast<int16_t*>(next(sizes[5]));
  all_.rank_scales = reinterpret_cast<float*>(next(sizes[6]));
  return true;
}

cpu::QuantizedTokens TokenMemory::of(const Job& job) const {
  cpu::QuantizedTokens tokens = all_;
  tokens.rank_stride = job.rank_stride;
  tokens.modules = static_cast<int32_t>(job.modules.size());
  return tokens;
}

}  // namespace spear
