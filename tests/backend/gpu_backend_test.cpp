// Every operation of the GPU backend against the plain twins of kernels/ref, on edge shapes,
// outputs pre-filled with NaN; then whole decoders against the CPU. Skipped, with the reason, where
// there is no GPU.
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>

#include <gtest/gtest.h>

#include "spear/backend/backend.h"
#include "spear/base/rng.h"
#include "spear/base/thread_pool.h"
#include "spear/model/decoder.h"

#include "support/closeness.h"
#include "support/random_tensors.h"
#include "support/tiny_model.h"

namespace spear {
namespace {

using test::normal_values;
using Values = std::vector<float>;

const float kNan = std::numeric_limits<float>::quiet_NaN();

class GpuBackendTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<Backend>> made = make_gpu_backend(0);
    if (!made) GTEST_SKIP() << made.error().message;
    gpu_ = std::move(*made);
  }
  template <class T>
  DeviceBuffer put(const std::vector<T>& host) {
    DeviceBuffer buffer = gpu_->allocate(host.size() * sizeof(T));
    gpu_->upload(buffer.as<void>(), host.data(), host.size() * sizeof(T));
    return buffer;
  }
  Values get(const DeviceBuffer& buffer) {
    Values host(buffer.bytes() / sizeof(float));
    gpu_->download(host.data(), buffer.as<float>(), buffer.bytes());
    return host;
  }
  // Values of order `scale` from sums of `terms` products in FP32, in whatever order.
  static test::Closeness fp32(int64_t terms, double scale = 1) {
    const double bound =
        4 * test::gamma(terms, test::kRoundoffF32) * std::sqrt(static_cast<double>(terms));
    return {.absolute = bound * scale + 1e-6 * scale, .relative = bound + 2e-6};
  }
  Rng rng_{17};
  std::unique_ptr<Backend> gpu_;
};

TEST_F(GpuBackendTest, RmsNormAndItsReverse) {
  for (const int64_t m : {1, 3, 65})
    for (const int64_t n : {1, 31, 64, 576, 1000})
      for (const bool weighted : {false, true}) {
        const Values x = normal_values(m * n, rng_);
        const Values weight = normal_values(n, rng_);
        const Values dy = normal_values(m * n, rng_);
        Values y(x.size(), kNan), inverse(static_cast<size_t>(m), kNan),
            dx = normal_values(m * n, rng_);
        Values dweight = normal_values(n, rng_);
        const DeviceBuffer gx = put(x), gw = put(weight), gdy = put(dy), gy = put(y),
                           gi = put(inverse), gdx = put(dx);
        const DeviceBuffer gdw = put(dweight);
        ref::rms_norm(
            {m, n, x.data(), weighted ? weight.data() : nullptr, 1e-5f, y.data(), inverse.data()});
        ref::rms_norm_backward({m, n, x.data(), weighted ? weight.data() : nullptr, inverse.data(),
                                dy.data(), dx.data(), weighted ? dweight.data() : nullptr});
        gpu_->rms_norm({m, n, gx.as<float>(), weighted ? gw.as<float>() : nullptr, 1e-5f,
                        gy.as<float>(), gi.as<float>()});
        gpu_->rms_norm_backward({m, n, gx.as<float>(), weighted ? gw.as<float>() : nullptr,
                                 gi.as<float>(), gdy.as<float>(), gdx.as<float>(),
                                 weighted ? gdw.as<float>() : nullptr});
        EXPECT_TRUE(test::all_close(get(gy), y, fp32(n))) << m << " x " << n;
        EXPECT_TRUE(test::all_close(get(gdx), dx, fp32(n, 10))) << m << " x " << n;
        EXPECT_TRUE(test::all_close(get(gdw), dweight, fp32(m, 10))) << m << " x " << n;
      }
}

