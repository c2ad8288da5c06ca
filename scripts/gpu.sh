#!/usr/bin/env bash
# On a machine with an NVIDIA GPU and nvcc: builds the cuda preset (no gRPC needed) and runs the
# tests labelled gpu. There are no GPU kernels, and so no GPU benchmarks, yet.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v nvcc >/dev/null || { echo "gpu.sh: nvcc is not on the PATH" >&2; exit 1; }
scripts/install-deps.sh --kernels
cmake --preset cuda -DLACUNA_TESTS=ON
cmake --build --preset cuda
exec ctest --test-dir build/cuda -L gpu --output-on-failure --no-tests=error
