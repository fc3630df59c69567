// What stands between the products of a fused decode step, against the plain twins: attention with
// RoPE and the cache's append, embedding and rotation, the final norm; and what each owes the next
// product.
#include "spear/kernels/gpu/decode_step.h"

#include <cmath>
#include <numeric>

#include "kernels/gpu/device.h"
#include "kernels/quantized_case.h"
#include "support/closeness.h"
#include "support/random_tensors.h"

namespace spear {
namespace {

constexpr int32_t kPage = 16;
using Values = std::vector<float>;

class DecodeStepTest : public test::DeviceTest {
 protected:
  // `owed`: [m, parts, width] against Σ out · a.
  void expect_owed(const Values& owed, const Values& out, const std::vector<int8_t>& a, size_t m,
                   size_t parts, size_t width) {
    const size_t n = out.size() / m;
    for (size_t i = 0; i < m; ++i)
      for (size_t j = 0; j < width; ++j) {
        double sum = 0;
        double size = 0;
        double got = 0;
        for (size_t r = 0; r < n; ++r) {
          const double term = static_cast<double>(out[i * n + r]) * a[r * width + j];
          sum += term;
          size += std::abs(term);
        }
        for (size_t b = 0; b < parts; ++b)
          got += static_cast<double>(owed[(i * parts + b) * width + j]);
        ASSERT_NEAR(got, sum, (0x1p-10 + test::gamma(static_cast<int64_t>(n), 0x1p-24)) * size);
      }
  }
  static std::vector<int8_t> factor(size_t count, Rng& rng) {
    std::vector<int8_t> out(count);
    for (int8_t& v : out) v = static_cast<int8_t>(rng.next() >> 24);
    return out;
  }
  static Values floats_of(const std::vector<uint16_t>& bits) {
    Values out;
    for (const uint16_t b : bits) out.push_back(float_from_f16(b));
    return out;
  }