TEST_F(GpuBackendTest, RopeRotatesForthAndBack) {
  for (const int64_t heads : {1, 3})
    for (const int64_t d : {2, 64, 128}) {
      const int64_t m = 5;
      const std::vector<int32_t> positions = {0, 1, 77, 4095, 100000};
      Values frequencies;
      for (int64_t j = 0; j < d / 2; ++j)
        frequencies.push_back(static_cast<float>(
            std::pow(10000.0, -2.0 * static_cast<double>(j) / static_cast<double>(d))));
      Values x = normal_values(m * heads * d, rng_);
      const Values before = x;
      const DeviceBuffer gx = put(x), gp = put(positions), gf = put(frequencies);
      ref::rope({m, heads, d, x.data(), heads * d, positions.data(), frequencies.data(), false});
      RopeArgs args{m,    heads, d, gx.as<float>(), heads * d, gp.as<int32_t>(), gf.as<float>(),
                    false};
      gpu_->rope(args);
      EXPECT_TRUE(test::all_close(get(gx), x, {.absolute = 2e-5}));
      args.inverse = true;
      gpu_->rope(args);
      EXPECT_TRUE(test::all_close(get(gx), before, {.absolute = 2e-5}));
    }
}

TEST_F(GpuBackendTest, SiluMulAndItsReverse) {
  for (const int64_t count : {1, 255, 256, 1537}) {
    const Values gate = normal_values(count, rng_, 3), up = normal_values(count, rng_),
                 dy = normal_values(count, rng_);
    Values y(gate.size(), kNan), dgate = y, dup = y;
    const DeviceBuffer gg = put(gate), gu = put(up), gd = put(dy), gy = put(y), gdg = put(y),
                       gdu = put(y);
    ref::silu_mul({count, gate.data(), up.data(), y.data()});
    ref::silu_mul_backward({count, gate.data(), up.data(), dy.data(), dgate.data(), dup.data()});
    gpu_->silu_mul({count, gg.as<float>(), gu.as<float>(), gy.as<float>()});
    gpu_->silu_mul_backward(
        {count, gg.as<float>(), gu.as<float>(), gd.as<float>(), gdg.as<float>(), gdu.as<float>()});
    EXPECT_TRUE(test::all_close(get(gy), y, {.absolute = 1e-5, .relative = 1e-5}));
    EXPECT_TRUE(test::all_close(get(gdg), dgate, {.absolute = 1e-5, .relative = 1e-5}));
    EXPECT_TRUE(test::all_close(get(gdu), dup, {.absolute = 1e-5, .relative = 1e-5}));
  }
}

TEST_F(GpuBackendTest, RotationAndItsInverse) {
  for (const auto& [p, h] :
       {std::pair<int64_t, int64_t>{1, 64}, {9, 64}, {3, 8}, {7, 128}, {5, 1}}) {
    const int64_t n = p * h;
    Values signs_in, signs_out, factor = normal_values(p * p, rng_);
    for (int64_t i = 0; i < n; ++i) {
      signs_in.push_back(rng_.below(2) == 0 ? 1.0f : -1.0f);
      signs_out.push_back(rng_.below(2) == 0 ? 1.0f : -1.0f);
    }
    const DeviceBuffer gi = put(signs_in), go = put(signs_out), gf = put(factor);
    const RotationView on_host{n, p, h, signs_in.data(), factor.data(), signs_out.data()};
    const RotationView on_gpu{n, p, h, gi.as<float>(), gf.as<float>(), go.as<float>()};
    for (const bool inverse : {false, true}) {
      Values x = normal_values(3 * n, rng_);
      const DeviceBuffer gx = put(x);
      ref::rotate({3, on_host, inverse, x.data()});
      gpu_->rotate({3, on_gpu, inverse, gx.as<float>()});
      EXPECT_TRUE(test::all_close(get(gx), x, fp32(n, 10))) << p << " x " << h;
    }
  }
}

