// The reverse pass on a device with memory of its own: the same graph as gradients_graph.h, in
// products and operations of the backend. Activations of every layer are kept; products read BF16
// and add in F32. One thread at a time.
#pragma once

#include <memory>

#include "spear/model/gradients.h"

namespace spear {

// The backend must offer training_ops(). Throws Failure(kUnsupported) when the device's memory is
// too small, or for Compute::kF32.
std::unique_ptr<ReversePass> make_device_reverse_pass(const StudentModel& student,
                                                      TensorView reference_head, Backend& backend,
                                                      const ReversePassOptions& options);

}  // namespace spear
