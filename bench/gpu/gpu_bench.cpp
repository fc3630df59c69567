// Times the fused GPU decode step on random weights of real shapes, and beside it, on the same
// weights in the same run, a chain of kernels that only read them: the practical floor.
//   gpu_bench [--json] [--models 1B,7B] [--group 0] [--m 1,16] [--context 128] [--head 8]
//             [--what linears,token,pieces]
// Each figure is the median of 15 replays of one CUDA graph after 3 to warm up, with its spread
// (max − min) / median. Weights come from device memory every time: a model is larger than L2.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include "spear/kernels/gpu/check.h"
#include "spear/kernels/gpu/packed_matrix.h"

#include "synthetic.h"

namespace spear::bench {
namespace {

struct Options {
  bool json = false;
  std::vector<std::string> models = {"1B", "3B", "7B", "13B"};
  std::vector<int32_t> m = {1};
  std::vector<int32_t> groups = {0};
  std::vector<std::string> what = {"linears", "token"};
  int32_t context = 128;
  int32_t head = 8;
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> out;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) out.push_back(part);
  return out;
}

std::vector<int32_t> numbers(const std::string& text) {
  std::vector<int32_t> out;
  for (const std::string& part : split(text)) out.push_back(std::atoi(part.c_str()));
  return out;
}

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const std::string value = i + 1 < argc ? argv[i + 1] : "";
    if (name == "--json") {
      o.json = true;
      continue;
    }
    if (name == "--models")
      o.models = split(value);
    else if (name == "--m")
      o.m = numbers(value);
    else if (name == "--group")
      o.groups = numbers(value);
    else if (name == "--context")
      o.context = std::atoi(value.c_str());
    else if (name == "--head")
      o.head = std::atoi(value.c_str());
    else if (name == "--what")
      o.what = split(value);
    else {
      std::fprintf(stderr,
                   "gpu_bench: unknown option %s; see the head of bench/gpu/gpu_bench.cpp\n",
                   name.c_str());
      std::exit(2);
    }
    ++i;
  }
  return o;
}

struct Time {
  double median = 0, spread = 0;  // microseconds; a share of the median
};

