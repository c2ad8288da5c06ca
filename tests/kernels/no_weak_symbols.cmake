# cmake -DNM=... -DOBJECT=... -P no_weak_symbols.cmake
# Fails if the object file defines a symbol that the linker would merge with one of the same name
# elsewhere: weak (W, V) or unique (u).
execute_process(COMMAND ${NM} --defined-only --demangle ${OBJECT}
  OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[0-9a-f]+ [WwVvu] [^\n]*" weak "${symbols}")
if(weak)
  list(JOIN weak "\n  " lines)
  message(FATAL_ERROR "${OBJECT} defines\n  ${lines}")
endif()
if(NOT symbols MATCHES "lacuna::k[A-Za-z0-9]+Table")
  message(FATAL_ERROR "${OBJECT} defines no kernel table: is it the right file?")
endif()
