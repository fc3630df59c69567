// Speeds of a compiled decoder beside what this processor could do. Not a test.
//   decoder_bench MODEL.spear [--threads N] [--exact] [--no-ec] [--kernel NAME] [--only WHAT]
// Medians and the best; everything is timed in turn, so that each ratio sees the same neighbours.
// One thread is timed by its own processor time, so that a busy machine disturbs little.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <sys/mman.h>

#include "spear/base/thread_pool.h"
#include "spear/kernels/cpu/packed/packed_select.h"
#include "spear/model/decoder.h"
#include "spear/model/model_file.h"

namespace spear {
namespace {

bool one_thread = false;

double now() {
  if (one_thread) {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

double seconds_of(const std::function<void()>& body) {
  const double start = now();
  body();
  return now() - start;
}

struct Bench {
  ThreadPool pool;
  std::unique_ptr<Backend> backend;
  std::optional<ModelFile> file;
  std::unique_ptr<Decoder> decoder;
  double load_seconds = 0;

  explicit Bench(int threads) : pool(threads) {}
};

// One sequence: `context` tokens are there, then one token a step, logits included.
class Stream {
 public:
  Stream(Bench& bench, int64_t context, int64_t streams, int64_t room)
      : bench_(bench),
        config_(bench.decoder->config()),
        cache_(*bench.backend, config_, streams, context + room, true, DType::kF16),
        context_(context),
        streams_(streams),
        views_(cache_.layers(config_.num_hidden_layers)),
        logits_(static_cast<size_t>(streams * config_.vocab_size)) {
    for (int64_t s = 0; s < streams; ++s) prefill(s, context, nullptr);
  }
  void prefill(int64_t s, int64_t rows, float* logits) {
    if (rows == 0) return;
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < rows; ++i)
      tokens.push_back(static_cast<int32_t>((17 + 7919 * i) % config_.vocab_size));
    const AttentionSequence sequence = cache_.append(s, 0, rows);
    const auto last = static_cast<int32_t>(rows - 1);
    bench_.decoder->program()->step({.tokens = tokens,
                                     .sequences = {&sequence, 1},
                                     .cache = views_,
                                     .logit_rows = {&last, logits == nullptr ? size_t{0} : 1},
                                     .logits = logits});
  }
  void decode() {
    std::vector<int32_t> tokens;
    std::vector<int32_t> rows;
    std::vector<AttentionSequence> sequences;
    for (int64_t s = 0; s < streams_; ++s) {
      tokens.push_back(
          static_cast<int32_t>((s * 31 + cache_.length(s) * 977) % config_.vocab_size));
      rows.push_back(static_cast<int32_t>(s));
      sequences.push_back(cache_.append(s, s, 1));
    }
    bench_.decoder->program()->step({.tokens = tokens,
                                     .sequences = sequences,
                                     .cache = views_,
                                     .logit_rows = rows,
                                     .logits = logits_.data()});
  }
  void rewind() {
    for (int64_t s = 0; s < streams_; ++s) cache_.truncate(s, context_);
  }

 private:
  Bench& bench_;
  const ModelConfig& config_;
  KvCache cache_;
  int64_t context_, streams_;
  std::vector<KvLayerView> views_;
  std::vector<float> logits_;
};

// Bytes in huge pages, as a program's are.
class PageBytes {
 public:
  explicit PageBytes(size_t size) : size_(size) {
    constexpr size_t kPage = size_t{2} << 20;
    const size_t whole = (size + kPage - 1) / kPage * kPage;
    data_.reset(static_cast<uint8_t*>(std::aligned_alloc(kPage, whole)));
    (void)madvise(data_.get(), whole, MADV_HUGEPAGE);
    std::memset(data_.get(), 1, whole);
  }
  [[nodiscard]] const uint8_t* data() const { return data_.get(); }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  std::unique_ptr<uint8_t, Free> data_;
  size_t size_;
};

// Seconds in which the team reads as many bytes as a step does, over and over.
double reading_seconds(Bench& bench, const PageBytes& bytes) {
  const cpu::PackedKernels& kernels = *cpu::usable_packed_kernels().front();
  constexpr int kTimes = 4;
  return seconds_of([&] {
           for (int i = 0; i < kTimes; ++i)
             bench.pool.run_team([&](int index, int size) {
               const size_t part = bytes.size() / static_cast<size_t>(size) / 256 * 256;
               volatile uint64_t sink = kernels.read_through(
                   bytes.data() + part * static_cast<size_t>(index), static_cast<int64_t>(part));
               (void)sink;
             });
         }) /
         kTimes;
}

double peak_seconds_a_mac(Bench& bench) {
  const cpu::PackedKernels& kernels = *cpu::usable_packed_kernels().front();
  constexpr int64_t kRounds = 400000;
  double done = 0;
  const double seconds = seconds_of([&] {
    bench.pool.run_team([&](int index, int) {
      std::vector<int32_t> sink(64);
      const double macs = kernels.dot_chain(kRounds, sink.data());
      if (index == 0) done = macs;
    });
  });
  return seconds / (done * bench.pool.size());
}

double layer_macs(const ModelConfig& c) {
  double macs = 0;
  for (const Module module : kModules)
    macs +=
        static_cast<double>(out_features(c, module)) * static_cast<double>(in_features(c, module));
  return macs * static_cast<double>(c.num_hidden_layers);
}

// What is measured: name, tokens of one run, runs at a time, and one run.
struct Row {
  std::string name;
  double tokens = 1;
  int runs = 1;
  std::function<void()> before, run;
  std::vector<double> seconds;
};

void print(const Row& row, double reread, double macs, double peak) {
  const double s = median(row.seconds);
  const double best = *std::min_element(row.seconds.begin(), row.seconds.end());
  std::printf(
      "%-12s %8.3f ms %8.1f tokens/s (best %8.3f ms)  %6.1f %% of the re-read  %5.1f %% of "
      "the dot products' peak\n",
      row.name.c_str(), 1e3 * s, row.tokens / s, 1e3 * best, 100 * reread / s,
      100 * row.tokens * macs * peak / s);
}

void measure(Bench& bench, const std::string& only) {
  const DecoderProgram& program = *bench.decoder->program();
  const ModelConfig& config = bench.decoder->config();
  const PageBytes bytes(program.step_bytes());
  std::vector<float> logits(static_cast<size_t>(config.vocab_size));
  std::vector<std::unique_ptr<Stream>> streams;
  std::vector<Row> rows;
  const auto add_decode = [&](const char* name, int64_t context, int64_t count, int runs) {
    if (!only.empty() && only != name) return;
    Stream& stream = *streams.emplace_back(std::make_unique<Stream>(bench, context, count, 64));
    rows.push_back({name,
                    static_cast<double>(count),
                    runs,
                    [&stream] {
                      stream.rewind();
                      stream.decode();
                    },
                    [&stream] { stream.decode(); },
                    {}});
  };
  add_decode("decode_128", 128, 1, 24);
  add_decode("decode_2048", 2047, 1, 12);
  add_decode("batch_8", 128, 8, 6);
  add_decode("batch_32", 128, 32, 3);
  Stream prompt(bench, 0, 1, 512);
  if (only.empty() || only == "prefill_512")
    rows.push_back({"prefill_512",
                    512,
                    1,
                    [&] { prompt.rewind(); },
                    [&] { prompt.prefill(0, 512, logits.data()); },
                    {}});
  std::vector<double> read, peak;
  const int rounds = only.empty() ? 9 : 45;
  for (int round = 0; round < rounds; ++round) {
    read.push_back(reading_seconds(bench, bytes));
    peak.push_back(peak_seconds_a_mac(bench));
    for (Row& row : rows) {
      row.before();
      row.seconds.push_back(seconds_of([&] {
                              for (int i = 0; i < row.runs; ++i) row.run();
                            }) /
                            row.runs);
    }
  }
  const double own = median(read);
  const auto mb = static_cast<double>(program.step_bytes()) * 1e-6;
  std::printf("weights read a step %.1f MB, re-read at %.1f GB/s; 8-bit dot products %.0f GMAC/s\n",
              mb, mb * 1e-3 / own, 1e-9 / median(peak));
  for (const Row& row : rows)
    if (!row.seconds.empty()) print(row, own, layer_macs(config), median(peak));
  std::printf("load %.0f ms, scratch %.1f MB\n", 1e3 * bench.load_seconds,
              static_cast<double>(program.scratch_bytes()) * 1e-6);
}

int run(int argc, char** argv) {
  std::string path, kernel, only;
  int threads = 0;
  bool exact = false, with_ec = true;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--threads" && i + 1 < argc)
      threads = std::atoi(argv[++i]);
    else if (word == "--kernel" && i + 1 < argc)
      kernel = argv[++i];
    else if (word == "--only" && i + 1 < argc)
      only = argv[++i];
    else if (word == "--exact")
      exact = true;
    else if (word == "--no-ec")
      with_ec = false;
    else
      path = word;
  }
  Bench bench(threads);
  bench.backend = value_or_throw(make_cpu_backend(bench.pool, kernel));
  bench.load_seconds = seconds_of([&] {
    bench.file = value_or_throw(load_model(path));
    if (!with_ec)
      for (QuantizedLayer& layer : bench.file->model.layers)
        for (QuantizedLinear& linear : layer.linears) linear.compensator.reset();
    bench.decoder =
        std::make_unique<Decoder>(*bench.backend, bench.file->model, Compute::kF32,
                                  exact ? DecoderPath::kFusedExact : DecoderPath::kFused);
  });
  std::printf("%s\n%s\n", bench.backend->describe().c_str(), bench.decoder->describe().c_str());
  if (bench.decoder->program() == nullptr) return 1;
  one_thread = bench.pool.size() == 1;
  measure(bench, only);
  return 0;
}

}  // namespace
}  // namespace spear

int main(int argc, char** argv) {
  return spear::run(argc, argv);
}
