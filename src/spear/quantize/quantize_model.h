// Quantizes a whole decoder: rotation, range search, RTN or GPTQ, embedding and head, module by
// module so that the model is never held twice. A visitor sees each module with its full-precision
// weight and covariance before it is packed, and may change it: that is where closed forms and
// refits hook in. One thread; works on the pool.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "spear/base/error.h"
#include "spear/base/progress.h"
#include "spear/base/thread_pool.h"
#include "spear/model/dense_model.h"
#include "spear/model/quantized_model.h"
#include "spear/quantize/covariance.h"
#include "spear/quantize/gptq.h"
#include "spear/quantize/rotation.h"

namespace spear {

enum class QuantizeMethod : uint8_t { kRtn, kGptq };

struct QuantizeOptions {
  QuantizeMethod method = QuantizeMethod::kGptq;
  int32_t bits = 4;   // of the linears: 2, 3, 4, 8
  int32_t group = 0;  // 32, 64, 128, 256; 0: per channel
  bool symmetric = false;
  bool clip =
      false;  // search the ranges, weighted with the diagonal of the covariance when there is one
  bool rotate = true;
  uint64_t seed = 1;      // of the rotation
  double damping = 0.01;  // share of the covariance's mean diagonal
  bool activation_order = true;
  int32_t embedding_bits = 0;  // 4, 6, 8, 16; 0: 8 where tied to the head, else 4 (in groups of 32)
  int32_t head_bits = 8;       // 4, 6, 8, 16; ignored where tied
  ZeroKind zero_kind = ZeroKind::kU4;  // of asymmetric linears of at most 4 bits

  [[nodiscard]] GridOptions grid() const { return {bits, group, symmetric, clip, zero_kind}; }
};

// Refuses values out of their lists and groups that do not divide a module's inputs, with a
// sentence.
Result<void> validate(const QuantizeOptions& options, const ModelConfig& config);

// One module on its way into the model.
struct ModuleWork {
  ModuleId id;
  const HostTensor& weight;  // [n, k] f32: what is approximated, rotated if the model is
  const HostTensor*
      covariance;            // [k, k] f32 of its inputs, rotated likewise; null without covariances
  const GptqFactor* factor;  // null with RTN
  UnpackedMatrix quantized;
  ZeroKind zero_kind;  // what the zeros will be packed as
  std::optional<ErrorCompensator> compensator;
};
using ModuleVisitor = std::function<void(ModuleWork&)>;

// `covariances` may be null for RTN; `visitor` may be empty. Throws Failure (bad options, weights
// that are not finite, covariances that are missing or damaged, interrupted).
QuantizedModel quantize_model(const DenseModel& model, const Covariances* covariances,
                              const QuantizeOptions& options, ThreadPool& pool, Progress& progress,
                              const ModuleVisitor& visitor = {});

// An embedding or head: 16 bits kept as BF16, 8 and 6 symmetric per row, 4 asymmetric in groups of
// 32 inputs.
QuantizedMatrix quantize_table(const HostTensor& table, int32_t bits,
                               ThreadPool& pool);  // [vocab, hidden]

}  // namespace spear
