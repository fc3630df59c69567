#include "spear/cli/bench_sweep.h"

#include <algorithm>
#include <chrono>

#include <fmt/format.h>
#include <unistd.h>

#include "spear/base/rng.h"
#include "spear/cli/bench_results.h"
#include "spear/cli/memory_speed.h"
#include "spear/cli/text.h"

namespace spear {
namespace {

constexpr int64_t kFillRows = 512;  // rows of a step that fills a cache

int64_t capacity_of(const BenchCase& c) {
  return c.prefill ? c.tokens : c.context + c.tokens;
}

uint64_t kv_token_bytes(const ModelConfig& config, DType type) {
  return KvCache::page_bytes(config, type) / static_cast<uint64_t>(KvCache::kPageSize);
}

// Weights of all linears and the head.
double multiply_adds(const ModelConfig& c, const BenchCase& what) {
  const auto hidden = static_cast<double>(c.hidden_size);
  const double layer = hidden * static_cast<double>(2 * c.q_size() + 2 * c.kv_size()) +
                       3 * hidden * static_cast<double>(c.intermediate_size);
  const double linears = layer * static_cast<double>(c.num_hidden_layers);
  const double head = hidden * static_cast<double>(c.vocab_size);
  const auto rows = static_cast<double>(what.tokens * what.batch);
  return linears * rows + head * (what.prefill ? 1.0 : rows);
}

// One case's sequences and the memory a step writes to.
class CaseRunner {
 public:
  CaseRunner(Backend& backend, const ModelConfig& config, const BenchCase& what, DType kv)
      : backend_(backend),
        what_(what),
        vocab_(config.vocab_size),
        hidden_size_(config.hidden_size),
        cache_(backend, config, what.batch, capacity_of(what), true, kv),
        hidden_(backend.allocate(static_cast<size_t>(most_rows() * hidden_size_) * sizeof(float))),
        logits_(backend.allocate(static_cast<size_t>(what.batch * vocab_) * sizeof(float))),
        rng_(1) {}

  // Brings every sequence to its context, by pieces of one sequence after the other.
  void fill(Decoder& decoder) {
    if (what_.prefill) return;
    for (int64_t s = 0; s < what_.batch; ++s)
      for (int64_t at = 0; at < what_.context; at += kFillRows) {
        const int64_t rows = std::min(kFillRows, what_.context - at);
        const AttentionSequence entry = cache_.append(s, 0, rows);
        step(decoder, rows, {&entry, 1}, false);
      }
  }
  double run(Decoder& decoder) {
    const auto start = std::chrono::steady_clock::now();
    if (what_.prefill) {
      const AttentionSequence entry = cache_.append(0, 0, what_.tokens);
      step(decoder, what_.tokens, {&entry, 1}, true);
    } else {
      std::vector<AttentionSequence> entries(static_cast<size_t>(what_.batch));
      for (int64_t t = 0; t < what_.tokens; ++t) {
        for (int64_t s = 0; s < what_.batch; ++s)
          entries[static_cast<size_t>(s)] = cache_.append(s, s, 1);
        step(decoder, what_.batch, entries, true);
      }
    }
    backend_.synchronize();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    for (int64_t s = 0; s < what_.batch; ++s) cache_.truncate(s, what_.prefill ? 0 : what_.context);
    return took.count();
  }

 private:
  int64_t most_rows() const {
    const int64_t filling = what_.prefill ? what_.tokens : std::min(kFillRows, what_.context);
    return std::max({int64_t{1}, what_.batch, filling});
  }
  // Tokens at random: a speed does not depend on them.
  void step(Decoder& decoder, int64_t rows, std::span<const AttentionSequence> sequences,
            bool logits) {
    tokens_.resize(static_cast<size_t>(rows));
    for (int32_t& token : tokens_)
      token = static_cast<int32_t>(rng_.below(static_cast<uint32_t>(vocab_)));
    wanted_.clear();
    if (logits)
      for (const AttentionSequence& s : sequences)
        wanted_.push_back(static_cast<int32_t>(s.first_row + s.rows - 1));
    if (DecoderProgram* program = decoder.program()) {
      program->step({.tokens = tokens_,
                     .sequences = sequences,
                     .cache = cache_.layers(),
                     .logit_rows = wanted_,
                     .logits = logits_.as<float>()});
      return;
    }
    auto* hidden = hidden_.as<float>();
    decoder.forward({tokens_, sequences}, cache_, hidden);
    if (wanted_.empty()) return;
    const auto count = static_cast<int64_t>(wanted_.size());
    decoder.logits(hidden + wanted_.front() * hidden_size_, count, logits_.as<float>());
  }

