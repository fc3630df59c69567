// Speeds of the kernels beside what this processor could do: docs/kernels.md holds a table of them.
// Not a test.
//   kernels_bench [gemm|attention|loss|w4|training]... [--threads N]
// One thread is timed by its own processor time, so that a busy machine disturbs little; more by
// the wall clock. The best of several runs is printed.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <set>
#include <string>

#include "spear/base/host_buffer.h"
#include "spear/base/thread_pool.h"
#include "spear/kernels/attention.h"
#include "spear/kernels/cpu/attention_plan.h"
#include "spear/kernels/cpu/with_loops.h"
#include "spear/kernels/loss.h"

#include "kernels/quantized_case.h"

namespace spear {
namespace {

double now(bool one_thread) {
  if (!one_thread)
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Seconds of the fastest run, tried for about a third of a second.
double best_time(bool one_thread, const std::function<void()>& body, double seconds = 0.3) {
  body();
  double best = 1e30;
  const double until = now(one_thread) + seconds;
  for (int i = 0; i < 2 || (i < 1000 && now(one_thread) < until); ++i) {
    const double start = now(one_thread);
    body();
    best = std::min(best, now(one_thread) - start);
  }
  return best;
}

struct Bench {
  ThreadPool pool;
  bool one;
  double fma_peak = 0;  // GFLOP/s of the pool in floats
  explicit Bench(int threads) : pool(threads), one(pool.size() == 1) {}

  // Products of small matrices that never leave the registers' caches: what the attention
  // micro-kernel can reach.
  double time(const std::function<void()>& body) const { return best_time(one, body); }
};

// 12 independent chains of the widest multiply-adds; the table's own width says how many floats
// each is.
double measured_peak(const Bench& bench) {
  const cpu::SimdLoops& loops = cpu::simd_loops();
  constexpr int64_t kSteps = 2'000'000;
  std::vector<float> sink(64);
  const double flop = loops.fma_chain(kSteps, sink.data());
  const double seconds = best_time(true, [&] { (void)loops.fma_chain(kSteps, sink.data()); });
  return 1e-9 * flop / seconds * bench.pool.size();
}

void bench_gemm(Bench& bench) {
  std::printf("gemm, GFLOP/s%s\n%-12s %-5s %-4s %6s %6s %6s %9s\n",
              bench.one ? " of one thread" : "", "library", "type", "form", "m", "n", "k",
              "GFLOP/s");
  Rng rng(1);
  HostBuffer a(size_t{4096} * 1536 * 4), b(size_t{49152} * 576 * 4), c(size_t{49152} * 512 * 4);
  for (HostBuffer* buffer : {&a, &b})
    for (size_t i = 0; i < buffer->bytes() / 2; ++i) buffer->as<uint16_t>()[i] = 0x3f80;
  const std::pair<int64_t, int64_t> weights[] = {
      {576, 576}, {192, 576}, {1536, 576}, {576, 1536}, {49152, 576}};
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (int form = 0; form < 3; ++form) {
      for (const auto& [n, k] : weights) {
        for (const int64_t m : {1, 8, 64, 512, 2048}) {
          if (n * m > 49152 * 512 || (form == 2 && n > 2000)) continue;
          GemmArgs g{.m = m,
                     .n = n,
                     .k = k,
                     .a = a.data(),
                     .lda = form == 2 ? m : k,
                     .a_type = type,
                     .transpose_a = form == 2,
                     .b = b.data(),
                     .ldb = form == 1 ? k : n,
                     .b_type = type,
                     .transpose_b = form == 1,
                     .c = c.as<float>(),
                     .ldc = n};
          for (const GemmKernel& kernel : gemm_kernels()) {
            if (!kernel.supports(g) || std::string(kernel.name) == "ref") continue;
            const double s = best_time(
                bench.one, [&] { kernel.run(g, &bench.pool); }, 0.05);
            std::printf("%-12s %-5s %-4s %6ld %6ld %6ld %9.1f\n", kernel.name, name_of(type),
                        form == 0   ? "NN"
                        : form == 1 ? "NT"
                                    : "TN",
                        m, n, k, 2e-9 * static_cast<double>(m * n) * static_cast<double>(k) / s);
            std::fflush(stdout);
          }
        }
      }
    }
  }
}

// One sequence's cache in several layers, so that together they outgrow a core's own caches as they
// do in a model.
struct Cache {
  static constexpr int64_t kPage = 64;
  int64_t layers, layer_bytes, layer_scales;
  HostBuffer keys, values;
  std::vector<float> scales, q, y;
  std::vector<int32_t> pages;
  AttentionSequence sequence;
  AttentionArgs args;

