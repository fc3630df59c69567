// The untrained part of a recipe: the model quantized, its scales fitted again, and closed-form
// compensators whose ranks are bought with the bytes allowed; or, for the paper's recipe, modules
// chosen by damage with random factors. One thread; works on the pool.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "spear/base/progress.h"
#include "spear/base/thread_pool.h"
#include "spear/compensate/allocate.h"
#include "spear/compensate/recipes.h"
#include "spear/model/dense_model.h"
#include "spear/model/gradients_student.h"
#include "spear/model/quantized_model.h"
#include "spear/quantize/covariance.h"

namespace spear {

// Quantizes and, where the plan starts from closed forms, compensates within plan.extra_bytes.
// `covariances` may be null where the plan needs none.
QuantizedModel make_base_model(const DenseModel& dense, const Covariances* covariances,
                               const RecipePlan& plan, ThreadPool& pool, Progress& progress);

// Bytes that compensators of a model that has none yet may take.
size_t compensator_budget(const QuantizedModel& model, const RecipePlan& plan);

// Ranks for the whole budget: as many as all modules can have alike, the rest where a byte takes
// most error away.
Allocation spend_evenly_then_by_gain(const ModelConfig& config,
                                     std::span<const ModuleGains> modules, size_t budget,
                                     const CompensatorFormat& format);

// The paper's factors before training, on the given modules.
CompensatorList random_compensators(const ModelConfig& config, const Allocation& allocation,
                                    const RecipePlan& plan, uint64_t seed);

// The compensators of a model with gates that are 1 at first (output weights zero, the others
// Kaiming-uniform).
CompensatorList with_gates(const QuantizedModel& model, int32_t gate_per_rank, uint64_t seed);

// What stands between the module's full-precision weight and what the model has of it, [n, k] f32.
std::vector<float> remaining_error(const DenseModel& dense, const QuantizedModel& model,
                                   const RecipePlan& plan, const ModuleId& id, ThreadPool& pool);

}  // namespace spear
