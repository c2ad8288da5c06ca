# Compiler options shared by every target of this project, as the interface library lacuna_options.
add_library(lacuna_options INTERFACE)
target_include_directories(lacuna_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(lacuna_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wno-missing-field-initializers -fno-omit-frame-pointer>
  # GCC 12 warns falsely about string concatenation (GCC bug 105651).
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>
  # Same request, same bytes (ARCHITECTURE.md): that needs one rounding per written operation.
  $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>
  # No build path in the binaries: two builds in two folders give the same bytes.
  $<$<COMPILE_LANGUAGE:CXX>:-ffile-prefix-map=${PROJECT_SOURCE_DIR}=.>)
if(LACUNA_SANITIZE)
  target_compile_options(lacuna_options INTERFACE
    -fsanitize=${LACUNA_SANITIZE} -fno-sanitize-recover=all -g1)
  target_link_options(lacuna_options INTERFACE -fsanitize=${LACUNA_SANITIZE})
else()
  target_compile_options(lacuna_options INTERFACE
    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2>
    $<$<COMPILE_LANGUAGE:CXX>:-fstack-protector-strong>)
  target_link_options(lacuna_options INTERFACE -Wl,-z,relro,-z,now)
endif()
