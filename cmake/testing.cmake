set(LACUNA_TEST_ROOT ${PROJECT_SOURCE_DIR} CACHE STRING
  "Where tests find the repository; \".\" for tests that are carried elsewhere and run in its root")

# lacuna_test(NAME SOURCES a.cc ... LIBS lib ... [LABEL unit|integration|gpu])
# One GoogleTest binary whose cases ctest knows one by one.
function(lacuna_test name)
  cmake_parse_arguments(ARG "" "LABEL" "SOURCES;LIBS" ${ARGN})
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE LACUNA_SOURCE_DIR="${LACUNA_TEST_ROOT}")
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  gtest_discover_tests(${name}
    WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
    DISCOVERY_TIMEOUT 60
    PROPERTIES LABELS ${ARG_LABEL} TIMEOUT 300)
endfunction()
