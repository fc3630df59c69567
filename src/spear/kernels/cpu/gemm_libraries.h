// Which product libraries this build found (kernels/CMakeLists.txt).
#pragma once

namespace spear::cpu {

inline constexpr bool kHasOneDnn = SPEAR_HAS_ONEDNN != 0;
inline constexpr bool kHasOpenBlas = SPEAR_HAS_OPENBLAS != 0;
inline constexpr bool kHasEigen = SPEAR_HAS_EIGEN != 0;

}  // namespace spear::cpu
