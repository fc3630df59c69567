#include "spear/backend/cpu/program_linear.h"

#include <algorithm>
#include <cstring>

namespace spear {
namespace {

// Bytes of the next job that are asked for before the barrier, so that memory stays busy across it.
constexpr int64_t kAcrossBarrier = 4096;

void ask_for(const uint8_t* bytes) {
  for (int64_t i = 0; i < kAcrossBarrier; i += 64) __builtin_prefetch(bytes + i, 0, 2);
}

cpu::QuantizeArgs quantize_args(const Job& job, const JobRows& rows,
                                const cpu::QuantizedTokens& to) {
  return {.shape = job.input,
          .x = rows.x,
          .x_stride = rows.x_stride,
          .normalize = job.normalize,
          .weight = job.norm,
          .eps = rows.eps,
          .to = to};
}

// u [tokens, rank_rows] of tokens [begin, end), gated and rounded, for every module.
void finish_ranks(const TeamMember& me, const Job& job, const cpu::QuantizedTokens& tokens,
                  const float* u, int64_t begin, int64_t end) {
  for (size_t i = 0; i < job.modules.size(); ++i) {
    const JobModule& module = job.modules[i];
    if (module.rank == 0) continue;
    me.kernels->finish_ranks({.gate = module.gate,
                              .rank = module.rank,
                              .b_scales = module.b_scales.data(),
                              .u = u + module.row,
                              .u_stride = job.rank_rows,
                              .out = tokens.ranks + module.rank_offset,
                              .out_stride = tokens.rank_stride,
                              .scales = tokens.rank_scales + i,
                              .scale_stride = tokens.modules},
                             begin, end);
  }
}

void run_ranges(const TeamMember& me, const Job& job, const JobShard& shard, cpu::PanelWork& work,
                const JobRows& rows, int64_t begin, int64_t end) {
  for (const PanelRange& range : shard.ranges) {
    const JobPart& part = job.parts[range.part];
    work.part = part.packed;
    if (!rows.compensated) work.part.ranks[0] = work.part.ranks[1] = 0;
    for (int half = 0; half < 2; ++half) {
      work.module[half] = part.module[half];
      work.rank_offset[half] = job.modules[static_cast<size_t>(part.module[half])].rank_offset;
    }
    work.y = (part.apart ? rows.y2 : rows.y) + part.column;
    work.y_stride = part.apart ? rows.y2_stride : rows.y_stride;
    me.kernels->panels(work, range.stream, range.first, range.count, begin, end);
    work.ready = nullptr;
  }
}

bool is_bare(const JobRows& rows, int64_t token) {
  return rows.bare != nullptr && rows.bare[token] != 0;
}

cpu::PanelWork panel_work(const Job& job, const cpu::QuantizedTokens& tokens) {
  cpu::PanelWork work;
  work.input = job.input;
  work.tokens = tokens;
  work.epilogue = job.epilogue;
  return work;
}

// Waits for the other threads' shares of A x, after the first panel's sums.
struct WaitForRanks {
  const TeamMember* me;
  const Job* job;
  const cpu::QuantizedTokens* tokens;
  int64_t m;

  static void call(void* context) {
    const auto* self = static_cast<const WaitForRanks*>(context);
    self->me->signals->wait_for_all(*self->me->signal);
    finish_ranks(*self->me, *self->job, *self->tokens, self->me->shared->u.as<float>(), 0, self->m);
  }
};

// Of a bare row A x is zero: then nothing is added to its outputs.
void project_shard(const TeamMember& me, const Job& job, const JobShard& shard,
                   const cpu::QuantizedTokens& tokens, int64_t token, float* u, bool bare) {
  if (shard.rank_count == 0) return;
  if (bare) {
    std::fill_n(u + shard.first_rank, shard.rank_count, 0.0f);
    return;
  }
  me.kernels->project(job.input, tokens, token, shard.ranks, shard.rank_count,
                      u + shard.first_rank);
}

}  // namespace

void run_shared(const TeamMember& me, const Job& job, const JobRows& rows, int64_t m) {
  const JobShard& shard = job.shards[static_cast<size_t>(me.index)];
  const bool for_each = m <= kTokensForEach;
  const cpu::QuantizedTokens tokens = (for_each ? me.own->tokens : me.shared->tokens).of(job);
  const cpu::QuantizeArgs quantize = quantize_args(job, rows, tokens);
  cpu::PanelWork work = panel_work(job, tokens);
  auto* u = me.shared->u.as<float>();
  WaitForRanks wait{&me, &job, &tokens, m};
  const bool ranks = job.rank_rows > 0 && rows.compensated;
  if (for_each) {
    me.kernels->quantize(quantize, 0, m);
    if (ranks) {
      for (int64_t token = 0; token < m; ++token)
        project_shard(me, job, shard, tokens, token, u + token * job.rank_rows,
                      is_bare(rows, token));
      me.signals->raise(me.index, ++*me.signal);
      work.ready = WaitForRanks::call;
      work.context = &wait;
    }
  } else {
    const int64_t begin = m * me.index / me.size;
    const int64_t end = m * (me.index + 1) / me.size;
    me.kernels->quantize(quantize, begin, end);
    for (int64_t token = begin; ranks && token < end; ++token) {
      float* own = u + token * job.rank_rows;
      for (const JobShard& each : job.shards)
        project_shard(me, job, each, tokens, token, own, is_bare(rows, token));
    }
    if (job.rank_rows > 0) finish_ranks(me, job, tokens, u, begin, end);
    me.barrier->wait();
  }
  run_ranges(me, job, shard, work, rows, 0, m);
  ask_for(shard.end);
}

size_t rank_panels_bytes(const Job& job) {
  return static_cast<size_t>(cpu::rank_panel_bytes(job.rank_rows, job.input.columns));
}

void widen_ranks(const TeamMember& me, const Job& job, uint8_t* panels) {
  std::memset(panels, 128, rank_panels_bytes(job));
  for (const JobShard& shard : job.shards)
    if (shard.rank_count > 0)
      me.kernels->widen_ranks(shard.ranks, shard.rank_count, job.input.columns, shard.first_rank,
                              panels);
}

void run_own(const TeamMember& me, const Job& job, const JobRows& rows, int64_t count,
             const uint8_t* rank_panels) {
  const cpu::QuantizedTokens tokens = me.own->tokens.of(job);
  me.kernels->quantize(quantize_args(job, rows, tokens), 0, count);
  if (job.rank_rows > 0 && rows.compensated) {
    auto* u = me.own->u.as<float>();
    me.kernels->project_tokens(job.input, tokens, 0, count, rank_panels, job.a_scales.data(),
                               job.rank_rows, u, job.rank_rows);
    for (int64_t token = 0; token < count; ++token)
      if (is_bare(rows, token)) std::fill_n(u + token * job.rank_rows, job.rank_rows, 0.0f);
    finish_ranks(me, job, tokens, u, 0, count);
  }
  cpu::PanelWork work = panel_work(job, tokens);
  for (const JobShard& shard : job.shards) run_ranges(me, job, shard, work, rows, 0, count);
}

}  // namespace spear
