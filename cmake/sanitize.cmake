if(SPEAR_SANITIZE)
  add_compile_options(-fsanitize=${SPEAR_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${SPEAR_SANITIZE})
endif()
