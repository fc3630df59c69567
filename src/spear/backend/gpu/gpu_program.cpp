#include "spear/backend/gpu/gpu_program.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "spear/backend/gpu/fused_decoder.h"
#include "spear/backend/gpu/handle.h"
#include "spear/backend/gpu/prefill_step.h"
#include "spear/backend/gpu/program_weights.h"
#include "spear/base/check.h"
#include "spear/base/error.h"
#include "spear/kernels/gpu/check.h"

namespace spear {
namespace {

constexpr int32_t kMostDecodeRows = 64;
constexpr size_t kMostGraphs = 32;

bool same_view(const KvLayerView& a, const KvLayerView& b) {
  return a.keys == b.keys && a.values == b.values && a.page_size == b.page_size &&
         a.type == b.type && a.key_scales == b.key_scales && a.value_scales == b.value_scales;
}

// Pinned host memory that a copy to the device reads; two take turns, so that the next step's
// tables may be written while the last one's are still on their way.
class Staging {
 public:
  int32_t* begin(size_t count) {
    gpu::check(cudaEventSynchronize(copied_.get()));
    if (count > capacity_) {
      memory_ = PinnedMemory();
      void* block = nullptr;
      gpu::check(cudaMallocHost(&block, 2 * count * sizeof(int32_t)));
      memory_ = PinnedMemory(block);
      capacity_ = 2 * count;
    }
    return static_cast<int32_t*>(memory_.get());
  }
  void copy(int32_t* device, size_t count, cudaStream_t stream) {
    gpu::check(cudaMemcpyAsync(device, memory_.get(), count * sizeof(int32_t),
                               cudaMemcpyHostToDevice, stream));
    gpu::check(cudaEventRecord(copied_.get(), stream));
  }

 private:
  PinnedMemory memory_;
  size_t capacity_ = 0;
  EventHandle copied_ = make_event();
};

class GpuProgram final : public DecoderProgram {
 public:
  GpuProgram(const GpuContext& context, ProgramWeights weights)
      : context_(context),
        weights_(std::move(weights)),
        prefill_(weights_.decoder(), *context.backend, context.stream, context.multiprocessors) {}

  void step(const StepArgs& args) override;
  void logits(const float* hidden, int64_t rows, float* logits) override;

  std::string describe() const override {
    std::string text =
        fmt::format("cuda.fused decode (one graph a step, up to {} rows), cuda.cublas prefill",
                    kMostDecodeRows);
    if (weights_.expanded() > 0)
      text +=
          fmt::format("; {} products kept as F16 values (no packed layout)", weights_.expanded());
    return text;
  }
  size_t weight_bytes() const override { return weights_.bytes(); }
  size_t scratch_bytes() const override {
    return tables_.bytes() + scratch_.bytes() + prefill_.scratch_bytes();
  }
  size_t step_bytes() const override {
    size_t bytes = matrix_bytes(weights_.decoder().head);
    for (const FusedLayer& l : weights_.decoder().layers)
      for (const FusedProduct* p : {&l.qkv, &l.o, &l.gate_up, &l.down}) bytes += product_bytes(*p);
    return bytes;
  }

 private:
  // Everything a captured step reads besides the contents of its tables.
  struct Graph {
    int32_t m = 0;
    int32_t logit_count = 0;
    float* hidden = nullptr;
    float* logits = nullptr;
    std::vector<KvLayerView> cache;
    GraphExec exec;
    uint64_t used = 0;
  };

  gpu::StepTables upload_tables(const StepArgs& args, const int32_t** every_row,
                                const int32_t** logit_rows);
  void queue(const StepArgs& args, const gpu::StepTables& tables, const int32_t* every_row,
             const int32_t* logit_rows);
  const Graph& graph_for(const StepArgs& args, const gpu::StepTables& tables,
                         const int32_t* every_row, const int32_t* logit_rows);
  void reserve(DeviceBuffer& buffer, size_t bytes) {
    if (buffer.bytes() >= bytes) return;
    context_.backend->synchronize();
    buffer = context_.backend->allocate(bytes);
    graphs_.clear();  // they point into the old one
  }