  Cache(int64_t heads, int64_t kv_heads, int64_t d, int64_t rows, int64_t context, DType type,
        int64_t layer_count)
      : layers(layer_count) {
    Rng rng(1);
    const int64_t page_count = (rows + context + kPage - 1) / kPage;
    const int64_t tokens = page_count * kPage;
    layer_scales = tokens * kv_heads;
    layer_bytes = layer_scales * d * static_cast<int64_t>(size_of(type));
    keys = HostBuffer(static_cast<size_t>(layer_bytes * layers));
    values = HostBuffer(static_cast<size_t>(layer_bytes * layers));
    scales.resize(static_cast<size_t>(2 * layer_scales * layers));
    q = test::normal_values(rows * heads * d, rng);
    y.resize(q.size());
    for (int64_t i = 0; i < page_count; ++i) pages.push_back(static_cast<int32_t>(i));
    const auto k = test::normal_values(tokens * kv_heads * d, rng);
    const AttentionSequence all{.rows = tokens, .pages = pages.data()};
    for (int64_t l = 0; l < layers; ++l)
      ref::kv_append({kv_heads, d, k.data(), k.data(), layer(l, type), &all, 1});
    sequence = {.first_row = 0, .rows = rows, .context = context, .pages = pages.data()};
    args = {heads, kv_heads, d, q.data(), layer(0, type), &sequence, 1, 0.125f, y.data()};
  }
  KvLayerView layer(int64_t l, DType type) {
    return {keys.as<std::byte>() + l * layer_bytes,
            values.as<std::byte>() + l * layer_bytes,
            kPage,
            type,
            scales.data() + 2 * l * layer_scales,
            scales.data() + (2 * l + 1) * layer_scales};
  }
};

// Bytes a second that the pool reads from one buffer, over and over: the ceiling of a loop whose
// data is that large.
double read_speed(const Bench& bench, double bytes) {
  const auto count = static_cast<int64_t>(bytes / 8) / 64 * 64;
  std::vector<uint64_t> data(static_cast<size_t>(count), 1);
  std::atomic<uint64_t> sink{0};
  const int64_t part = (count / bench.pool.size() + 63) / 64 * 64;
  const double s = best_time(bench.one, [&] {
    const_cast<ThreadPool&>(bench.pool).parallel_for(bench.pool.size(), 1, [&](int64_t i, int64_t) {
      uint64_t sums[32] = {};
      const uint64_t* p = data.data() + i * part;
      const int64_t n = std::min(part, count - i * part);
      for (int64_t at = 0; at + 32 <= n; at += 32)
        for (int64_t u = 0; u < 32; ++u) sums[u] += p[at + u];
      for (const uint64_t v : sums) sink += v;
    });
  });
  return static_cast<double>(count * 8) / s;
}

// One token of every layer after `context` others, as a step runs it.
void bench_decode(Bench& bench, int64_t heads, int64_t kv_heads, int64_t layers, DType type,
                  int64_t context) {
  Cache c(heads, kv_heads, 64, 1, context, type, layers);
  cpu::AttentionPlan plan;
  plan.cut(c.args, bench.pool.size());
  const double s = bench.time([&] {
    for (int64_t l = 0; l < layers; ++l) {
      AttentionArgs args = c.args;
      args.cache = c.layer(l, type);
      if (bench.one) {
        for (int64_t i = 0; i < plan.items(); ++i) plan.run(args, i, 0);
        continue;
      }
      std::atomic<int64_t> next{0};
      bench.pool.parallel_for(bench.pool.size(), 1, [&](int64_t thread, int64_t) {
        for (int64_t i = next++; i < plan.items(); i = next++)
          plan.run(args, i, static_cast<int>(thread));
      });
    }
  });
  const double row = static_cast<double>(64 * size_of(type) + (type == DType::kI8 ? 4 : 0));
  const double bytes = static_cast<double>((context + 1) * kv_heads * 2 * layers) * row;
  const double ceiling = read_speed(bench, bytes);
  std::printf(
      "attention, %2ld/%ld heads of 64, %-3s, one token after %4ld, %ld layers: %8.1f us, %5.1f "
      "MB, "
      "%5.1f GB/s, %3.0f %% of reading as many bytes (%.1f)\n",
      heads, kv_heads, name_of(type), context, layers, 1e6 * s, 1e-6 * bytes, 1e-9 * bytes / s,
      100 * bytes / s / ceiling, 1e-9 * ceiling);
}

void bench_prompt(Bench& bench, int64_t heads, int64_t kv_heads, int64_t d, int64_t rows,
                  DType type) {
  Cache c(heads, kv_heads, d, rows, 0, type, 1);
  const double s = bench.time([&] { cpu::attention(c.args, bench.pool); });
  const double flop = 4.0 * static_cast<double>(d * heads) * static_cast<double>(rows) *
                      static_cast<double>(rows + 1) / 2;
  std::printf(
      "attention of a prompt, %2ld/%ld heads of %3ld, %-3s, %4ld rows: %7.2f ms, %6.1f GFLOP/s, "
      "%4.0f "
      "%% of %0.f\n",
      heads, kv_heads, d, name_of(type), rows, 1e3 * s, 1e-9 * flop / s,
      1e-7 * flop / s / bench.fma_peak, bench.fma_peak);
}

void bench_attention(Bench& bench) {
  for (const DType type : {DType::kF16, DType::kI8}) {
    bench_prompt(bench, 9, 3, 64, 2048, type);
    bench_prompt(bench, 9, 3, 64, 512, type);
    bench_prompt(bench, 14, 2, 64, 2048, type);
    bench_prompt(bench, 8, 2, 128, 2048, type);
  }
  for (const DType type : {DType::kF32, DType::kF16, DType::kI8})
    for (const int64_t context : {127, 2047}) {
      bench_decode(bench, 9, 3, 30, type, context);
      bench_decode(bench, 14, 2, 24, type, context);
    }
}

void bench_training(Bench& bench) {
  const int64_t b = 4, l = 256, h = 9, hk = 3, d = 64;
  Rng rng(1);
  const auto q = test::normal_values(b * l * h * d, rng),
             k = test::normal_values(b * l * hk * d, rng);
  std::vector<float> y(q.size()), lse(static_cast<size_t>(b * h * l)), dq(q.size()), dk(k.size()),
      dv(k.size());
  const DenseAttentionArgs args{b,        l,        h,      hk,       d,         q.data(),
                                k.data(), k.data(), 0.125f, y.data(), lse.data()};
  const double forward = bench.time([&] { cpu::dense_attention(args, bench.pool); });
  const double backward = bench.time([&] {
    cpu::dense_attention_backward({args, q.data(), dq.data(), dk.data(), dv.data()}, bench.pool);
  });
  const double flop = 2.0 * static_cast<double>(b * h * d) * static_cast<double>(l * (l + 1)) / 2;
  std::printf(
      "dense attention 4 x 256, 9/3 heads of 64: forward %.2f ms (%.0f GFLOP/s), backward %.2f ms "
      "(%.0f)\n",
      1e3 * forward, 2e-9 * flop / forward, 1e3 * backward, 5e-9 * flop / backward);
  std::vector<float> x = q, up = q;
  const double rope_time = bench.time([&] {
    std::vector<int32_t> positions(2048);
    std::vector<float> f(32, 0.1f);
    cpu::rope({1024, 9, 64, x.data(), 576, positions.data(), f.data()}, bench.pool);
  });
  const double silu = bench.time([&] {
    cpu::silu_mul({static_cast<int64_t>(x.size()), q.data(), up.data(), x.data()}, bench.pool);
  });
  const double norm = bench.time(
      [&] { cpu::rms_norm({.m = 1024, .n = 576, .x = q.data(), .y = x.data()}, bench.pool); });
  RotationView r{.n = 576, .p = 9, .h = 64, .factor = q.data()};
  const double turn = bench.time([&] {
    cpu::rotate({1024, r, false, x.data()}, bench.pool);
    for (auto& v : x) v = 1;
  });
  const double mb = 1e-9 * 1024 * 576 * 4;
  std::printf(
      "1024 x 576: rope %.3f ms (%.1f GB/s), silu %.3f (%.1f), norm %.3f (%.1f), rotation %.3f "
      "(%.1f)\n",
      1e3 * rope_time, 2 * mb / rope_time, 1e3 * silu, 3 * mb / silu, 1e3 * norm, 2 * mb / norm,
      1e3 * turn, 2 * mb / turn);
}

void bench_loss(Bench& bench) {
  const int64_t m = 32, vocab = 49152;
  Rng rng(1);
  const auto teacher = test::normal_values(m * vocab, rng, 3);
  auto student = teacher;
  std::vector<float> kl(m), sums(m);
  std::vector<int32_t> best(m);
  const double bytes = static_cast<double>(m * vocab * 4);
  const double lse = bench.time([&] {
    cpu::log_sum_exp({m, vocab, teacher.data(), sums.data(), best.data()}, bench.pool);
  });
  const double value = bench.time([&] {
    cpu::kl_divergence({.m = m,
                        .vocab = vocab,
                        .teacher = teacher.data(),
                        .student = student.data(),
                        .kl = kl.data()},
                       bench.pool);
  });
  const double gradient = bench.time([&] {
    cpu::kl_divergence({.m = m,
                        .vocab = vocab,
                        .teacher = teacher.data(),
                        .student = student.data(),
                        .gradient_scale = 1,
                        .kl = kl.data()},
                       bench.pool);
  });
  std::printf(
      "32 x 49152: log-sum-exp %.2f ms (%.1f GB/s), KL %.2f ms (%.1f GB/s), KL and gradient %.2f "
      "ms (%.1f GB/s)\n",
      1e3 * lse, 1e-9 * bytes / lse, 1e3 * value, 2e-9 * bytes / value, 1e3 * gradient,
      3e-9 * bytes / gradient);
}

// The linears of one layer of SmolLM2-135M, one after another; the head apart.
void bench_w4(Bench& bench) {
  const std::pair<int32_t, int32_t> shapes[] = {{576, 576},  {192, 576},  {192, 576}, {576, 576},
                                                {1536, 576}, {1536, 576}, {576, 1536}};
  const GemmKernel gemm = gemm_kernels().front();
  for (const int32_t rank : {0, 8}) {
    for (const int32_t group : {0, 64}) {
      std::vector<std::vector<test::QuantizedCase>> layers;
      for (uint64_t layer = 0; layer < 30; ++layer) {
        layers.emplace_back();
        for (const auto& [n, k] : shapes)
          layers.back().emplace_back(
              test::QuantizedShape{.n = n, .k = k, .group = group, .rank = rank}, layer);
      }
      double weights = 0, bytes = 0;
      for (const auto& layer : layers)
        for (const auto& c : layer) {
          weights += static_cast<double>(c.w().n) * c.w().k;
          bytes += static_cast<double>(c.w().code_bytes() + c.w().scale_count() * 2 +
                                       c.w().zero_bytes()) +
                   rank * (c.w().n + c.w().k);
        }
      HostBuffer workspace;
      for (const int64_t m : {1, 2, 4, 8, 9, 16, 64, 512, 2048}) {
        std::vector<float> x(static_cast<size_t>(m * 1536), 0.5f), y(static_cast<size_t>(m * 1536));
        const double s = bench.time([&] {
          for (const auto& layer : layers)
            for (const auto& c : layer)
              cpu::w4_linear(c.args(m, x.data(), y.data()), false, workspace, bench.pool, gemm);
        });
        std::vector<uint16_t> a(static_cast<size_t>(m * 1536), 0x3f80),
            b(size_t{1536} * 576 * 30, 0x3f80);
        const double dense = bench.time([&] {
          for (int64_t layer = 0; layer < 30; ++layer)
            for (const auto& [n, k] : shapes)
              gemm.run({.m = m,
                        .n = n,
                        .k = k,
                        .a = a.data(),
                        .lda = k,
                        .a_type = DType::kBF16,
                        .b = b.data() + layer * 1536 * 576,
                        .ldb = k,
                        .b_type = DType::kBF16,
                        .transpose_b = true,
                        .c = y.data(),
                        .ldc = n},
                       &bench.pool);
        });
        std::printf(
            "w4 layers of SmolLM2, groups %3d, rank %d, m %4ld: %8.2f ms, %8.0f tokens/s, %6.1f "
            "GFLOP/s, %5.1f GB/s; dense bf16 %8.2f ms\n",
            group, rank, m, 1e3 * s, static_cast<double>(m) / s,
            2e-9 * static_cast<double>(m) * weights / s, 1e-9 * bytes / s, 1e3 * dense);
        std::fflush(stdout);
      }
    }
  }
  const test::QuantizedCase head({.n = 49152, .k = 576, .bits = 8, .zero_kind = ZeroKind::kF16}, 1);
  std::vector<float> x(576, 0.5f), y(49152);
  HostBuffer workspace;
  const double s = bench.time([&] {
    cpu::w4_linear(head.args(1, x.data(), y.data()), false, workspace, bench.pool, gemm);
  });
  std::printf("8-bit head, m 1: %.2f ms, %.1f GB/s\n", 1e3 * s,
              1e-9 * static_cast<double>(head.w().code_bytes()) / s);
}

}  // namespace
}  // namespace spear

int main(int argc, char** argv) {
  std::set<std::string> wanted;
  int threads = 0;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--threads" && i + 1 < argc)
      threads = std::atoi(argv[++i]);
    else
      wanted.insert(argv[i]);
  }
  spear::Bench bench(threads);
  bench.fma_peak = spear::measured_peak(bench);
  std::printf("%d threads, %s; multiply-adds in registers: %.0f GFLOP/s\n", bench.pool.size(),
              spear::cpu::simd_loops().name, bench.fma_peak);
  const auto wants = [&](const char* name) { return wanted.empty() || wanted.count(name) != 0; };
  if (wants("attention")) spear::bench_attention(bench);
  if (wants("training")) spear::bench_training(bench);
  if (wants("loss")) spear::bench_loss(bench);
  if (wants("w4")) spear::bench_w4(bench);
  if (wants("gemm")) spear::bench_gemm(bench);
}
