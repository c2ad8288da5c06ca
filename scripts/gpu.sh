#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: runs the tests that need one, then the GPU benchmarks, and prints
# one table. What fails is named at the end; the rest runs all the same.
# Usage: scripts/gpu.sh              builds (nvcc, no gRPC), then takes LACUNA_GPU_SECONDS (540) at most
#        scripts/gpu.sh --pack       builds only, for Hopper, into build/gpu: needs no GPU
#        scripts/gpu.sh --built      builds nothing: runs a build/gpu that was carried here
#        scripts/gpu.sh --sanitize[=TOOL]  instead of the benchmarks, the tests again under
#                                    compute-sanitizer: memcheck, then racecheck, or TOOL alone, as
#                                    both take long (also with --built)
set -euo pipefail
cd "$(dirname "$0")/.."
mode=run built= tools="memcheck racecheck"
for arg in "$@"; do
  case "$arg" in
    --pack | --sanitize) mode=${arg#--} ;;
    --sanitize=?*) mode=sanitize tools=${arg#*=} ;;
    --built) built=yes ;;
    *) sed -n '2,10s/^# //p' "$0"; [ "$arg" = --help ] && exit 0 || exit 2 ;;
  esac
done
tests=(cuda_kernels_gpu_test cuda_model_test gpu_test)
benches=(lacuna-cuda-kernel-bench lacuna-bench)
bin=build/gpu

if [ -z "$built" ]; then
  command -v nvcc >/dev/null || { echo "gpu.sh: nvcc is not on the PATH" >&2; exit 1; }
  scripts/install-deps.sh --kernels
  gpus="80;90a"
  [ "$mode" != pack ] || gpus=90a-real
  cmake --preset cuda -DLACUNA_TESTS=ON -DLACUNA_TEST_ROOT=. -DCMAKE_CUDA_ARCHITECTURES="$gpus"
  cmake --build --preset cuda --target "${tests[@]}" "${benches[@]}"
  rm -rf $bin
  mkdir -p $bin/lib
  for name in "${tests[@]}"; do strip -o "$bin/$name" "build/cuda/tests/$name"; done
  for name in "${benches[@]}"; do strip -o "$bin/$name" "build/cuda/bin/$name"; done
  # Debian's libraries, which the other machine may lack; not cuBLAS, which comes with CUDA or PyTorch.
  ldd $bin/*test $bin/*bench | grep -oE '/[^ ]*/lib(absl|pcre2|utf8proc)[^ ]*' | sort -u |
    xargs cp -L -t $bin/lib
fi
[ "$mode" != pack ] || { du -sh $bin; exit 0; }

command -v nvidia-smi >/dev/null || { echo "gpu.sh: there is no NVIDIA driver" >&2; exit 1; }
wheel=$(python3 -c 'import nvidia.cu13; print(list(nvidia.cu13.__path__)[0] + "/lib")' \
  2>/dev/null || true)
# What is set already may be where the driver is.
libraries=$PWD/$bin/lib:/usr/local/cuda/lib64${wheel:+:$wheel}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
ours=(env "LD_LIBRARY_PATH=$libraries")
failed=()
end=$((SECONDS + ${LACUNA_GPU_SECONDS:-540}))
deadline=$end
# part SECONDS NAME COMMAND...: runs it, for so long at most; notes it if it fails.
part() {
  local limit=$1 name=$2 rc=0 left=$((deadline - SECONDS))
  shift 2
  if [ "$left" -lt 5 ]; then failed+=("$name (no time left)"); return; fi
  timeout -k 5 "$((left < limit ? left : limit))" "$@" </dev/null || rc=$?
  [ "$rc" -eq 0 ] || failed+=("$name (exit $rc)")
}

nvidia-smi --query-gpu=name,memory.total,driver_version,clocks.max.sm --format=csv,noheader || true
free -g || true
echo "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"

if [ "$mode" = sanitize ]; then
  # Tests provoke errors of the API; what they measure of free memory is the sanitizer's.
  command -v compute-sanitizer >/dev/null || { echo "gpu.sh: there is no compute-sanitizer" >&2; exit 1; }
  for tool in $tools; do
    flags=(--tool "$tool" --error-exitcode 1)
    [ "$tool" != memcheck ] || flags+=(--report-api-errors no)
    for test in cuda_kernels_gpu_test cuda_model_test; do
      part 300 "$tool $test" "${ours[@]}" compute-sanitizer "${flags[@]}" \
        "$bin/$test" --gtest_brief=1 '--gtest_filter=-*MemoryBack*'
    done
  done
else
  # A third of the time for tests. A process for each suite: ctest would start one, with its own
  # context of the GPU, for each case, and in one for all an error that breaks the device would break
  # what comes after it.
  deadline=$((SECONDS + (end - SECONDS) / 3))
  for test in "${tests[@]}"; do
    suites=$("${ours[@]}" "$bin/$test" --gtest_list_tests | awk '/^[^ ]/ && $1 ~ /\.$/ {print $1}') ||
      suites=
    [ -n "$suites" ] || failed+=("$test (does not start)")
    for suite in $suites; do
      part 90 "$test $suite" "${ours[@]}" "$bin/$test" --gtest_brief=1 "--gtest_filter=$suite*"
    done
  done
  deadline=$end
  part 60 kernels "${ours[@]}" $bin/lacuna-cuda-kernel-bench
  results=build/gpu-results.jsonl
  : >$results
  # Shape, weights, batches.
  while read -r shape weights batches; do
    part 75 "$shape $weights" "${ours[@]}" $bin/lacuna-bench --device=cuda --synthetic="$shape" \
      --weights="$weights" --ffn=dense,sparse,auto --batch="$batches" --prompt_tokens=128 \
      --generate_tokens=32 --repeat=3 --json >>$results
  done <<'SHAPES'
prosparse-llama2-7b bf16 1,2,4,8,16
prosparse-llama2-7b int8 1,8
prosparse-llama2-7b int4 1,8
minicpm-s-1b bf16 1,8
relullama-7b bf16 1
prosparse-llama2-13b bf16 1
SHAPES
  python3 - $results <<'PYTHON' || failed+=("table")
import json
import sys

row = "{:20} {:5} {:>5} {:7} {:>9} {:>17} {:>8} {:>7} {:>6} {:>6}"
print(row.format("shape", "type", "batch", "FFN", "tokens/s", "(min - max)", "GB/step", "GB/s", "share",
                 "zeros"))
for line in open(sys.argv[1], encoding="utf-8"):
    try:
        r = json.loads(line)
    except ValueError:  # cut off
        continue
    print(row.format(
        r["model"], r["weights"], r["batch"], r["ffn"], f"{r['decode_tokens_per_s']:.1f}",
        f"({r['decode_tokens_per_s_min']:.1f} - {r['decode_tokens_per_s_max']:.1f})",
        f"{r['weight_bytes_per_step'] / 1e9:.2f}", f"{r['achieved_gb_per_s']:.0f}",
        f"{r['bandwidth_fraction']:.2f}", f"{r['sparsity']:.3f}"))
PYTHON
  if python3 -c 'import torch, transformers' 2>/dev/null; then
    part 150 transformers python3 bench/transformers_peer.py --shape=prosparse-llama2-7b --batch=1,8
  else
    echo "gpu.sh: no comparison with transformers: pip install torch transformers" >&2
  fi
fi
[ ${#failed[@]} -eq 0 ] || { printf 'gpu.sh: failed: %s\n' "${failed[@]}" >&2; exit 1; }
