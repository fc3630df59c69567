# spear_isa_sources(TARGET a_avx2.cpp ...): names the sources of TARGET that are compiled for one instruction set.
# Their objects are listed in isa_objects.txt for tools/check_isa_objects.sh, which refuses weak symbols in them.
function(spear_isa_sources target)
  foreach(source IN LISTS ARGN)
    string(REPLACE "." "\\." pattern "/${source}.o")
    set_property(GLOBAL APPEND PROPERTY SPEAR_ISA_OBJECTS
                 "$<FILTER:$<TARGET_OBJECTS:${target}>,INCLUDE,${pattern}$>")
  endforeach()
endfunction()

# Called once, after every folder.
function(spear_write_isa_list)
  get_property(objects GLOBAL PROPERTY SPEAR_ISA_OBJECTS)
  if(objects)
    file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/isa_objects.txt CONTENT "$<JOIN:${objects},\n>\n")
  endif()
endfunction()