TEST_F(GpuBackendTest, DenseAttentionAndItsReverse) {
  for (const int64_t length : {1, 31, 33, 70})
    for (const int64_t d : {8, 64, 128})
      for (const auto& [heads, kv_heads] : {std::pair<int64_t, int64_t>{2, 2}, {6, 2}}) {
        const int64_t batch = 2;
        const Values q = normal_values(batch * length * heads * d, rng_);
        const Values k = normal_values(batch * length * kv_heads * d, rng_);
        const Values v = normal_values(batch * length * kv_heads * d, rng_);
        const Values dy = normal_values(batch * length * heads * d, rng_);
        Values y(q.size(), kNan), log_sum(static_cast<size_t>(batch * heads * length), kNan);
        Values dq(q.size(), kNan), dk(k.size(), kNan), dv(k.size(), kNan);
        const DeviceBuffer gq = put(q), gk = put(k), gv = put(v), gdy = put(dy), gy = put(y),
                           gl = put(log_sum);
        const DeviceBuffer gdq = put(dq), gdk = put(dk), gdv = put(dv);
        const float scale = 1.0f / std::sqrt(static_cast<float>(d));
        const DenseAttentionArgs host{batch, length,   heads,         kv_heads,
                                      d,     q.data(), k.data(),      v.data(),
                                      scale, y.data(), log_sum.data()};
        const DenseAttentionArgs device{batch, length,         heads,          kv_heads,
                                        d,     gq.as<float>(), gk.as<float>(), gv.as<float>(),
                                        scale, gy.as<float>(), gl.as<float>()};
        ref::dense_attention(host);
        ref::dense_attention_backward({host, dy.data(), dq.data(), dk.data(), dv.data()});
        gpu_->dense_attention(device);
        gpu_->dense_attention_backward(
            {device, gdy.as<float>(), gdq.as<float>(), gdk.as<float>(), gdv.as<float>()});
        const auto close = fp32(d + length * heads, 4);
        EXPECT_TRUE(test::all_close(get(gy), y, close)) << length << " x " << d;
        EXPECT_TRUE(test::all_close(get(gl), log_sum, close)) << length << " x " << d;
        EXPECT_TRUE(test::all_close(get(gdq), dq, close)) << length << " x " << d;
        EXPECT_TRUE(test::all_close(get(gdk), dk, close)) << length << " x " << d;
        EXPECT_TRUE(test::all_close(get(gdv), dv, close)) << length << " x " << d;
      }
}

TEST_F(GpuBackendTest, KlAndItsGradient) {
  for (const int64_t vocab : {2, 33, 512, 4099})
    for (const float temperature : {1.0f, 2.0f}) {
      const int64_t m = 3;
      const Values teacher = normal_values(m * vocab, rng_, 3);
      Values student = normal_values(m * vocab, rng_, 3), kl(3, kNan), log_sum(3, kNan);
      std::vector<int32_t> argmax(3, -1);
      const DeviceBuffer gt = put(teacher), gs = put(student), gk = put(kl), gl = put(log_sum),
                         ga = put(argmax);
      const std::vector<int32_t> targets = {0, 1, static_cast<int32_t>(vocab - 1)};
      Values logits(3, kNan);
      const DeviceBuffer gi = put(targets), gx = put(logits);
      ref::log_sum_exp(
          {m, vocab, student.data(), log_sum.data(), argmax.data(), targets.data(), logits.data()});
      gpu_->log_sum_exp({m, vocab, gs.as<float>(), gl.as<float>(), ga.as<int32_t>(),
                         gi.as<int32_t>(), gx.as<float>()});
      EXPECT_EQ(get(gx), logits);
      EXPECT_TRUE(test::all_close(get(gl), log_sum, {.relative = 1e-5}));
      std::vector<int32_t> found(3);
      gpu_->download(found.data(), ga.as<int32_t>(), 12);
      EXPECT_EQ(found, argmax);
      ref::kl_divergence({m, vocab, teacher.data(), student.data(), temperature, 0.5f, kl.data()});
      gpu_->kl_divergence(
          {m, vocab, gt.as<float>(), gs.as<float>(), temperature, 0.5f, gk.as<float>()});
      EXPECT_TRUE(test::all_close(get(gk), kl, {.absolute = 2e-5, .relative = 2e-5})) << vocab;
      EXPECT_TRUE(test::all_close(get(gs), student, {.absolute = 2e-6, .relative = 1e-5})) << vocab;
    }
}