  GpuContext context_;
  ProgramWeights weights_;
  PrefillStep prefill_;
  std::array<Staging, 2> staging_;
  size_t turn_ = 0;
  DeviceBuffer tables_, scratch_;
  std::vector<Graph> graphs_;
  uint64_t clock_ = 0;
};

// One block of int32: tokens, positions, first entries of block tables, all rows' numbers, the
// wanted rows' numbers, block tables. Where each stands depends on m and the number of wanted rows
// alone.
gpu::StepTables GpuProgram::upload_tables(const StepArgs& args, const int32_t** every_row,
                                          const int32_t** logit_rows) {
  const size_t m = args.tokens.size();
  const size_t wanted = args.logit_rows.size();
  size_t pages = 0;
  for (const AttentionSequence& s : args.sequences) {
    const int64_t size = args.cache.front().page_size;
    pages += static_cast<size_t>((s.context + s.rows + size - 1) / size);
  }
  const size_t count = 4 * m + wanted + pages;
  reserve(tables_, (count + count / 2) * sizeof(int32_t));
  Staging& staging = staging_[turn_++ % staging_.size()];
  int32_t* at = staging.begin(count);
  int32_t* positions = at + m;
  int32_t* begins = positions + m;
  int32_t* rows = begins + m;
  int32_t* chosen = rows + m;
  int32_t* table = chosen + wanted;
  std::copy(args.tokens.begin(), args.tokens.end(), at);
  std::iota(rows, rows + m, 0);
  std::copy(args.logit_rows.begin(), args.logit_rows.end(), chosen);
  int32_t entry = 0;
  for (const AttentionSequence& s : args.sequences) {
    const int64_t size = args.cache.front().page_size;
    for (int64_t i = 0; i < s.rows; ++i) {
      positions[s.first_row + i] = static_cast<int32_t>(s.context + i);
      begins[s.first_row + i] = entry;
    }
    const int64_t used = (s.context + s.rows + size - 1) / size;
    std::copy_n(s.pages, used, table + entry);
    entry += static_cast<int32_t>(used);
  }
  auto* device = tables_.as<int32_t>();
  staging.copy(device, count, context_.stream);
  *every_row = device + 3 * m;
  *logit_rows = device + 4 * m;
  return {device, device + m, device + 2 * m, device + 4 * m + wanted};
}

void GpuProgram::queue(const StepArgs& args, const gpu::StepTables& tables,
                       const int32_t* every_row, const int32_t* logit_rows) {
  const auto m = static_cast<int32_t>(args.tokens.size());
  const FusedDecoder& d = weights_.decoder();
  const StepBuffers buffers =
      place_step_buffers(d, m, context_.multiprocessors, scratch_.as<void>());
  const auto wanted = static_cast<int32_t>(args.logit_rows.size());
  const bool all = wanted == m;  // rows ascend
  DecodeStepArgs step{.m = m, .tables = tables, .cache = args.cache.data()};
  if (args.hidden != nullptr || all) {
    step.logit_rows = every_row;
    step.logit_count = m;
    step.hidden = args.hidden;
    step.logits = all ? args.logits : nullptr;
  } else {
    step.logit_rows = logit_rows;
    step.logit_count = wanted;
    step.logits = args.logits;
  }
  queue_decode_step(d, buffers, step, context_.multiprocessors, context_.stream);
  if (args.hidden != nullptr && !all && wanted > 0 && args.logits != nullptr) {
    gpu::finish_step({.rows = wanted,
                      .hidden = d.hidden,
                      .row_of = logit_rows,
                      .x = buffers.x,
                      .rotation = d.rotation,
                      .weight = d.final_norm,
                      .eps = d.eps,
                      .half_y = buffers.normed},
                     context_.stream);
    queue_head(d, buffers.normed, wanted, args.logits, context_.multiprocessors, context_.stream);
  }
}

const GpuProgram::Graph& GpuProgram::graph_for(const StepArgs& args, const gpu::StepTables& tables,
                                               const int32_t* every_row,
                                               const int32_t* logit_rows) {
  const auto m = static_cast<int32_t>(args.tokens.size());
  const auto wanted = static_cast<int32_t>(args.logit_rows.size());
  for (Graph& g : graphs_)
    if (g.m == m && g.logit_count == wanted && g.hidden == args.hidden && g.logits == args.logits &&
        std::equal(g.cache.begin(), g.cache.end(), args.cache.begin(), args.cache.end(),
                   same_view)) {
      g.used = ++clock_;
      return g;
    }
  if (graphs_.size() == kMostGraphs)
    graphs_.erase(std::min_element(graphs_.begin(), graphs_.end(),
                                   [](const Graph& a, const Graph& b) { return a.used < b.used; }));
  gpu::check(cudaStreamBeginCapture(context_.stream, cudaStreamCaptureModeThreadLocal));
  queue(args, tables, every_row, logit_rows);
  cudaGraph_t captured = nullptr;
  gpu::check(cudaStreamEndCapture(context_.stream, &captured));
  const GraphHandle graph(captured);
  cudaGraphExec_t exec = nullptr;
  gpu::check(cudaGraphInstantiate(&exec, graph.get(), 0));
  graphs_.push_back({m, wanted, args.hidden, args.logits,
                     std::vector<KvLayerView>(args.cache.begin(), args.cache.end()),
                     GraphExec(exec), ++clock_});
  return graphs_.back();
}

void GpuProgram::step(const StepArgs& args) {
  if (args.tokens.empty()) return;
  const auto m = static_cast<int32_t>(args.tokens.size());
  const FusedDecoder& d = weights_.decoder();
  expects(args.cache.size() == d.layers.size());
  const bool decode =
      m <= kMostDecodeRows && std::all_of(args.sequences.begin(), args.sequences.end(),
                                          [](const AttentionSequence& s) { return s.rows == 1; });
  if (decode) reserve(scratch_, step_buffer_bytes(d, m, context_.multiprocessors));
  const int32_t* every_row = nullptr;
  const int32_t* logit_rows = nullptr;
  const gpu::StepTables tables = upload_tables(args, &every_row, &logit_rows);
  if (!decode) {
    prefill_.run(args, tables, every_row, logit_rows);
    return;
  }
  const Graph& graph = graph_for(args, tables, every_row, logit_rows);
  gpu::check(cudaGraphLaunch(graph.exec.get(), context_.stream));
}

void GpuProgram::logits(const float* hidden, int64_t rows, float* logits) {
  if (rows > 0) prefill_.head(hidden, rows, logits);
}

}  // namespace

std::unique_ptr<DecoderProgram> make_gpu_program(const DecoderSpec& spec, Activations activations,
                                                 const GpuContext& context, std::string* why) {
  if (activations == Activations::kExact) {
    if (why != nullptr) *why = "the fused GPU step rounds activations to 11 bits";
    return nullptr;
  }
  ProgramWeights weights;
  if (!weights.load(spec, *context.backend, why)) return nullptr;
  return std::make_unique<GpuProgram>(context, std::move(weights));
}

}  // namespace spear
