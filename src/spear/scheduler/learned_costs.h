// A cost table that follows what steps really take. Every entry of the table is multiplied with a
// factor near one; a Kalman filter over the factors learns from each step: mostly a common pace
// (somebody else uses the machine too), slowly each entry by itself. Robust: one step moves a
// prediction no further than a few deviations, and factors stay within kLeast and kMost. One
// thread; error() and headroom() are read by it too.
#pragma once

#include <array>
#include <vector>

#include "spear/scheduler/cost_table.h"

namespace spear {

class LearnedCosts final : public StepCostModel {
 public:
  static constexpr double kLeast = 0.2, kMost = 5;  // of a factor
  static constexpr double kMostHeadroom = 1.5;

  explicit LearnedCosts(StepCostTable table);

  [[nodiscard]] double seconds(const StepShape& shape) const override;
  // The ratio of measured to predicted seconds that 99 steps of 100 stay below, lately.
  [[nodiscard]] double headroom() const override { return headroom_; }
  [[nodiscard]] int32_t levels() const override { return table_.levels(); }
  void observe(const StepShape& shape, double seconds) override;

  // Mean of |measured - predicted| / measured, lately; of predictions made before the step ran.
  [[nodiscard]] double error() const override { return error_; }
  [[nodiscard]] int64_t observed() const { return observed_; }
  // The table with what was learned in it.
  [[nodiscard]] StepCostTable table() const;

 private:
  // One factor each: base and compensators at the knots, then decode rows, keys, pairs.
  struct Term {
    size_t factor = 0;
    double seconds = 0;  // at factor 1
  };
  static constexpr size_t kTerms = 7;
  using Terms = std::array<Term, kTerms>;

  [[nodiscard]] Terms terms(const StepShape& shape) const;
  [[nodiscard]] double predict(const Terms& terms) const;
  void learn(const Terms& terms, double predicted, double seconds);
  void let_drift();

  StepCostTable table_;
  size_t count_;                    // of factors
  std::vector<double> factors_;     // [count]
  std::vector<double> covariance_;  // [count, count]
  std::vector<double> product_;     // [count] workspace
  double headroom_ = 1.05, error_ = 0;
  int64_t observed_ = 0;
};

}  // namespace spear
