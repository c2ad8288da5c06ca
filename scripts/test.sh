#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test that needs no GPU.
# Usage: scripts/test.sh            the release preset
#        scripts/test.sh --asan     AddressSanitizer and UndefinedBehaviorSanitizer
#        scripts/test.sh --tsan     ThreadSanitizer (without the gRPC parts)
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  "") preset=release ;;
  --asan) preset=asan ;;
  --tsan) preset=tsan ;;
  *) sed -n '2,5s/^# //p' "$0"; [ "$1" = --help ] && exit 0 || exit 2 ;;
esac

scripts/install-deps.sh
[ "$preset" = tsan ] || tests/deploy/make_venv.sh ||
  echo "no tools from PyPI: the deployment tests that need them are skipped"
cmake --preset "$preset" -DLACUNA_TESTS=ON
cmake --build --preset "$preset"

# Not detect_stack_use_after_return: GCC 12 misaligns spilled 64-byte vectors then (GCC bug 110027).
export ASAN_OPTIONS=strict_string_checks=1
export LSAN_OPTIONS=suppressions=$PWD/tests/lsan.supp:print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
exec ctest --test-dir "build/$preset" -j "$(nproc)" --output-on-failure --no-tests=error
