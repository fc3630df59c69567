// What this processor can do, asked once at start. Kernels are chosen by it; nothing else depends
// on it.
#pragma once

#include <string>

namespace spear {

struct CpuFeatures {
  bool avx2_fma = false;
  bool avx512_vnni = false;  // F, BW, DQ, VL and VNNI together
  bool avx512_bf16 = false;
  bool amx_int8 = false;
  bool amx_bf16 = false;
  std::string model;  // "AMD EPYC ..." as the processor names itself, empty where unknown
};

CpuFeatures detect_cpu_features();

}  // namespace spear
