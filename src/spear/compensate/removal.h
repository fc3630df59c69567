// What each compensator is worth after training: the held-out KL when it alone is left out. Those
// that are worth nothing are dropped; their bytes may buy rank elsewhere. One thread; works on the
// pool and the backend.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "spear/base/progress.h"
#include "spear/compensate/trainer.h"

namespace spear {

// By ModuleId::index(): KL without the module's compensator less KL with all of them, over the
// given sequences; 0 for a module that has none. Each piece of tokens is restarted at the changed
// layer, so the cost is half a forward pass and a head for each compensator. Leaves the student as
// it was. Throws Failure(kInterrupted).
std::vector<double> removal_damage(StudentModel& student, ReversePass& pass,
                                   std::span<const float> values, const TrainingData& data,
                                   std::span<const int64_t> sequences, int64_t micro_tokens,
                                   float temperature, Progress& progress);

struct Dropped {
  std::vector<int64_t> modules;  // by ModuleId::index()
  size_t bytes = 0;              // stored bytes they give back
  double kl = 0;                 // of `sequences` without them
};
// Switches off every compensator whose removal does not raise the KL. Damages are measured one by
// one and perhaps on fewer sequences, so the KL of `sequences` without all of these is measured
// too: while it is above `allowed` times that with all, the worse half of them returns.
Dropped drop_useless(StudentModel& student, ReversePass& pass, std::span<const float> values,
                     const TrainingData& data, std::span<const int64_t> sequences,
                     std::span<const double> damage, const TrainerOptions& options,
                     double allowed = 1.0);

// Stored bytes of a compensator of this shape.
size_t compensator_bytes(int64_t n, int64_t k, int64_t rank, int64_t gate_hidden,
                         int32_t factor_bits);

}  // namespace spear
