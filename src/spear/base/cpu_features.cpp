#include "spear/base/cpu_features.h"

#include <fstream>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace spear {

CpuFeatures detect_cpu_features() {
  CpuFeatures features;
#if defined(__x86_64__)
  __builtin_cpu_init();
  features.avx2_fma = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
  features.avx512_vnni =
      __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
      __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
      __builtin_cpu_supports("avx512vnni") != 0;
  features.avx512_bf16 = features.avx512_vnni && __builtin_cpu_supports("avx512bf16") != 0;
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0) {
    features.amx_bf16 = (edx >> 22u & 1u) != 0;
    features.amx_int8 = (edx >> 25u & 1u) != 0;
  }
#endif
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    if (const size_t colon = line.find(": "); colon != std::string::npos)
      features.model = line.substr(colon + 2);
    break;
  }
  return features;
}

}  // namespace spear