// `queue` puts one unit of work into the stream.
Time time_graph(cudaStream_t stream, const std::function<void()>& queue) {
  gpu::check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  queue();
  cudaGraph_t graph = nullptr;
  gpu::check(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t exec = nullptr;
  gpu::check(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  gpu::check(cudaEventCreate(&begin));
  gpu::check(cudaEventCreate(&end));
  std::vector<double> times;
  for (int i = 0; i < 18; ++i) {
    gpu::check(cudaEventRecord(begin, stream));
    gpu::check(cudaGraphLaunch(exec, stream));
    gpu::check(cudaEventRecord(end, stream));
    gpu::check(cudaEventSynchronize(end));
    float ms = 0;
    gpu::check(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 3) times.push_back(1000.0 * static_cast<double>(ms));
  }
  (void)cudaEventDestroy(begin);
  (void)cudaEventDestroy(end);
  (void)cudaGraphExecDestroy(exec);
  (void)cudaGraphDestroy(graph);
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  return {median, (times.back() - times.front()) / median};
}

struct Row {
  std::string model, layout, what;
  int32_t m = 1;
  double ours = 0, floor = 0, peer = 0;
  std::string peer_name, unit = "us";
  double spread = 0;
};

class Run {
 public:
  explicit Run(Options options) : options_(std::move(options)) {
    cudaDeviceProp properties{};
    gpu::check(cudaGetDeviceProperties(&properties, 0));
    card_ = properties.name;
    multiprocessors_ = properties.multiProcessorCount;
    gpu::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    measure_read_rate();
  }

  void models() {
    for (const ModelShape& shape : paper_shapes())
      if (std::find(options_.models.begin(), options_.models.end(), shape.name) !=
          options_.models.end())
        for (const int32_t group : options_.groups)
          for (const EcLayout layout : {EcLayout::kNone, EcLayout::kRank2, EcLayout::kGated16})
            model(shape, group, layout);
  }

  void print() const {
    if (!options_.json) return;
    std::printf("{\"card\": \"%s\", \"read_tb_s\": %.3f, \"rows\": [", card_.c_str(), read_rate_);
    const char* comma = "\n";
    for (const Row& r : rows_) {
      std::printf(
          "%s {\"model\": \"%s\", \"layout\": \"%s\", \"what\": \"%s\", \"m\": %d, "
          "\"ours\": %.1f, \"floor\": %.1f, \"peer\": %.1f, \"peer_name\": \"%s\", "
          "\"unit\": \"%s\"}",
          comma, r.model.c_str(), r.layout.c_str(), r.what.c_str(), r.m, r.ours, r.floor, r.peer,
          r.peer_name.c_str(), r.unit.c_str());
      comma = ",\n";
    }
    std::printf("\n]}\n");
  }

 private:
  void measure_read_rate() {
    Memory memory;
    const size_t bytes = size_t{4} << 30;
    void* data = memory.take(bytes);
    fill_words(data, bytes, 99);
    gpu::check(cudaDeviceSynchronize());
    const Time t = time_graph(stream_, [&] { read_bytes(data, bytes, multiprocessors_, stream_); });
    read_rate_ = static_cast<double>(bytes) / t.median / 1e6;
    if (!options_.json)
      std::printf("%s, %d multiprocessors, reads %.3f TB/s\n", card_.c_str(), multiprocessors_,
                  read_rate_);
  }

  [[nodiscard]] bool wanted(const std::string& what) const {
    return std::find(options_.what.begin(), options_.what.end(), what) != options_.what.end();
  }

  void add(Row row) {
    if (!options_.json)
      std::printf(
          "%-4s %-24s %-18s m %3d  %9.1f us (spread %4.1f %%)  floor %8.1f (%4.1f %%)  %s "
          "%8.1f (%.3fx)\n",
          row.model.c_str(), row.layout.c_str(), row.what.c_str(), row.m, row.ours,
          100 * row.spread, row.floor, 100 * row.floor / row.ours, row.peer_name.c_str(), row.peer,
          row.ours / row.peer);
    std::fflush(stdout);
    rows_.push_back(std::move(row));
  }

  // Each kernel of a step alone, in a chain over all layers: microseconds a launch.
  void pieces(const ModelShape& shape, const FusedDecoder& d, int32_t m, Memory& memory) {
    StepMemory step(*this, d, shape, m, memory);
    const int32_t repeats = 64 / shape.layers + 1;
    const auto each = [&](const char* name, size_t bytes, const auto& queue) {
      const Time t = time_graph(stream_, [&] {
        for (int32_t r = 0; r < repeats; ++r)
          for (size_t l = 0; l < d.layers.size(); ++l) queue(d.layers[l], l);
      });
      const double launches = static_cast<double>(repeats) * static_cast<double>(shape.layers);
      std::printf("  %-4s %-22s %8.2f us, bytes %6.2f us\n", shape.name.c_str(), name,
                  t.median / launches, static_cast<double>(bytes) / read_rate_ / 1e6);
    };
    const StepBuffers& b = step.buffers;
    const auto rows = [&](const gpu::RowsArgs& args) {
      gpu::rows(args, multiprocessors_, true, stream_);
    };
    using gpu::RowsInput;
    using gpu::RowsOutput;
    const FusedLayer& first = d.layers[0];
    each("q k v", product_bytes(first.qkv), [&](const FusedLayer& l, size_t) {
      rows({.m = m, .w = l.qkv.w, .input = RowsInput::kNorm, .x = b.x, .eps = d.eps, .y = b.qkv});
    });
    each("o", product_bytes(first.o), [&](const FusedLayer& l, size_t) {
      rows({.m = m, .w = l.o.w, .x = b.attended, .output = RowsOutput::kResidual, .y = b.x});
    });
    each("gate up", product_bytes(first.gate_up), [&](const FusedLayer& l, size_t) {
      rows({.m = m,
            .w = l.gate_up.w,
            .input = RowsInput::kNorm,
            .x = b.x,
            .eps = d.eps,
            .output = RowsOutput::kSilu,
            .half_y = b.activated});
    });
    each("down", product_bytes(first.down), [&](const FusedLayer& l, size_t) {
      rows({.m = m, .w = l.down.w, .x = b.activated, .output = RowsOutput::kResidual, .y = b.x});
    });
    for (const int32_t splits : {0, 1, 2, 8})
      each(("attention, splits " + std::to_string(splits)).c_str(), 0,
           [&](const FusedLayer&, size_t l) {
             gpu::decode_attention({.m = m,
                                    .heads = d.heads,
                                    .kv_heads = d.kv_heads,
                                    .head_dim = d.head_dim,
                                    .tables = step.args.tables,
                                    .angles = b.angles,
                                    .qkv = b.qkv,
                                    .cache = step.cache[l],
                                    .y = b.attended,
                                    .y_stride = static_cast<int64_t>(d.heads) * d.head_dim,
                                    .splits = splits},
                                   multiprocessors_, stream_);
           });
    each("begin", 0, [&](const FusedLayer&, size_t) {
      gpu::begin_step({.m = m,
                       .tables = step.args.tables,
                       .embedding = d.embedding,
                       .rotation = {},
                       .head_dim = d.head_dim,
                       .inverse_frequencies = d.inverse_frequencies,
                       .x = b.x,
                       .angles = b.angles},
                      stream_);
    });
    each("finish", 0, [&](const FusedLayer&, size_t) {
      gpu::finish_step({.rows = m,
                        .hidden = d.hidden,
                        .row_of = step.args.logit_rows,
                        .x = b.x,
                        .rotation = {},
                        .eps = d.eps,
                        .half_y = b.normed},
                       stream_);
    });
    each("head", matrix_bytes(d.head), [&](const FusedLayer&, size_t) {
      queue_head(d, b.normed, m, step.args.logits, multiprocessors_, stream_);
    });
  }

  void model(const ModelShape& shape, int32_t group, EcLayout layout) {
    Memory memory;
    const FusedDecoder decoder = random_decoder(shape, group, layout, options_.head, memory);
    const std::string name =
        std::string(layout_name(layout)) + (group == 0 ? "" : " g" + std::to_string(group));
    size_t bytes = 0;
    for (const FusedLayer& l : decoder.layers)
      for (const FusedProduct* p : {&l.qkv, &l.o, &l.gate_up, &l.down}) bytes += product_bytes(*p);
    const auto microseconds = [&](size_t b) { return static_cast<double>(b) / read_rate_ / 1e6; };
    const Time chain = time_graph(stream_, [&] {
      for (const FusedLayer& l : decoder.layers)
        for (const FusedProduct* p : {&l.qkv, &l.o, &l.gate_up, &l.down})
          read_bytes(p->w.data, gpu::PackedShape{p->w.n, p->w.k, p->w.bits, p->w.group}.bytes(),
                     multiprocessors_, stream_);
    });
    if (wanted("pieces") && layout == EcLayout::kNone)
      for (const int32_t m : options_.m)
        if (m <= gpu::kMaxRowTokens) pieces(shape, decoder, m, memory);
    for (const int32_t m : options_.m) {
      StepMemory step(*this, decoder, shape, m, memory);
      if (wanted("linears")) {
        step.args.attention = false;
        const Time t = time_graph(stream_, [&] {
          queue_decode_step(decoder, step.buffers, step.args, multiprocessors_, stream_);
        });
        add({shape.name, name, "linears", m, t.median, microseconds(bytes), chain.median,
             "read-only chain", "us", t.spread});
      }
      if (wanted("token")) {
        step.args.attention = true;
        step.args.logit_count = m;
        const Time t = time_graph(stream_, [&] {
          queue_decode_step(decoder, step.buffers, step.args, multiprocessors_, stream_);
        });
        const size_t kv = static_cast<size_t>(m) * static_cast<size_t>(options_.context) *
                          static_cast<size_t>(shape.kv_heads * shape.head_dim * shape.layers) * 4;
        add({shape.name, name, "token, context " + std::to_string(options_.context), m, t.median,
             microseconds(bytes + kv + matrix_bytes(decoder.head)), chain.median, "read-only chain",
             "us", t.spread});
      }
    }
  }

  // Inputs and scratch of a step of m sequences of one length.
  struct StepMemory {
    StepMemory(const Run& run, const FusedDecoder& decoder, const ModelShape& shape, int32_t m,
               Memory& memory) {
      const int32_t context = run.options_.context;
      const int32_t pages = (context + kPage) / kPage;
      std::vector<int32_t> tokens, contexts, begins, table, rows;
      for (int32_t i = 0; i < m; ++i) {
        tokens.push_back(1000 + 7 * i);
        contexts.push_back(context);
        begins.push_back(i * pages);
        rows.push_back(i);
        for (int32_t p = 0; p < pages; ++p) table.push_back(i * pages + p);
      }
      const auto put = [&](const std::vector<int32_t>& host) {
        auto* device = memory.take_array<int32_t>(host.size());
        gpu::check(cudaMemcpy(device, host.data(), host.size() * 4, cudaMemcpyHostToDevice));
        return device;
      };
      args.m = m;
      args.tables = {put(tokens), put(contexts), put(begins), put(table)};
      args.logit_rows = put(rows);
      const auto kv = static_cast<size_t>(m) * static_cast<size_t>(pages) * kPage *
                      static_cast<size_t>(shape.kv_heads * shape.head_dim);
      for (int32_t l = 0; l < shape.layers; ++l) {
        auto* keys = memory.take_array<uint16_t>(kv);
        auto* values = memory.take_array<uint16_t>(kv);
        fill_halves(keys, static_cast<int64_t>(kv), 1.0f, 1);
        fill_halves(values, static_cast<int64_t>(kv), 1.0f, 2);
        cache.push_back({.keys = keys, .values = values, .page_size = kPage, .type = DType::kF16});
      }
      args.cache = cache.data();
      args.logits =
          memory.take_array<float>(static_cast<size_t>(m) * static_cast<size_t>(shape.vocab));
      const size_t bytes = step_buffer_bytes(decoder, m, run.multiprocessors_);
      void* scratch = memory.take(bytes);
      gpu::check(cudaMemset(scratch, 0, bytes));
      buffers = place_step_buffers(decoder, m, run.multiprocessors_, scratch);
      gpu::check(cudaDeviceSynchronize());
    }
    static constexpr int32_t kPage = 64;
    std::vector<KvLayerView> cache;
    DecodeStepArgs args;
    StepBuffers buffers;
  };

  Options options_;
  std::string card_;
  int32_t multiprocessors_ = 0;
  cudaStream_t stream_ = nullptr;
  double read_rate_ = 0;  // TB/s
  std::vector<Row> rows_;
};

}  // namespace
}  // namespace spear::bench

int main(int argc, char** argv) {
  try {
    spear::bench::Run run(spear::bench::parse(argc, argv));
    run.models();
    run.print();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "gpu_bench: %s\n", e.what());
    return 1;
  }
  return 0;
}
