// What steps cost on one device with one model, as numbers: a grid over the rows of a step for the
// base and for its compensators, and a price for each decode row, key and (row, key) pair. Read
// from and written to JSON, so that any device's table can be planned with. Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "spear/base/error.h"
#include "spear/scheduler/cost_model.h"

namespace spear {

// Rows of a step lie between two knots; weights of both (the second is 0 on the first knot).
struct KnotPlace {
  size_t knot = 0;  // and knot + 1
  double first = 1, second = 0;
};

struct StepCostTable final : StepCostModel {
  std::string device = {}, model = {};       // for readers
  std::vector<int64_t> rows;                 // ascending, at least two
  std::vector<double> base;                  // [rows] seconds of all but compensators and the below
  std::vector<double> compensators;          // [rows] seconds of all compensators together
  double decode_row = 0;                     // a row that chooses a token: head and sampling
  double context_token = 0;                  // a key read by a decode row
  double prefill_pair = 0;                   // a (row, key) pair of a prompt
  std::vector<double> level_shares = {1.0};  // by level: the compensators' work that is left

  [[nodiscard]] double seconds(const StepShape& shape) const override;
  [[nodiscard]] int32_t levels() const override {
    return static_cast<int32_t>(level_shares.size());
  }
  [[nodiscard]] double share(int32_t level) const;
  // Beyond the last knot (and before the first) the nearest two go on.
  [[nodiscard]] KnotPlace place(int64_t count) const;
};

// How much work compensators are: multiply-adds of a row through factors and gates. What the share
// of a level is counted in.
struct CompensatorWork {
  int64_t rank = 0, in = 0, out = 0, gate_hidden = 0;
  [[nodiscard]] int64_t multiply_adds() const { return rank * (in + out) + 2 * rank * gate_hidden; }
};

// `source` is named in errors.
Result<StepCostTable> parse_step_costs(std::string_view text, std::string_view source);
std::string to_json_text(const StepCostTable& table);

}  // namespace spear
