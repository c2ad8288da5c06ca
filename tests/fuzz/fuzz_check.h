#ifndef LACUNA_TESTS_FUZZ_FUZZ_CHECK_H_
#define LACUNA_TESTS_FUZZ_FUZZ_CHECK_H_

#include <cstdio>
#include <cstdlib>

// Ends the process with file and line if a promise of the code under test is broken.
#define FUZZ_CHECK(condition)                                              \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                        \
    }                                                                      \
  } while (false)

#endif  // LACUNA_TESTS_FUZZ_FUZZ_CHECK_H_
