if(SPEAR_SANITIZE)
  add_compile_options(-fsanitize=${SPEAR_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${SPEAR_SANITIZE})
endif()
if(SPEAR_LIBFUZZER)
  add_compile_options(-fsanitize=fuzzer-no-link)  # coverage for every library; the engine links per target
endif()
