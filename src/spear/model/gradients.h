// The reverse pass of the one graph this program trains: the end-to-end KL of a quantized student
// to its full-precision reference, with respect to everything trainable in the student, on the CPU
// or on a device with training_ops(). F32 activations. Results are the same for every number of
// pool threads as far as the backend's products and attention are. One thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "spear/backend/backend.h"
#include "spear/base/tensor_view.h"
#include "spear/model/gradients_student.h"

namespace spear {

// A batch of sequences of equal length. The teacher's hidden states come from the reference, after
// its final norm.
struct StudentBatch {
  std::span<const int32_t> tokens;  // [sequences · length], below the vocabulary's size
  int64_t sequences = 0, length = 0;
  std::span<const uint16_t> teacher;  // [sequences · length, hidden] bf16
  float temperature = 1.0f;
};

struct ReversePassOptions {
  Compute compute = Compute::kBF16;
  bool keep_activations = false;  // of every layer: a quarter faster, and large
  bool keep_matrices =
      true;  // the codes widened for the products: two bytes a weight (four in F32)
};

// Where the time of a reverse pass went, in seconds.
struct PassTimes {
  double products = 0, attention = 0, loss = 0, small = 0, total = 0;
};

class ReversePass {
 public:
  virtual ~ReversePass() = default;
  // Mean KL(teacher / T || student / T) over all positions.
  virtual double loss(std::span<const float> values, const StudentBatch& batch) = 0;
  // The loss again on the batch of the last call, when since then nothing changed but which
  // compensators of layers from `first_layer` on take part. Forgets what stands above it: calls go
  // from high layers to low ones.
  virtual double loss_from(int32_t first_layer, std::span<const float> values,
                           const StudentBatch& batch) = 0;
  // Adds weight · ∂(T²·KL)/∂values of the wanted kinds to `gradients`, and returns the mean KL.
  virtual double loss_and_gradient(std::span<const float> values, const StudentBatch& batch,
                                   KindSet wanted, double weight, std::span<float> gradients) = 0;
  // The student's hidden states after its final norm: out [sequences · length, hidden].
  virtual void hidden(std::span<const float> values, std::span<const int32_t> tokens,
                      int64_t sequences, int64_t length, std::span<float> out) = 0;
  [[nodiscard]] virtual const PassTimes& times() const = 0;
};

// `reference_head` [vocab, hidden] bf16 or f32: what turns the teacher's hidden states into logits.
// Student and head must outlive the pass. A device computes in BF16 and keeps activations whatever
// the options say; throws Failure(kUnsupported) for kF32 there.
std::unique_ptr<ReversePass> make_reverse_pass(const StudentModel& student,
                                               TensorView reference_head, Backend& backend,
                                               ThreadPool& pool, const ReversePassOptions& options);

// What a pass over batches of `tokens` tokens will hold at its peak, beside the models themselves.
size_t reverse_pass_bytes(const StudentModel& student, int64_t tokens,
                          const ReversePassOptions& options);

}  // namespace spear
