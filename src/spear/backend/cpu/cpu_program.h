// A decoder as one step of the processor's team: every thread runs the whole step side by side,
// with barriers between. Few rows: threads share each product. Many: each thread takes its own rows
// through a layer and only attention is shared. The plan of one layer:
//
//   q,k,v | RoPE, append | attention | o + residual | gate,up + SiLU | down + residual
//
// Norms live in the rounding of the inputs that follow them.
#pragma once

#include <memory>
#include <string>

#include "spear/backend/decoder_program.h"
#include "spear/base/thread_pool.h"
#include "spear/kernels/cpu/packed/packed_kernels.h"

namespace spear {

// Null where a module of `spec` does not fit the packed layout; `why` names it. What `spec` points
// to must outlive the program, except weights of modules and compensators, which are copied.
std::unique_ptr<DecoderProgram> make_cpu_program(const DecoderSpec& spec, Activations activations,
                                                 const cpu::PackedKernels& kernels,
                                                 ThreadPool& pool, std::string* why);

}  // namespace spear
