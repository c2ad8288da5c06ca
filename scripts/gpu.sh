#!/usr/bin/env bash
# On a machine with an NVIDIA GPU and nvcc: builds the cuda preset (no gRPC needed), runs the tests
# labelled gpu, then the GPU benchmarks, and prints one table.
# Usage: scripts/gpu.sh             under ten minutes beside the build
#        scripts/gpu.sh --sanitize  instead of the benchmarks, the tests again under
#                                   compute-sanitizer: memcheck, then racecheck
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
  "" | --sanitize) ;;
  *) sed -n '2,6s/^# //p' "$0"; [ "$1" = --help ] && exit 0 || exit 2 ;;
esac
command -v nvcc >/dev/null || { echo "gpu.sh: nvcc is not on the PATH" >&2; exit 1; }
command -v nvidia-smi >/dev/null || { echo "gpu.sh: there is no NVIDIA driver" >&2; exit 1; }
scripts/install-deps.sh --kernels
cmake --preset cuda -DLACUNA_TESTS=ON
cmake --build --preset cuda
ctest --test-dir build/cuda -L gpu --output-on-failure --no-tests=error

if [ "${1:-}" = --sanitize ]; then
  for tool in memcheck racecheck; do
    for test in cuda_kernels_gpu_test cuda_model_test; do
      compute-sanitizer --tool "$tool" --error-exitcode 1 "build/cuda/tests/$test" --gtest_brief=1
    done
  done
  exit 0
fi

bin=build/cuda/bin
nvidia-smi --query-gpu=name,memory.total,driver_version,clocks.max.sm --format=csv,noheader
echo "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
[ ! -x "$bin/lacuna-cuda-kernel-bench" ] || timeout 120 "$bin/lacuna-cuda-kernel-bench"
results=$(mktemp)
trap 'rm -f "$results"' EXIT
# Shape, weights, batches. What runs out of memory or time is left out, and said so.
while read -r shape weights batches; do
  timeout 100 "$bin/lacuna-bench" --device=cuda --synthetic="$shape" --weights="$weights" \
    --ffn=dense,sparse,auto --batch="$batches" --prompt_tokens=128 --generate_tokens=32 \
    --repeat=3 --json >>"$results" || echo "gpu.sh: $shape $weights did not finish" >&2
done <<'SHAPES'
prosparse-llama2-7b bf16 1,2,4,8,16
prosparse-llama2-7b int8 1,8
prosparse-llama2-7b int4 1,8
relullama-7b bf16 1
prosparse-llama2-13b bf16 1
minicpm-s-1b bf16 1,8
SHAPES
python3 - "$results" <<'PYTHON'
import json
import sys

row = "{:20} {:5} {:>5} {:7} {:>9} {:>17} {:>8} {:>7} {:>6} {:>6}"
print(row.format("shape", "type", "batch", "FFN", "tokens/s", "(min - max)", "GB/step", "GB/s", "share",
                 "zeros"))
for line in open(sys.argv[1], encoding="utf-8"):
    r = json.loads(line)
    print(row.format(
        r["model"], r["weights"], r["batch"], r["ffn"], f"{r['decode_tokens_per_s']:.1f}",
        f"({r['decode_tokens_per_s_min']:.1f} - {r['decode_tokens_per_s_max']:.1f})",
        f"{r['weight_bytes_per_step'] / 1e9:.2f}", f"{r['achieved_gb_per_s']:.0f}",
        f"{r['bandwidth_fraction']:.2f}", f"{r['sparsity']:.3f}"))
PYTHON
# The peer, where it is installed.
if python3 -c 'import torch, transformers' 2>/dev/null; then
  timeout 150 bench/transformers_peer.py --shape=prosparse-llama2-7b --batch=1,8 ||
    echo "gpu.sh: transformers did not finish" >&2
else
  echo "gpu.sh: no comparison with transformers: pip install torch transformers" >&2
fi