  Backend& backend_;
  BenchCase what_;
  int64_t vocab_, hidden_size_;
  KvCache cache_;
  DeviceBuffer hidden_, logits_;
  std::vector<int32_t> tokens_, wanted_;
  Rng rng_;
};

BenchRuns prepare_runs(const BenchCase& what, const BenchSubject& subject,
                       const ModelConfig& config, DType kv) {
  BenchRuns runs;
  runs.what = what;
  runs.compensators = subject.compensators;
  runs.bytes_per_step = subject.weight_bytes;
  if (!what.prefill)
    runs.bytes_per_step += static_cast<uint64_t>(what.batch * (what.context + what.tokens / 2)) *
                           kv_token_bytes(config, kv);
  runs.multiply_adds_per_run = multiply_adds(config, what);
  return runs;
}

}  // namespace

std::string BenchCase::name() const {
  if (prefill) return fmt::format("prefill {}", tokens);
  const std::string one = fmt::format("decode {} after {}", tokens, context);
  return batch == 1 ? one : fmt::format("{} × {} streams", one, batch);
}

void check_cases(const BenchPlan& plan, const ModelConfig& config) {
  const auto memory =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE));
  double total = 0;
  for (const BenchCase& c : plan.cases) {
    if (capacity_of(c) > config.max_position_embeddings)
      throw Failure(
          ErrorCode::kUsage,
          fmt::format("{}: {} tokens, but the model's context is {}; --prefill, --context "
                      "and --batch-context take shorter ones",
                      c.name(), capacity_of(c), config.max_position_embeddings));
    total += static_cast<double>(capacity_of(c) * c.batch) *
             static_cast<double>(kv_token_bytes(config, plan.kv));
  }
  if (total > 0.8 * memory)
    throw Failure(ErrorCode::kUsage,
                  fmt::format("the keys and values of these cases need {}, this machine has {}: "
                              "fewer or shorter ones, or --kv int8",
                              size_text(static_cast<int64_t>(total)),
                              size_text(static_cast<int64_t>(memory))));
}

std::vector<BenchRuns> run_sweep(Backend& backend, std::span<const BenchSubject> subjects,
                                 const BenchPlan& plan, ThreadPool& pool, Progress& progress) {
  const ModelConfig& config = subjects.front().decoder->config();
  check_cases(plan, config);
  std::vector<std::unique_ptr<CaseRunner>> runners;
  std::vector<BenchRuns> all;
  const double byte_peak = measure_byte_peak(pool);
  progress.begin("filling caches", static_cast<int64_t>(plan.cases.size()));
  for (const BenchCase& what : plan.cases) {
    runners.push_back(std::make_unique<CaseRunner>(backend, config, what, plan.kv));
    runners.back()->fill(*subjects.front().decoder);
    for (const BenchSubject& subject : subjects) {
      BenchRuns& runs = all.emplace_back(prepare_runs(what, subject, config, plan.kv));
      runs.ceiling = byte_peak;
    }
    progress.advance(1, what.name());
  }
  // What memory gives drifts as speeds do, so each round measures both, one after the other.
  uint64_t most_bytes = 1;
  for (const BenchRuns& runs : all) most_bytes = std::max(most_bytes, runs.bytes_per_step);
  MemoryReader reader(pool, most_bytes);
  std::vector<std::vector<double>> reread(all.size());
  progress.begin("rounds", plan.repeats + 1);
  // Round 0 warms up and is not kept.
  for (int round = 0; round <= plan.repeats; ++round) {
    for (size_t c = 0; c < runners.size(); ++c)
      for (size_t s = 0; s < subjects.size(); ++s) {
        // Who goes first alternates: the second finds the caches of the first.
        const size_t turn = round % 2 == 0 ? s : subjects.size() - 1 - s;
        if (progress.stop_requested())
          throw Failure(ErrorCode::kInterrupted, "stopped before every case was measured");
        BenchRuns& runs = all[c * subjects.size() + turn];
        const double seconds = runners[c]->run(*subjects[turn].decoder);
        if (round == 0) continue;
        runs.seconds.push_back(seconds);
        if (!runs.what.prefill)
          reread[c * subjects.size() + turn].push_back(reader.reread_speed(runs.bytes_per_step));
      }
    progress.advance(1);
  }
  for (size_t i = 0; i < all.size(); ++i)
    if (!reread[i].empty()) all[i].ceiling = spread_of(reread[i]).median;
  progress.end();
  return all;
}

}  // namespace spear
