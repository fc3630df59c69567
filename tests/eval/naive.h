// Evaluation written the slow and obvious way: one sequence at a time, all logits at once, sums in
// double.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "spear/base/thread_pool.h"
#include "spear/model/decoder.h"
#include "spear/model/kv_cache.h"

namespace spear::test {

// A CPU backend with its pool; plain products, so that results do not depend on the machine.
class TestBackend {
 public:
  TestBackend() : pool_(2), backend_(value_or_throw(make_cpu_backend(pool_))) {}
  Backend& operator*() { return *backend_; }

 private:
  ThreadPool pool_;
  std::unique_ptr<Backend> backend_;
};

inline std::vector<float> hidden_of(Decoder& decoder, std::span<const int32_t> tokens) {
  const auto m = static_cast<int64_t>(tokens.size());
  KvCache cache(decoder.backend(), decoder.config(), 1, m, true);
  const AttentionSequence sequence = cache.append(0, 0, m);
  std::vector<float> hidden(tokens.size() * static_cast<size_t>(decoder.config().hidden_size));
  DeviceBuffer buffer = decoder.backend().allocate(hidden.size() * sizeof(float));
  decoder.forward({tokens, {&sequence, 1}}, cache, buffer.as<float>());
  decoder.backend().download(hidden.data(), buffer.as<float>(), hidden.size() * sizeof(float));
  return hidden;
}

using Rows = std::vector<std::vector<double>>;

// log softmax(logits) of every position.
inline Rows log_probabilities(Decoder& decoder, std::span<const int32_t> tokens) {
  const auto vocab = static_cast<size_t>(decoder.config().vocab_size);
  const std::vector<float> hidden = hidden_of(decoder, tokens);
  Backend& backend = decoder.backend();
  DeviceBuffer in = backend.allocate(hidden.size() * sizeof(float));
  DeviceBuffer out = backend.allocate(tokens.size() * vocab * sizeof(float));
  backend.upload(in.as<float>(), hidden.data(), hidden.size() * sizeof(float));
  decoder.logits(in.as<float>(), static_cast<int64_t>(tokens.size()), out.as<float>());
  std::vector<float> logits(tokens.size() * vocab);
  backend.download(logits.data(), out.as<float>(), logits.size() * sizeof(float));

  Rows rows;
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::vector<double> row(logits.begin() + static_cast<std::ptrdiff_t>(i * vocab),
                            logits.begin() + static_cast<std::ptrdiff_t>((i + 1) * vocab));
    double sum = 0;
    for (const double value : row) sum += std::exp(value);
    for (double& value : row) value -= std::log(sum);
    rows.push_back(std::move(row));
  }
  return rows;
}

inline double kl_of(const std::vector<double>& p, const std::vector<double>& q) {
  double sum = 0;
  for (size_t v = 0; v < p.size(); ++v) sum += std::exp(p[v]) * (p[v] - q[v]);
  return sum;
}

inline int32_t best_of(const std::vector<double>& row) {
  return static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

}  // namespace spear::test