  void attention(int32_t heads, int32_t kv_heads, int32_t d, DType type, bool normed) {
    Rng rng(static_cast<uint64_t>(heads * 1000 + d));
    const std::vector<int32_t> contexts = {0, 1, kPage - 1, kPage, 77, 301};
    const auto m = static_cast<int32_t>(contexts.size());
    const int32_t width = (heads + 2 * kv_heads) * d;
    std::vector<int32_t> begins, table;
    for (const int32_t context : contexts) {
      begins.push_back(static_cast<int32_t>(table.size()));
      for (int32_t p = 0; p <= context / kPage; ++p)
        table.push_back(static_cast<int32_t>(table.size()));
    }
    // Pages in an order that is not their own.
    const auto pages = static_cast<int32_t>(table.size());
    for (int32_t& p : table) p = static_cast<int32_t>((p * 7 + 3) % pages);
    while (std::gcd(7, pages) != 1) FAIL() << "choose other contexts";
    const auto entries = static_cast<size_t>(pages * kv_heads * kPage);
    const Values qkv = test::normal_values(static_cast<int64_t>(m) * width, rng);
    const Values q_norm = test::normal_values(d, rng);
    const Values k_norm = test::normal_values(d, rng);
    Values frequencies;
    for (int32_t j = 0; j < d / 2; ++j)
      frequencies.push_back(
          std::pow(10000.0f, -2.0f * static_cast<float>(j) / static_cast<float>(d)));

    // The cache as the device holds it, and as floats.
    Values keys = test::normal_values(static_cast<int64_t>(entries) * d, rng);
    Values values = test::normal_values(static_cast<int64_t>(entries) * d, rng);
    KvLayerView cache{.page_size = kPage, .type = type};
    if (type == DType::kF32) {
      cache.keys = put(keys);
      cache.values = put(values);
    } else if (type == DType::kF16) {
      std::vector<uint16_t> kh, vh;
      for (float& v : keys) kh.push_back(f16_from_float(v)), v = float_from_f16(kh.back());
      for (float& v : values) vh.push_back(f16_from_float(v)), v = float_from_f16(vh.back());
      cache.keys = put(kh);
      cache.values = put(vh);
    } else {
      const std::vector<int8_t> kc = factor(keys.size(), rng);
      const std::vector<int8_t> vc = factor(values.size(), rng);
      Values ks, vs;
      for (size_t e = 0; e < entries; ++e) {
        ks.push_back(0.01f + 0.001f * static_cast<float>(e % 7));
        vs.push_back(0.02f - 0.001f * static_cast<float>(e % 5));
        for (size_t j = 0; j < static_cast<size_t>(d); ++j) {
          keys[e * static_cast<size_t>(d) + j] = ks[e] * kc[e * static_cast<size_t>(d) + j];
          values[e * static_cast<size_t>(d) + j] = vs[e] * vc[e * static_cast<size_t>(d) + j];
        }
      }
      cache.keys = put(kc);
      cache.values = put(vc);
      cache.key_scales = put(ks);
      cache.value_scales = put(vs);
    }

    // The twin: norm, RoPE, append, attention one operation at a time.
    Values q, k, v;
    for (int32_t i = 0; i < m; ++i) {
      const float* row = qkv.data() + static_cast<size_t>(i) * static_cast<size_t>(width);
      q.insert(q.end(), row, row + heads * d);
      k.insert(k.end(), row + heads * d, row + (heads + kv_heads) * d);
      v.insert(v.end(), row + (heads + kv_heads) * d, row + width);
    }
    if (normed) {
      ref::rms_norm({static_cast<int64_t>(m) * heads, d, q.data(), q_norm.data(), 1e-6f, q.data()});
      ref::rms_norm(
          {static_cast<int64_t>(m) * kv_heads, d, k.data(), k_norm.data(), 1e-6f, k.data()});
    }
    ref::rope({m, heads, d, q.data(), static_cast<int64_t>(heads) * d, contexts.data(),
               frequencies.data()});
    ref::rope({m, kv_heads, d, k.data(), static_cast<int64_t>(kv_heads) * d, contexts.data(),
               frequencies.data()});
    std::vector<AttentionSequence> sequences;
    for (int32_t i = 0; i < m; ++i)
      sequences.push_back(
          {i, 1, contexts[static_cast<size_t>(i)], table.data() + begins[static_cast<size_t>(i)]});
    const KvLayerView on_host{.keys = keys.data(), .values = values.data(), .page_size = kPage};
    ref::kv_append({kv_heads, d, k.data(), v.data(), on_host, sequences.data(), m});
    Values want(q.size());
    ref::attention({heads, kv_heads, d, q.data(), on_host, sequences.data(), m,
                    1.0f / std::sqrt(static_cast<float>(d)), want.data()});

    // Angles as begin_step leaves them.
    Values angles;
    for (const int32_t context : contexts)
      for (const float f : frequencies) {
        const double angle = static_cast<double>(context) * static_cast<double>(f);
        angles.push_back(static_cast<float>(std::cos(angle)));
        angles.push_back(static_cast<float>(std::sin(angle)));
      }
    const std::vector<int8_t> next = factor(static_cast<size_t>(heads * d) * 8, rng);
    Guarded<uint16_t> y(want.size());
    Guarded<float> owed(static_cast<size_t>(m * kv_heads) * 8);
    gpu::decode_attention({.m = m,
                           .heads = heads,
                           .kv_heads = kv_heads,
                           .head_dim = d,
                           .tables = {nullptr, put(contexts), put(begins), put(table)},
                           .angles = put(angles),
                           .qkv = put(qkv),
                           .q_norm = normed ? put(q_norm) : nullptr,
                           .k_norm = normed ? put(k_norm) : nullptr,
                           .eps = 1e-6f,
                           .cache = cache,
                           .y = y.data(),
                           .y_stride = static_cast<int64_t>(heads) * d,
                           .next = {8, put(next), nullptr, owed.data()}},
                          multiprocessors_, stream_);
    const Values found = floats_of(y.values());
    // Weights sum to one: an error e of every score changes the result by at most 2 e max|v|; the
    // new row is rounded as the cache holds it.
    float most = 0;
    for (const float value : values) most = std::max(most, std::abs(value));
    const double stored = type == DType::kF32 ? 0.0 : type == DType::kF16 ? 0x1p-11 : 1.0 / 127;
    const double scores = test::gamma(d + 40, 0x1p-24) * 4 * d / std::sqrt(d) * 9;
    const double bound = (2 * scores + 0x1p-11 + (type == DType::kF32 ? 0 : 2 * stored * 6)) *
                         static_cast<double>(most);
    EXPECT_TRUE(test::all_close(found, want, {.absolute = bound}))
        << heads << " heads, " << kv_heads << " of keys, " << d << ", type "
        << static_cast<int>(type);
    expect_owed(owed.values(), found, next, static_cast<size_t>(m), static_cast<size_t>(kv_heads),
                8);
    // What was appended.
    if (type == DType::kF32) {
      EXPECT_TRUE(test::all_close(get(static_cast<const float*>(cache.keys), keys.size()), keys,
                                  {.absolute = 4e-6, .relative = 4e-6}));
      EXPECT_TRUE(test::all_close(get(static_cast<const float*>(cache.values), values.size()),
                                  values, {.absolute = 0}));
    }
    release();
  }
};

TEST_F(DecodeStepTest, AttentionEqualsTheTwin) {
  for (const DType type : {DType::kF32, DType::kF16, DType::kI8})
    for (const int32_t d : {64, 128})
      for (const auto& [heads, kv_heads] :
           {std::pair{2, 2}, {9, 3}, {32, 8}, {14, 2}, {8, 1}, {40, 40}})
        attention(heads, kv_heads, d, type, heads == 9);
}

TEST_F(DecodeStepTest, BeginsWithRotatedEmbeddings) {
  Rng rng(4);
  for (const int32_t bits : {4, 6, 8, 16})
    for (const bool rotated : {false, true}) {
      const int32_t hidden = 576;  // 9 · 64
      const test::QuantizedCase table({.n = 50,
                                       .k = hidden,
                                       .bits = bits,
                                       .group = bits == 4 ? 32 : 0,
                                       .zero_kind = bits == 4 ? ZeroKind::kU4 : ZeroKind::kNone},
                                      6);
      QuantizedView view = table.w();
      std::vector<uint8_t> bf16;  // finite ones
      if (bits == 16) {
        view.group = 0;
        for (const float v : test::normal_values(50 * hidden, rng)) {
          const uint16_t value = bf16_from_float(v);
          bf16.push_back(static_cast<uint8_t>(value));
          bf16.push_back(static_cast<uint8_t>(value >> 8));
        }
        view.codes = bf16.data();
      }
      const std::vector<int32_t> tokens = {3, 49, 0};
      const std::vector<int32_t> contexts = {0, 5, 100000};
      Values want;
      for (const int32_t t : tokens) {
        Values row(static_cast<size_t>(hidden));
        dequantize_rows(view, t, t + 1, row.data());
        want.insert(want.end(), row.begin(), row.end());
      }
      Values signs_in, signs_out, factor_values(81);
      for (int32_t j = 0; j < hidden; ++j) {
        signs_in.push_back(rng.next() >> 31 != 0 ? 1.0f : -1.0f);
        signs_out.push_back(rng.next() >> 31 != 0 ? 1.0f : -1.0f);
      }
      for (size_t i = 0; i < 9; ++i) factor_values[i * 9 + (i + 4) % 9] = 1.0f;  // orthogonal
      RotationView rotation{hidden, 9, 64, signs_in.data(), factor_values.data(), signs_out.data()};
      if (rotated) ref::rotate({3, rotation, false, want.data()});
      RotationView on_device = rotation;
      on_device.signs_in = put(signs_in);
      on_device.factor = put(factor_values);
      on_device.signs_out = put(signs_out);
      if (!rotated) on_device.n = 0;
      QuantizedView device_view = view;
      device_view.codes = put(std::vector<uint8_t>(view.codes, view.codes + view.code_bytes()));
      device_view.scales =
          put(std::vector<uint16_t>(view.scales, view.scales + view.scale_count()));
      const auto* zeros = static_cast<const uint8_t*>(view.zeros);
      device_view.zeros = put(std::vector<uint8_t>(zeros, zeros + view.zero_bytes()));
      const Values frequencies = {1.0f, 0.1f, 0.01f, 1e-4f};
      const Values weight = test::normal_values(hidden, rng);
      const std::vector<int8_t> next = factor(static_cast<size_t>(hidden) * 16, rng);
      Guarded<float> x(want.size());
      Guarded<float> angles(3 * 8);
      Guarded<float> owed(3 * 16);
      gpu::begin_step({.m = 3,
                       .tables = {put(tokens), put(contexts), nullptr, nullptr},
                       .embedding = device_view,
                       .rotation = on_device,
                       .head_dim = 8,
                       .inverse_frequencies = put(frequencies),
                       .x = x.data(),
                       .angles = angles.data(),
                       .next = {16, put(next), put(weight), owed.data()}},
                      stream_);
      const Values found = x.values();
      EXPECT_TRUE(test::all_close(found, want, {.absolute = 2e-5})) << bits << " bits";
      Values weighted = found;
      for (size_t i = 0; i < weighted.size(); ++i) weighted[i] *= weight[i % 576];
      expect_owed(owed.values(), weighted, next, 3, 1, 16);
      const Values a = angles.values();
      for (size_t i = 0; i < 3; ++i)
        for (size_t j = 0; j < 4; ++j) {
          const double angle =
              static_cast<double>(contexts[i]) * static_cast<double>(frequencies[j]);
          EXPECT_NEAR(static_cast<double>(a[(i * 4 + j) * 2]), std::cos(angle), 2e-7);
          EXPECT_NEAR(static_cast<double>(a[(i * 4 + j) * 2 + 1]), std::sin(angle), 2e-7);
        }
      release();
    }
}

TEST_F(DecodeStepTest, FinishesWithTheNormOfChosenRows) {
  Rng rng(9);
  const int32_t hidden = 640;
  const Values x = test::normal_values(5 * hidden, rng, 30);
  const Values weight = test::normal_values(hidden, rng);
  const std::vector<int32_t> rows = {4, 1};
  Values signs(static_cast<size_t>(hidden), -1.0f);
  Values five(25);
  for (size_t i = 0; i < 5; ++i) five[i * 5 + (i + 2) % 5] = 1.0f;
  const RotationView rotation{hidden, 5, 128, signs.data(), five.data(), signs.data()};
  Values want;
  for (const int32_t r : rows)
    want.insert(want.end(), x.begin() + r * hidden, x.begin() + (r + 1) * hidden);
  ref::rotate({2, rotation, true, want.data()});
  ref::rms_norm({2, hidden, want.data(), weight.data(), 1e-5f, want.data()});
  RotationView on_device = rotation;
  on_device.signs_in = on_device.signs_out = put(signs);
  on_device.factor = put(five);
  Guarded<float> normed(want.size());
  Guarded<uint16_t> bits(want.size());
  gpu::finish_step({.rows = 2,
                    .hidden = hidden,
                    .row_of = put(rows),
                    .x = put(x),
                    .rotation = on_device,
                    .weight = put(weight),
                    .eps = 1e-5f,
                    .normed = normed.data(),
                    .half_y = bits.data()},
                   stream_);
  EXPECT_TRUE(test::all_close(normed.values(), want, {.absolute = 1e-5, .relative = 1e-5}));
  EXPECT_TRUE(
      test::all_close(floats_of(bits.values()), want, {.absolute = 2e-5, .relative = 0x1p-10}));
}

}  // namespace
}  // namespace spear