TEST_F(GpuBackendTest, ProductsInEveryTransposition) {
  for (const bool ta : {false, true})
    for (const bool tb : {false, true})
      for (const float beta : {0.0f, 1.0f}) {
        const int64_t m = 5, n = 17, k = 33;
        const Values a = normal_values(m * k, rng_), b = normal_values(k * n, rng_);
        Values c(static_cast<size_t>(m * n), beta == 0 ? kNan : 0.25f);
        const DeviceBuffer ga = put(a), gb = put(b), gc = put(c);
        GemmArgs args{.m = m,
                      .n = n,
                      .k = k,
                      .a = a.data(),
                      .lda = ta ? m : k,
                      .transpose_a = ta,
                      .b = b.data(),
                      .ldb = tb ? k : n,
                      .transpose_b = tb,
                      .c = c.data(),
                      .ldc = n,
                      .alpha = 0.5f,
                      .beta = beta};
        ref::gemm().run(args, nullptr);
        args.a = ga.as<float>();
        args.b = gb.as<float>();
        args.c = gc.as<float>();
        gpu_->gemm(args);
        EXPECT_TRUE(test::all_close(get(gc), c, fp32(k, 4)));
      }
}

// Whole decoders: FP32 on both sides, plain and quantized with groups, zero kinds and gated
// compensators.
class GpuDecoderTest : public GpuBackendTest {
 protected:
  template <class Model>
  void compare(const Model& model) {
    ThreadPool pool(2);
    const std::unique_ptr<Backend> cpu = value_or_throw(make_cpu_backend(pool));
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < 90; ++i)
      tokens.push_back(i * i % static_cast<int32_t>(model.config.vocab_size));
    EXPECT_TRUE(test::all_close(logits(*gpu_, model, tokens), logits(*cpu, model, tokens),
                                {.absolute = 2e-4, .relative = 2e-4}));
  }
  template <class Model>
  Values logits(Backend& backend, const Model& model, const std::vector<int32_t>& tokens) {
    Decoder decoder(backend, model, Compute::kF32);
    KvCache cache(backend, model.config, 2, 70, true);
    const int64_t vocab = model.config.vocab_size;
    const DeviceBuffer hidden =
        backend.allocate(90 * static_cast<size_t>(model.config.hidden_size) * 4);
    const DeviceBuffer out = backend.allocate(90 * static_cast<size_t>(vocab) * 4);
    // Two sequences in one batch, then one more token of the first.
    std::vector<AttentionSequence> rows = {cache.append(0, 0, 66), cache.append(1, 66, 23)};
    decoder.forward({std::span(tokens).first(89), rows}, cache, hidden.as<float>());
    decoder.logits(hidden.as<float>(), 89, out.as<float>());
    rows = {cache.append(0, 0, 1)};
    decoder.forward({std::span(tokens).last(1), rows}, cache, hidden.as<float>());
    decoder.logits(hidden.as<float>(), 1, out.as<float>() + 89 * vocab);
    Values host(90 * static_cast<size_t>(vocab));
    backend.download(host.data(), out.as<float>(), host.size() * 4);
    return host;
  }
};

TEST_F(GpuDecoderTest, FullPrecisionAgreesWithTheCpu) {
  compare(test::tiny_model({.tied = false, .attention_bias = true}));
  compare(test::tiny_model({.head_dim = 16, .qk_norm = true}));
}

TEST_F(GpuDecoderTest, QuantizedWithCompensatorsAgreesWithTheCpu) {
  const DenseModel dense = test::tiny_model();
  for (const int32_t bits : {2, 3, 4, 8})
    for (const int32_t factor_bits : {4, 8, 16}) {
      QuantizedModel model = test::tiny_quantized(dense, bits);
      for (QuantizedLayer& layer : model.layers)
        for (QuantizedLinear& linear : layer.linears) {
          CompensatorValues values;
          values.rank = 3;
          values.n = linear.weight.n;
          values.k = linear.weight.k;
          values.gate_hidden = 4;
          values.a = normal_values(3 * values.k, rng_, 0.1f);
          values.b = normal_values(3 * values.n, rng_, 0.1f);
          values.w1 = normal_values(12, rng_);
          values.b1 = normal_values(4, rng_);
          values.w2 = normal_values(12, rng_);
          values.b2 = normal_values(3, rng_);
          linear.compensator = pack(values, factor_bits);
        }
      ResidualRotation rotation;
      rotation.p = 3;
      rotation.h = 8;
      rotation.signs_in.assign(24, 1.0f);
      rotation.signs_out.assign(24, -1.0f);
      rotation.factor = {1, 0, 0, 0, 0, 1, 0, 1, 0};
      model.rotation = rotation;
      compare(model);
    }
}

}  // namespace
}  // namespace spear
