# spear_isa_library(TARGET FLAGS -mavx2 -mfma SOURCES a_avx2.cpp ...): adds sources compiled for one instruction set to
# TARGET. They are optimised even in debug builds (an inlined intrinsic leaves no weak symbol behind), never
# sanitized (a sanitizer adds weak symbols), and listed in isa_objects.txt for tools/check_isa_objects.sh.
function(spear_isa_library target)
  cmake_parse_arguments(ARG "" "" "FLAGS;SOURCES" ${ARGN})
  list(GET ARG_SOURCES 0 first)
  get_filename_component(name ${first} NAME_WE)
  add_library(isa_${name} OBJECT ${ARG_SOURCES})
  target_include_directories(isa_${name} PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(isa_${name} PRIVATE spear_warnings)
  target_compile_options(isa_${name} PRIVATE -O2 -fno-sanitize=all ${ARG_FLAGS})
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:isa_${name}>)
  set_property(GLOBAL APPEND PROPERTY SPEAR_ISA_OBJECTS "$<TARGET_OBJECTS:isa_${name}>")
endfunction()

# Called once, after every folder.
function(spear_write_isa_list)
  get_property(objects GLOBAL PROPERTY SPEAR_ISA_OBJECTS)
  if(objects)
    file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/isa_objects.txt CONTENT "$<JOIN:${objects},\n>\n")
  endif()
endfunction()
