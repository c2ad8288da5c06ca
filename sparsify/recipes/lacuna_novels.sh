#!/bin/bash
# A small model on novels and its twins: a dense SwiGLU model from nothing on all of the text, then
# three continuations on what of it is easy to read, with the same tokens in the same order at the
# same learning rates: dense, vanilla ReLU, ProSparse.
# From the root of the repository; BASE_STEPS and STEPS make it longer, LAMBDA the zeros more, and
# OPTIONS replaces "--compile", with "--bf16 --compile" say, where a CPU multiplies bf16 faster:
#
#   sparsify/recipes/lacuna_novels.sh TRAIN_TEXT VALID_TEXT OUT
#
# The tokenizer is the one that is there. To learn it again:
#   python -m sparsify tokenizer --text TRAIN_TEXT --out DIR --vocab-size 4096 --sample-mb 20
set -euo pipefail
out=$3
name=lacuna-novels-3m
python=${PYTHON:-python}
sparsify() { "$python" -m sparsify "$@"; }
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=500000000  # speed only
mkdir -p "$out/text"

plain() {  # NAME INPUT OPTIONS
  [ -e "$out/text/$1.txt" ] && return
  "$python" -m sparsify.recipes.plain_text "$2" "$out/text/part" "${@:3}"
  mv "$out/text/part" "$out/text/$1.txt"
}
plain train "$1"
plain valid "$2"
plain easy "$1" --easy "$1"
plain easy-valid "$2" --easy "$1"

fit() {  # NAME TEXT VALID_TEXT OPTIONS
  [ -e "$out/$1/final/config.json" ] || sparsify train --text "$out/text/$2.txt" \
    --valid "$out/text/$3.txt" --tokenizer models/$name --out "$out/$1" --resume \
    --optimizer muon --lr 0.015 --embed-lr 0.002 --lr-shape linear --eval-every 200 \
    ${OPTIONS---compile} "${@:4}"
}
twin() {  # NAME OPTIONS
  fit "$1" easy easy-valid --init "$out/base/final" --context 512 --batch 8 \
    --steps "${STEPS:-1000}" --warmup 0.02 --decay 0.8 --seed 2 "${@:2}"
}
fit base train valid --activation keep --lambda-peak 0 --context 256 --batch 16 --micro-batch 16 \
  --steps "${BASE_STEPS:-4400}" --warmup 0.041 --decay 0
twin prosparse --schedule small --lambda-peak "${LAMBDA:-0.07}"
twin relu --lambda-peak 0
twin dense --activation keep --lambda-peak 0

sparsify sweep --model "$out/prosparse/final" --text "$out/text/easy.txt" --tokens 65536 \
  --budget 0.005 --out "$out/sweep.json"
threshold=$("$python" -c "import json; print(json.load(open('$out/sweep.json'))['chosen'])")
sparsify export --model "$out/dense/final" --out "$out/models/dense"
sparsify export --model "$out/relu/final" --out "$out/models/relu"
sparsify export --model "$out/prosparse/final" --threshold "$threshold" \
  --out "$out/models/prosparse"
sparsify report --model "$out"/models/{dense,relu,prosparse} \
  --text "$out"/text/{valid,easy-valid}.txt --tokens 400000 \
  --log "$out"/{dense,relu,prosparse}/log.jsonl --out "$out/report"
