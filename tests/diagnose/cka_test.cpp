#include "spear/diagnose/cka.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "spear/base/rng.h"
#include "spear/base/thread_pool.h"

#include "support/random_tensors.h"

namespace spear {
namespace {

// The Gram form over tokens: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = XXᵀ centred on both
// sides, in double.
double naive_damage(const std::vector<float>& x, const std::vector<float>& y, int64_t tokens,
                    int64_t width) {
  const auto centred_gram = [&](const std::vector<float>& a) {
    std::vector<double> mean(static_cast<size_t>(width), 0.0);
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t j = 0; j < width; ++j)
        mean[static_cast<size_t>(j)] += static_cast<double>(a[static_cast<size_t>(t * width + j)]) /
                                        static_cast<double>(tokens);
    std::vector<double> gram;
    for (int64_t s = 0; s < tokens; ++s)
      for (int64_t t = 0; t < tokens; ++t) {
        double sum = 0;
        for (int64_t j = 0; j < width; ++j)
          sum += (static_cast<double>(a[static_cast<size_t>(s * width + j)]) -
                  mean[static_cast<size_t>(j)]) *
                 (static_cast<double>(a[static_cast<size_t>(t * width + j)]) -
                  mean[static_cast<size_t>(j)]);
        gram.push_back(sum);
      }
    return gram;
  };
  const std::vector<double> k = centred_gram(x);
  const std::vector<double> l = centred_gram(y);
  double kl = 0, kk = 0, ll = 0;
  for (size_t i = 0; i < k.size(); ++i) {
    kl += k[i] * l[i];
    kk += k[i] * k[i];
    ll += l[i] * l[i];
  }
  return 1 - kl / std::sqrt(kk * ll);
}

class CkaTest : public ::testing::Test {
 protected:
  ThreadPool pool_{2};
  Rng rng_{23};
};

TEST_F(CkaTest, EqualsTheGramForm) {
  for (const int64_t tokens : {2, 5, 60})
    for (const int64_t width : {1, 3, 8}) {
      std::vector<float> x = test::normal_values(tokens * width, rng_);
      for (size_t i = 0; i < x.size(); i += static_cast<size_t>(width))
        x[i] += 5;  // a column with a large mean
      std::vector<float> y = x;
      for (float& value : y) value += 0.3f * static_cast<float>(rng_.normal());
      const CkaReference reference(x.data(), tokens, width, pool_);
      EXPECT_NEAR(reference.damage(y.data()), naive_damage(x, y, tokens, width), 1e-5)
          << tokens << " x " << width;
    }
}

TEST_F(CkaTest, IgnoresScaleShiftAndRotation) {
  const int64_t tokens = 200, width = 4;
  const std::vector<float> x = test::normal_values(tokens * width, rng_);
  std::vector<float> y(x.size());
  for (int64_t t = 0; t < tokens; ++t) {
    const float* from = x.data() + t * width;
    float* to = y.data() + t * width;
    to[0] = 3 * (0.6f * from[0] - 0.8f * from[1]) + 1;
    to[1] = 3 * (0.8f * from[0] + 0.6f * from[1]) - 2;
    to[2] = 3 * from[3];
    to[3] = -3 * from[2] + 7;
  }
  const CkaReference reference(x.data(), tokens, width, pool_);
  EXPECT_LT(reference.damage(x.data()), 1e-6);
  EXPECT_LT(reference.damage(y.data()), 1e-5);
  const std::vector<float> other = test::normal_values(tokens * width, rng_);
  EXPECT_GT(reference.damage(other.data()), 0.9);
}

TEST_F(CkaTest, ManyBlocksEqualOne) {
  const int64_t tokens = 5000, width = 3;
  const std::vector<float> x = test::normal_values(tokens * width, rng_);
  std::vector<float> y = x;
  for (size_t i = 0; i < y.size(); i += 2) y[i] += 0.5f * static_cast<float>(rng_.normal());
  const CkaReference reference(x.data(), tokens, width, pool_);
  // By moments in double, block-free.
  double s[3][3][3] = {};
  double mx[3] = {}, my[3] = {};
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t i = 0; i < width; ++i) {
      mx[i] +=
          static_cast<double>(x[static_cast<size_t>(t * width + i)]) / static_cast<double>(tokens);
      my[i] +=
          static_cast<double>(y[static_cast<size_t>(t * width + i)]) / static_cast<double>(tokens);
    }
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t i = 0; i < width; ++i)
      for (int64_t j = 0; j < width; ++j) {
        const double xi = static_cast<double>(x[static_cast<size_t>(t * width + i)]) - mx[i];
        const double xj = static_cast<double>(x[static_cast<size_t>(t * width + j)]) - mx[j];
        const double yi = static_cast<double>(y[static_cast<size_t>(t * width + i)]) - my[i];
        const double yj = static_cast<double>(y[static_cast<size_t>(t * width + j)]) - my[j];
        s[0][i][j] += xi * xj;
        s[1][i][j] += xi * yj;
        s[2][i][j] += yi * yj;
      }
  double square[3] = {};
  for (int part = 0; part < 3; ++part)
    for (auto& row : s[part])
      for (const double value : row) square[part] += value * value;
  EXPECT_NEAR(reference.damage(y.data()), 1 - square[1] / std::sqrt(square[0] * square[2]), 1e-6);
}

}  // namespace
}  // namespace spear
