# One interface target carries the flags that every target of ours compiles with.
option(SPEAR_WERROR "Warnings are errors; off where other flags than the presets' make the compiler guess" ON)
add_library(spear_warnings INTERFACE)
target_compile_options(spear_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor>
  $<$<AND:$<BOOL:${SPEAR_WERROR}>,$<COMPILE_LANGUAGE:CXX>>:-Werror>)
# GCC 12 warns of overlapping memcpy in "text" + std::string, where there is none (GCC bug 105651).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(spear_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
