# One interface target carries the flags that every target of ours compiles with.
add_library(spear_warnings INTERFACE)
target_compile_options(spear_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor -Werror>)
