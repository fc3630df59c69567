// A compiled decoder that can run without some of its compensators, step by step. Modules that read
// one input (a site: attention's q, k, v; its output; the MLP's gate and up; its down) are switched
// together. Implemented by a DecoderProgram or not; used by its thread between steps.
#pragma once

#include <cstdint>
#include <span>

namespace spear {

class CompensatorSwitch {
 public:
  virtual ~CompensatorSwitch() = default;
  // active[layers * 4], 1: the site's compensators run. Empty: all of them, as at the start.
  virtual void set_active(std::span<const uint8_t> active) = 0;
};

}  // namespace spear
