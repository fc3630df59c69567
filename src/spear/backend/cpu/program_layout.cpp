#include "spear/backend/cpu/program_layout.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>

#include <sys/mman.h>

#include "spear/base/check.h"
#include "spear/base/dtype.h"
#include "spear/kernels/cpu/packed/widen_gate.h"

namespace spear {
namespace {

constexpr size_t kReadAhead = 8192;  // bytes that kernels may ask for beyond a stream's end
constexpr size_t kHugePage = size_t{2} << 20;

// How the inputs of a job are rounded when activations have 8 bits; block 0: one scale a token.
struct Rounding {
  int32_t digits = 1;
  int32_t block = 0;
};
// Measured on SmolLM2-135M, rotated, KL 0.1074 nats exact (docs/kernels.md): the residual stream is
// flat; attention's output is flat within a head; SiLU's output and the un-rotated input of the
// head have outliers, which a scale for every 64 columns keeps to themselves.
constexpr Rounding kFlattened{};
constexpr Rounding kOutputInput{.block = 64};
constexpr Rounding kDownInput{.block = 64};
constexpr Rounding kHeadInput{.block = 64};
constexpr Rounding kExactInput{.digits = 2, .block = 64};

cpu::InputShape input_shape(const Job& job, Rounding rounding, Activations activations) {
  cpu::InputShape in;
  in.k = job.parts[0].packed.k;
  in.columns = rank_columns(in.k);
  if (activations == Activations::kExact) rounding = kExactInput;
  in.digits = rounding.digits;
  in.block = rounding.block != 0 ? rounding.block : in.columns;
  for (const JobPart& part : job.parts) {
    const int32_t group = part.packed.group;
    if (part.packed.per_channel) continue;
    if (in.block % group != 0 && group % in.block != 0) in.block = in.columns;
    in.segment = std::gcd(in.segment, group);
  }
  if (in.segment != 0 && in.block < in.columns) in.segment = std::gcd(in.segment, in.block);
  return in;
}

int32_t add_module(Job& job, const CompensatorView& ec) {
  JobModule& module = job.modules.emplace_back();
  module.rank = ec.rank;
  module.row = job.rank_rows;
  module.rank_offset = job.rank_stride;
  job.rank_rows += ec.rank;
  job.rank_stride += (ec.rank + 1) / 2 * 2;
  for (int32_t r = 0; r < ec.rank; ++r) {
    job.a_scales.push_back(float_from_f16(ec.a_scales[r]));
    module.b_scales.push_back(float_from_f16(ec.b_scales[r]));
  }
  module.b_scales.resize(static_cast<size_t>(cpu::padded_gate(ec.rank)), 0.0f);
  module.gate = cpu::widen_gate(ec, module.gate_memory);
  return static_cast<int32_t>(job.modules.size()) - 1;
}

void add_part(Job& job, std::vector<LinearSource> sources, int64_t column = 0, bool apart = false) {
  JobPart part;
  part.packed = plan_part(sources);
  part.column = column;
  part.apart = apart;
  part.module[0] = add_module(job, sources[0].ec);
  part.module[1] = sources.size() == 2 ? add_module(job, sources[1].ec) : part.module[0];
  part.sources = std::move(sources);
  job.parts.push_back(std::move(part));
}

LinearSource source_of(const ProgramLinear& linear) {
  return {linear.weight, linear.ec, linear.bias};
}

// The sentence of the first module that does not fit, or nothing.
std::string what_does_not_fit(const DecoderSpec& spec) {
  for (size_t l = 0; l < spec.layers.size(); ++l) {
    const ProgramLayer& layer = spec.layers[l];
    const std::pair<const char*, const ProgramLinear*> modules[] = {
        {"q", &layer.q}, {"k", &layer.k}, {"v", &layer.v}, {"o", &layer.o}, {"down", &layer.down}};
    const auto sentence = [&](const char* name, const std::string& why) {
      return "layer " + std::to_string(l) + ", " + name + ": " + why;
    };
    for (const auto& [name, linear] : modules)
      if (const std::string why = why_not_packed(source_of(*linear)); !why.empty())
        return sentence(name, why);
    const std::string why = why_not_paired(source_of(layer.gate), source_of(layer.up));
    if (!why.empty()) return sentence("gate and up", why);
  }
  if (spec.head.bits == 16) return {};  // runs as dense rows
  const std::string why = why_not_packed({spec.head, {}, nullptr});
  return why.empty() ? why : "head: " + why;
}

LayerJobs layer_jobs(const DecoderSpec& spec, const ProgramLayer& layer, Activations activations) {
  LayerJobs jobs;
  const int64_t kv = spec.kv_heads * spec.head_dim;
  add_part(jobs.qkv, {source_of(layer.q)});
  add_part(jobs.qkv, {source_of(layer.k)}, 0, true);
  add_part(jobs.qkv, {source_of(layer.v)}, kv, true);
  jobs.qkv.normalize = true;
  jobs.qkv.norm = layer.input_norm;
  jobs.qkv.input = input_shape(jobs.qkv, kFlattened, activations);
  add_part(jobs.o, {source_of(layer.o)});
  jobs.o.epilogue = cpu::Epilogue::kAdd;
  jobs.o.input = input_shape(jobs.o, kOutputInput, activations);
  add_part(jobs.gate_up, {source_of(layer.gate), source_of(layer.up)});
  jobs.gate_up.epilogue = cpu::Epilogue::kSiluMul;
  jobs.gate_up.normalize = true;
  jobs.gate_up.norm = layer.post_attention_norm;
  jobs.gate_up.input = input_shape(jobs.gate_up, kFlattened, activations);
  add_part(jobs.down, {source_of(layer.down)});
  jobs.down.epilogue = cpu::Epilogue::kAdd;
  jobs.down.input = input_shape(jobs.down, kDownInput, activations);
  return jobs;
}

// Gives every shard its rows of A and its panels, by bytes; addresses are set later.
void cut(Job& job, int shards) {
  int64_t total = 0;
  for (const JobPart& part : job.parts) total += part.packed.panels * part.packed.panel_bytes;
  job.shards.resize(static_cast<size_t>(shards));
  size_t part = 0;
  int64_t panel = 0;
  int64_t given = 0;
  for (int s = 0; s < shards; ++s) {
    JobShard& shard = job.shards[static_cast<size_t>(s)];
    shard.first_rank = job.rank_rows * s / shards;
    shard.rank_count = job.rank_rows * (s + 1) / shards - shard.first_rank;
    const int64_t until = total * (s + 1) / shards;
    while (part < job.parts.size()) {
      const PackedPart& packed = job.parts[part].packed;
      // As many as bring the sum nearest to this shard's end.
      const int64_t wanted = s + 1 == shards
                                 ? packed.panels
                                 : (until - given + packed.panel_bytes / 2) / packed.panel_bytes;
      const int64_t count = std::clamp<int64_t>(wanted, 0, packed.panels - panel);
      if (count > 0) shard.ranges.push_back({part, panel, count, nullptr});
      given += count * packed.panel_bytes;
      panel += count;
      if (panel < packed.panels) break;
      ++part;
      panel = 0;
    }
  }
}

size_t shard_bytes(const Job& job, const JobShard& shard) {
  size_t bytes = shard.rank_count == 0 ? 0 : packed_rank_bytes(shard.rank_count, job.input.k);
  for (const PanelRange& range : shard.ranges)
    bytes += static_cast<size_t>(range.count * job.parts[range.part].packed.panel_bytes);
  return bytes;
}

std::vector<RankRow> rank_rows_of(const Job& job, const JobShard& shard) {
  std::vector<RankRow> rows;
  for (const JobPart& part : job.parts)
    for (const LinearSource& source : part.sources)
      for (int32_t r = 0; r < source.ec.rank; ++r) rows.push_back({&source.ec, r});
  return {rows.begin() + shard.first_rank, rows.begin() + shard.first_rank + shard.rank_count};
}

uint8_t* pack_job(Job& job, JobShard& shard, uint8_t* at) {
  if (shard.rank_count > 0) {
    pack_ranks(rank_rows_of(job, shard), job.input.k, at);
    shard.ranks = at;
    at += packed_rank_bytes(shard.rank_count, job.input.k);
  }
  for (PanelRange& range : shard.ranges) {
    const JobPart& part = job.parts[range.part];
    range.stream = at;
    for (int64_t p = 0; p < range.count; ++p, at += part.packed.panel_bytes)
      pack_panel(part.packed, part.sources, range.first + p, at);
  }
  shard.end = at;
  return at;
}

}  // namespace

void ProgramLayout::Release::operator()(uint8_t* bytes) const {
  std::free(bytes);
}

// Each thread fills the stream that it will read.
void ProgramLayout::pack(ThreadPool& pool) {
  const auto shards = static_cast<size_t>(pool.size());
  each_job([&](Job& job) { cut(job, pool.size()); });
  std::vector<size_t> sizes(shards, 0);
  each_job([&](Job& job) {
    for (size_t s = 0; s < shards; ++s) sizes[s] += shard_bytes(job, job.shards[s]);
  });
  for (const size_t size : sizes) {
    bytes_ += size;
    const size_t alignment = size >= kHugePage ? kHugePage : 4096;
    const size_t whole = (size + kReadAhead + alignment - 1) / alignment * alignment;
    auto* bytes = static_cast<uint8_t*>(std::aligned_alloc(alignment, whole));
    if (bytes == nullptr) throw std::bad_alloc();
    shards_.emplace_back(bytes);
    // The stream would else miss the address cache every 4 KiB; refusal costs nothing but speed.
    if (alignment == kHugePage) (void)madvise(bytes, whole, MADV_HUGEPAGE);
  }
  pool.run_team([&](int index, int) {
    const auto s = static_cast<size_t>(index);
    uint8_t* at = shards_[s].get();
    each_job([&](Job& job) { at = pack_job(job, job.shards[s], at); });
    std::memset(at, 0, kReadAhead);
  });
}

std::unique_ptr<ProgramLayout> ProgramLayout::build(const DecoderSpec& spec,
                                                    Activations activations, ThreadPool& pool,
                                                    std::string* why) {
  if (std::string reason = what_does_not_fit(spec); !reason.empty()) {
    if (why != nullptr) *why = std::move(reason);
    return nullptr;
  }
  std::unique_ptr<ProgramLayout> layout(new ProgramLayout());
  for (const ProgramLayer& layer : spec.layers)
    layout->layers_.push_back(layer_jobs(spec, layer, activations));
  if (spec.head.bits != 16) {
    add_part(layout->head_, {{spec.head, {}, nullptr}});
    layout->head_.input = input_shape(layout->head_, kHeadInput, activations);
  }
  layout->pack(pool);
  return layout;
}

}  // namespace spear
