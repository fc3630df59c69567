#include "spear/backend/cpu/cpu_program.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "spear/backend/compensator_switch.h"
#include "spear/backend/cpu/program_linear.h"
#include "spear/base/check.h"
#include "spear/kernels/cpu/attention_plan.h"
#include "spear/kernels/cpu/simd/select.h"

namespace spear {
namespace {

// A thread works on rows of its own from this many a thread on.
constexpr int64_t kOwnRows = 32;

class CpuProgram final : public DecoderProgram, public CompensatorSwitch {
 public:
  CpuProgram(const DecoderSpec& spec, Activations activations,
             std::unique_ptr<ProgramLayout> layout, const cpu::PackedKernels& kernels,
             ThreadPool& pool)
      : spec_(spec),
        activations_(activations),
        layout_(std::move(layout)),
        kernels_(kernels),
        loops_(cpu::simd_loops()),
        pool_(pool),
        barrier_(pool.size()),
        signals_(pool.size()),
        raised_(static_cast<size_t>(pool.size())),
        own_(static_cast<size_t>(pool.size())) {
    for (const LayerJobs& layer : layout_->layers())
      for (const Job* job : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
        most_rank_rows_ = std::max<int64_t>(most_rank_rows_, job->rank_rows);
  }

  void step(const StepArgs& args) override;
  void logits(const float* hidden, int64_t rows, float* logits) override;
  bool runs_bare_rows() const override { return true; }
  std::string describe() const override;
  size_t weight_bytes() const override { return layout_->bytes(); }
  size_t scratch_bytes() const override;
  size_t step_bytes() const override;
  void set_active(std::span<const uint8_t> active) override {
    expects(active.empty() || active.size() == 4 * layout_->layers().size());
    active_.assign(active.begin(), active.end());
  }

 private:
  bool compensated(size_t layer, size_t site) const {
    return active_.empty() || active_[4 * layer + site] != 0;
  }
  int64_t q_width() const { return spec_.heads * spec_.head_dim; }
  int64_t kv_width() const { return 2 * spec_.kv_heads * spec_.head_dim; }
  bool rows_are_own(int64_t m) const { return m >= kOwnRows * pool_.size(); }
  TeamMember member(int index, int size) {
    const auto i = static_cast<size_t>(index);
    return {index, size, &kernels_, &barrier_, &signals_, &raised_[i].number, &shared_, &own_[i]};
  }

  AttentionArgs attention_args(const StepArgs& args, size_t layer) const {
    return {.heads = spec_.heads,
            .kv_heads = spec_.kv_heads,
            .head_dim = spec_.head_dim,
            .q = shared_.q.as<float>(),
            .cache = args.cache[layer],
            .sequences = args.sequences.data(),
            .sequence_count = static_cast<int64_t>(args.sequences.size()),
            .scale = 1.0f / std::sqrt(static_cast<float>(spec_.head_dim)),
            .y = const_cast<float*>(shared_.attended.as<float>())};
  }
  void reserve(const StepArgs& args);
  void place_rows(const StepArgs& args);
  void run_step(const TeamMember& me, const StepArgs& args);
  void begin_rows(const TeamMember& me, const StepArgs& args);
  void attend(const TeamMember& me, const StepArgs& args, size_t layer);
  JobRows qkv_rows(size_t layer, int64_t first);
  JobRows o_rows(size_t layer, int64_t first);
  JobRows gate_up_rows(size_t layer, int64_t first, float* h);
  JobRows down_rows(size_t layer, int64_t first, float* h);
  const uint8_t* bare_from(int64_t first) const { return bare_ == nullptr ? bare_ : bare_ + first; }
  void layer_shared(const TeamMember& me, const StepArgs& args, size_t layer);
  void layer_own(const TeamMember& me, const StepArgs& args, size_t layer);
  void finish_row(const float* x, float* hidden, float* scratch) const;
  void finish_rows(const TeamMember& me, const StepArgs& args);
  void run_head(const TeamMember& me, const float* hidden, int64_t rows, float* logits);
  void run_dense_head(const TeamMember& me, const float* hidden, int64_t rows, float* logits);

  struct alignas(64) Raised {
    uint64_t number = 0;
  };

  DecoderSpec spec_;
  Activations activations_;
  std::unique_ptr<ProgramLayout> layout_;
  const cpu::PackedKernels& kernels_;
  const cpu::SimdLoops& loops_;
  ThreadPool& pool_;
  TeamBarrier barrier_;
  TeamSignals signals_;
  std::vector<Raised> raised_;
  SharedMemory shared_;
  cpu::AttentionPlan plan_;
  std::vector<ThreadMemory> own_;
  int64_t most_rank_rows_ = 0;
  std::vector<uint8_t> active_;    // sites whose compensators run; empty: all
  const uint8_t* bare_ = nullptr;  // of the step under way
};

template <class T = float>
void reserve_array(HostBuffer& buffer, int64_t count) {
  buffer.reserve(static_cast<size_t>(count) * sizeof(T));
}

void CpuProgram::reserve(const StepArgs& args) {
  const auto m = static_cast<int64_t>(args.tokens.size());
  const auto wanted = static_cast<int64_t>(args.logit_rows.size());
  reserve_array(shared_.x, m * spec_.hidden);
  reserve_array(shared_.q, m * q_width());
  reserve_array(shared_.kv, m * kv_width());
  reserve_array(shared_.attended, m * q_width());
  reserve_array(shared_.angles, m * spec_.head_dim);
  reserve_array(shared_.wanted, wanted * spec_.hidden);
  const int64_t together = rows_are_own(m) ? 0 : m;
  shared_.tokens.reserve(*layout_, std::max(together, rows_are_own(wanted) ? 0 : wanted));
  reserve_array(shared_.h, together * spec_.intermediate);
  reserve_array(shared_.u, together * most_rank_rows_);
  const bool own = rows_are_own(m);
  size_t panels = 0;
  if (own && !layout_->layers().empty())
    for (const LayerJobs& layer : layout_->layers()) {
      size_t bytes = 0;
      for (const Job* job : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down})
        bytes += rank_panels_bytes(*job);
      panels = std::max(panels, bytes);
    }
  for (ThreadMemory& own_memory : own_) {
    own_memory.tokens.reserve(*layout_,
                              own || rows_are_own(wanted) ? kTokensAtATime : kTokensForEach);
    reserve_array(own_memory.scratch, spec_.hidden);
    if (!own) continue;
    reserve_array(own_memory.h, kTokensAtATime * spec_.intermediate);
    reserve_array(own_memory.u, kTokensAtATime * most_rank_rows_);
    own_memory.rank_panels.reserve(panels);
  }
}

// Positions, places in the cache and items of attention, for all layers alike.
void CpuProgram::place_rows(const StepArgs& args) {
  const size_t m = args.tokens.size();
  shared_.positions.resize(m);
  shared_.slots.resize(m);
  const int64_t page = args.cache.empty() ? 1 : args.cache[0].page_size;
  int64_t row = 0;
  for (const AttentionSequence& s : args.sequences) {
    expects(s.first_row == row && s.rows > 0);
    for (int64_t i = 0; i < s.rows; ++i, ++row) {
      const int64_t position = s.context + i;
      shared_.positions[static_cast<size_t>(row)] = static_cast<int32_t>(position);
      shared_.slots[static_cast<size_t>(row)] = s.pages[position / page] * page + position % page;
    }
  }
  expects(row == static_cast<int64_t>(m));
  plan_.cut(attention_args(args, 0), pool_.size());
  shared_.next_item[0] = 0;
  shared_.next_item[1] = 0;
}

void CpuProgram::step(const StepArgs& args) {
  if (args.tokens.empty()) return;
  expects(args.cache.size() == layout_->layers().size());
  for (const int32_t token : args.tokens) expects(token >= 0 && token < spec_.vocab);
  for (const int32_t row : args.logit_rows)
    expects(row >= 0 && static_cast<size_t>(row) < args.tokens.size());
  expects(args.bare.empty() || args.bare.size() == args.tokens.size());
  bare_ = args.bare.empty() ? nullptr : args.bare.data();
  reserve(args);
  place_rows(args);
  pool_.run_team([&](int index, int size) { run_step(member(index, size), args); });
}

void CpuProgram::run_step(const TeamMember& me, const StepArgs& args) {
  const auto m = static_cast<int64_t>(args.tokens.size());
  begin_rows(me, args);
  me.barrier->wait();
  for (size_t l = 0; l < layout_->layers().size(); ++l) {
    if (rows_are_own(m))
      layer_own(me, args, l);
    else
      layer_shared(me, args, l);
  }
  me.barrier->wait();
  finish_rows(me, args);
  if (args.logits == nullptr) return;
  me.barrier->wait();
  run_head(me, shared_.wanted.as<float>(), static_cast<int64_t>(args.logit_rows.size()),
           args.logits);
}

// Embedding rows, rotated, and the tables of RoPE's angles.
void CpuProgram::begin_rows(const TeamMember& me, const StepArgs& args) {
  const auto m = static_cast<int64_t>(args.tokens.size());
  const int64_t begin = m * me.index / me.size;
  const int64_t end = m * (me.index + 1) / me.size;
  auto* x = shared_.x.as<float>();
  const QuantizedView& table = spec_.embedding;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t token = args.tokens[static_cast<size_t>(i)];
    float* row = x + i * spec_.hidden;
    if (table.bits == 16) {
      const auto* bits = reinterpret_cast<const uint16_t*>(table.codes) + token * spec_.hidden;
      for (int64_t j = 0; j < spec_.hidden; ++j) row[j] = float_from_bf16(bits[j]);
    } else {
      loops_.dequantize(table, token, token + 1, row);
    }
  }
  if (spec_.rotation.n != 0)
    loops_.rotate({m, spec_.rotation, false, x}, begin, end, me.own->scratch.as<float>());
  loops_.rope_table(spec_.head_dim, spec_.inverse_frequencies, shared_.positions.data(), begin, end,
                    shared_.angles.as<float>());
}

// RoPE and append of rows [begin, end) of this thread, then everybody's attention. Begins and ends
// with all threads in step.
void CpuProgram::attend(const TeamMember& me, const StepArgs& args, size_t layer) {
  const auto m = static_cast<int64_t>(args.tokens.size());
  const ProgramLayer& weights = spec_.layers[layer];
  auto* q = shared_.q.as<float>();
  auto* kv = shared_.kv.as<float>();
  const int64_t begin = m * me.index / me.size;
  const int64_t end = m * (me.index + 1) / me.size;
  const auto norm_heads = [&](float* x, int64_t heads, const float* weight) {
    if (weight == nullptr) return;
    loops_.rms_norm(
        {.m = heads, .n = spec_.head_dim, .x = x, .weight = weight, .eps = spec_.norm_eps, .y = x},
        0, heads);
  };
  for (int64_t i = begin; i < end; ++i) {
    norm_heads(q + i * q_width(), spec_.heads, weights.q_norm);
    norm_heads(kv + i * kv_width(), spec_.kv_heads, weights.k_norm);
  }
  loops_.rope_append({.heads = spec_.heads,
                      .kv_heads = spec_.kv_heads,
                      .head_dim = spec_.head_dim,
                      .q = q,
                      .k = kv,
                      .v = kv + kv_width() / 2,
                      .q_stride = q_width(),
                      .kv_stride = kv_width(),
                      .table = shared_.angles.as<float>(),
                      .slots = shared_.slots.data(),
                      .cache = args.cache[layer]},
                     begin, end);
  if (me.index == 0) shared_.next_item[(layer + 1) % 2].store(0, std::memory_order_relaxed);
  me.barrier->wait();
  const AttentionArgs attention = attention_args(args, layer);
  std::atomic<int64_t>& next = shared_.next_item[layer % 2];
  for (int64_t i = next.fetch_add(1, std::memory_order_relaxed); i < plan_.items();
       i = next.fetch_add(1, std::memory_order_relaxed))
    plan_.run(attention, i, me.index);
  me.barrier->wait();
}

// Where threads share the rows, and where each takes its own through the layer: inputs and outputs
// of the four products.
JobRows CpuProgram::qkv_rows(size_t layer, int64_t first) {
  return {.x = shared_.x.as<float>() + first * spec_.hidden,
          .x_stride = spec_.hidden,
          .y = shared_.q.as<float>() + first * q_width(),
          .y_stride = q_width(),
          .eps = spec_.norm_eps,
          .y2 = shared_.kv.as<float>() + first * kv_width(),
          .y2_stride = kv_width(),
          .compensated = compensated(layer, 0),
          .bare = bare_from(first)};
}
JobRows CpuProgram::o_rows(size_t layer, int64_t first) {
  return {.x = shared_.attended.as<float>() + first * q_width(),
          .x_stride = q_width(),
          .y = shared_.x.as<float>() + first * spec_.hidden,
          .y_stride = spec_.hidden,
          .compensated = compensated(layer, 1),
          .bare = bare_from(first)};
}
JobRows CpuProgram::gate_up_rows(size_t layer, int64_t first, float* h) {
  return {.x = shared_.x.as<float>() + first * spec_.hidden,
          .x_stride = spec_.hidden,
          .y = h,
          .y_stride = spec_.intermediate,
          .eps = spec_.norm_eps,
          .compensated = compensated(layer, 2),
          .bare = bare_from(first)};
}
JobRows CpuProgram::down_rows(size_t layer, int64_t first, float* h) {
  return {.x = h,
          .x_stride = spec_.intermediate,
          .y = shared_.x.as<float>() + first * spec_.hidden,
          .y_stride = spec_.hidden,
          .compensated = compensated(layer, 3),
          .bare = bare_from(first)};
}

void CpuProgram::layer_shared(const TeamMember& me, const StepArgs& args, size_t layer) {
  const auto m = static_cast<int64_t>(args.tokens.size());
  const LayerJobs& jobs = layout_->layers()[layer];
  auto* h = shared_.h.as<float>();
  run_shared(me, jobs.qkv, qkv_rows(layer, 0), m);
  me.barrier->wait();
  attend(me, args, layer);
  run_shared(me, jobs.o, o_rows(layer, 0), m);
  me.barrier->wait();
  run_shared(me, jobs.gate_up, gate_up_rows(layer, 0, h), m);
  me.barrier->wait();
  run_shared(me, jobs.down, down_rows(layer, 0, h), m);
  me.barrier->wait();
}

void CpuProgram::layer_own(const TeamMember& me, const StepArgs& args, size_t layer) {
  const auto m = static_cast<int64_t>(args.tokens.size());
  const LayerJobs& jobs = layout_->layers()[layer];
  const int64_t begin = m * me.index / me.size;
  const int64_t end = m * (me.index + 1) / me.size;
  auto* h = me.own->h.as<float>();
  uint8_t* panels[5] = {me.own->rank_panels.as<uint8_t>()};
  size_t next = 0;
  for (const Job* job : {&jobs.qkv, &jobs.o, &jobs.gate_up, &jobs.down}) {
    if (job->rank_rows > 0 && compensated(layer, next)) widen_ranks(me, *job, panels[next]);
    panels[next + 1] = panels[next] + rank_panels_bytes(*job);
    ++next;
  }
  for (int64_t at = begin; at < end; at += kTokensAtATime)
    run_own(me, jobs.qkv, qkv_rows(layer, at), std::min(kTokensAtATime, end - at), panels[0]);
  attend(me, args, layer);
  for (int64_t at = begin; at < end; at += kTokensAtATime) {
    const int64_t count = std::min(kTokensAtATime, end - at);
    run_own(me, jobs.o, o_rows(layer, at), count, panels[1]);
    run_own(me, jobs.gate_up, gate_up_rows(layer, at, h), count, panels[2]);
    run_own(me, jobs.down, down_rows(layer, at, h), count, panels[3]);
  }
}

// The rotation keeps every row's length, so un-rotating first lets one norm apply the stored
// weight.
void CpuProgram::finish_row(const float* x, float* hidden, float* scratch) const {
  std::memcpy(hidden, x, static_cast<size_t>(spec_.hidden) * sizeof(float));
  if (spec_.rotation.n != 0) loops_.rotate({1, spec_.rotation, true, hidden}, 0, 1, scratch);
  loops_.rms_norm({.m = 1,
                   .n = spec_.hidden,
                   .x = hidden,
                   .weight = spec_.final_norm,
                   .eps = spec_.norm_eps,
                   .y = hidden},
                  0, 1);
}

void CpuProgram::finish_rows(const TeamMember& me, const StepArgs& args) {
  const auto* x = shared_.x.as<float>();
  auto* scratch = me.own->scratch.as<float>();
  const auto m = static_cast<int64_t>(args.tokens.size());
  const auto wanted = static_cast<int64_t>(args.logit_rows.size());
  const int64_t n = spec_.hidden;
  if (args.hidden != nullptr)
    for (int64_t i = m * me.index / me.size; i < m * (me.index + 1) / me.size; ++i)
      finish_row(x + i * n, args.hidden + i * n, scratch);
  if (args.logits == nullptr) return;
  for (int64_t i = wanted * me.index / me.size; i < wanted * (me.index + 1) / me.size; ++i)
    finish_row(x + args.logit_rows[static_cast<size_t>(i)] * n, shared_.wanted.as<float>() + i * n,
               scratch);
}

void CpuProgram::run_head(const TeamMember& me, const float* hidden, int64_t rows, float* logits) {
  const Job* head = layout_->head();
  if (head == nullptr) return run_dense_head(me, hidden, rows, logits);
  if (!rows_are_own(rows))
    return run_shared(me, *head,
                      {.x = hidden, .x_stride = spec_.hidden, .y = logits, .y_stride = spec_.vocab},
                      rows);
  const int64_t end = rows * (me.index + 1) / me.size;
  for (int64_t at = rows * me.index / me.size; at < end; at += kTokensAtATime)
    run_own(me, *head,
            {.x = hidden + at * spec_.hidden,
             .x_stride = spec_.hidden,
             .y = logits + at * spec_.vocab,
             .y_stride = spec_.vocab},
            std::min(kTokensAtATime, end - at), nullptr);
}

void CpuProgram::run_dense_head(const TeamMember& me, const float* hidden, int64_t rows,
                                float* logits) {
  for (int64_t at = 0; at < rows; at += cpu::kFewTokens)
    loops_.dense_rows({.m = std::min(cpu::kFewTokens, rows - at),
                       .n = spec_.vocab,
                       .k = spec_.hidden,
                       .x = hidden + at * spec_.hidden,
                       .w = spec_.head.codes,
                       .stride = spec_.hidden,
                       .bf16 = true,
                       .y = logits + at * spec_.vocab,
                       .y_stride = spec_.vocab},
                      spec_.vocab * me.index / me.size, spec_.vocab * (me.index + 1) / me.size);
}

void CpuProgram::logits(const float* hidden, int64_t rows, float* logits) {
  if (rows == 0) return;
  shared_.tokens.reserve(*layout_, rows_are_own(rows) ? 0 : rows);
  for (ThreadMemory& own : own_)
    own.tokens.reserve(*layout_, rows_are_own(rows) ? kTokensAtATime : kTokensForEach);
  // Two pointers fit into the function object; more would be asked from the heap, every step.
  const struct {
    const float* hidden;
    int64_t rows;
    float* logits;
  } head{hidden, rows, logits};
  pool_.run_team([this, &head](int index, int size) {
    run_head(member(index, size), head.hidden, head.rows, head.logits);
  });
}

std::string CpuProgram::describe() const {
  std::string text =
      std::string("fused step ") + kernels_.name + ", activations " +
      (activations_ == Activations::kExact ? "in two digits of 64 columns" : "in 8 bits");
  if (layout_->head() == nullptr) text += ", head in BF16 through the plain path";
  return text;
}

size_t CpuProgram::scratch_bytes() const {
  size_t bytes = shared_.tokens.bytes() + plan_.scratch_bytes();
  for (const HostBuffer* buffer : {&shared_.x, &shared_.q, &shared_.kv, &shared_.attended,
                                   &shared_.h, &shared_.u, &shared_.wanted, &shared_.angles})
    bytes += buffer->bytes();
  for (const ThreadMemory& own : own_) {
    bytes += own.tokens.bytes();
    for (const HostBuffer* buffer : {&own.h, &own.u, &own.rank_panels, &own.scratch})
      bytes += buffer->bytes();
  }
  return bytes;
}

size_t CpuProgram::step_bytes() const {
  return layout_->bytes() + (layout_->head() == nullptr ? spec_.head.code_bytes() : 0);
}

}  // namespace

std::unique_ptr<DecoderProgram> make_cpu_program(const DecoderSpec& spec, Activations activations,
                                                 const cpu::PackedKernels& kernels,
                                                 ThreadPool& pool, std::string* why) {
  std::unique_ptr<ProgramLayout> layout = ProgramLayout::build(spec, activations, pool, why);
  if (layout == nullptr) return nullptr;
  return std::make_unique<CpuProgram>(spec, activations, std::move(layout), kernels, pool);
}

}  // namespace spear
