#include "spear/compensate/removal.h"

#include <algorithm>

#include <fmt/format.h>

#include "spear/base/check.h"
#include "spear/base/error.h"
#include "spear/compensate/training_batches.h"

namespace spear {

size_t compensator_bytes(int64_t n, int64_t k, int64_t rank, int64_t gate_hidden,
                         int32_t factor_bits) {
  const auto row = [&](int64_t count) { return (count * factor_bits + 7) / 8; };
  const int64_t scales = factor_bits == 16 ? 0 : 4 * rank;
  const int64_t gate = gate_hidden == 0 ? 0 : 2 * (2 * gate_hidden * rank + gate_hidden + rank);
  return static_cast<size_t>(rank * (row(k) + row(n)) + scales + gate);
}

std::vector<double> removal_damage(StudentModel& student, ReversePass& pass,
                                   std::span<const float> values, const TrainingData& data,
                                   std::span<const int64_t> sequences, int64_t micro_tokens,
                                   float temperature, Progress& progress) {
  std::vector<double> damage(static_cast<size_t>(student.module_count()), 0.0);
  std::vector<int64_t> modules;  // high layers first
  for (int64_t index = student.module_count() - 1; index >= 0; --index)
    if (student.linear(index).rank > 0 && student.linear(index).compensate)
      modules.push_back(index);
  const int64_t together = std::max<int64_t>(1, micro_tokens / data.tokens.length);
  const auto count = static_cast<int64_t>(sequences.size());
  const int64_t pieces = (count + together - 1) / together;
  progress.begin("compensators one by one", pieces * static_cast<int64_t>(modules.size()));
  BatchBuffer buffer(data, micro_tokens, temperature);
  buffer.each(sequences, [&](const StudentBatch& batch, double share) {
    const double whole = pass.loss(values, batch);
    for (const int64_t index : modules) {
      if (progress.stop_requested())
        throw Failure(ErrorCode::kInterrupted,
                      "stopped while compensators were switched off one by one; the same "
                      "command measures them again");
      student.linear(index).compensate = false;
      const double without =
          pass.loss_from(static_cast<int32_t>(index / kModulesPerLayer), values, batch);
      student.linear(index).compensate = true;
      damage[static_cast<size_t>(index)] += share * (without - whole);
      progress.advance(1);
    }
  });
  progress.end();
  return damage;
}

Dropped drop_useless(StudentModel& student, ReversePass& pass, std::span<const float> values,
                     const TrainingData& data, std::span<const int64_t> sequences,
                     std::span<const double> damage, const TrainerOptions& options,
                     double allowed) {
  expects(static_cast<int64_t>(damage.size()) == student.module_count());
  const auto kl = [&] {
    return mean_kl(pass, values, data, sequences, options.micro_tokens, options.temperature);
  };
  Dropped dropped;
  dropped.kl = kl();
  const double limit = allowed * dropped.kl;
  for (int64_t index = 0; index < student.module_count(); ++index) {
    StudentLinear& linear = student.linear(index);
    if (linear.rank == 0 || !linear.compensate || damage[static_cast<size_t>(index)] > 0) continue;
    linear.compensate = false;
    dropped.modules.push_back(index);
  }
  std::sort(dropped.modules.begin(), dropped.modules.end(), [&](int64_t a, int64_t b) {
    return damage[static_cast<size_t>(a)] < damage[static_cast<size_t>(b)];
  });
  // Halves what is dropped until the KL is not raised: a few measurements instead of one for each
  // module.
  while (!dropped.modules.empty()) {
    dropped.kl = kl();
    if (dropped.kl <= limit) break;
    const size_t kept = dropped.modules.size() / 2;
    for (size_t i = kept; i < dropped.modules.size(); ++i)
      student.linear(dropped.modules[i]).compensate = true;
    dropped.modules.resize(kept);
  }
  for (const int64_t index : dropped.modules) {
    const StudentLinear& linear = student.linear(index);
    dropped.bytes +=
        compensator_bytes(linear.n, linear.k, linear.rank, linear.gate_hidden, options.factor_bits);
  }
  return dropped;
}

}  // namespace spear
