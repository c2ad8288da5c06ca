#!/bin/bash
# A small model that tells stories, and its twins: a dense SwiGLU model from nothing on stories and on
# what of novels is easy to read, then three continuations on the stories alone, with the same tokens
# in the same order at the same learning rates: dense, vanilla ReLU, ProSparse.
# From the root of the repository; BASE_STEPS and STEPS make it longer, LAMBDA the zeros more, and
# OPTIONS replaces "--compile", with "--bf16 --compile" say, where a CPU multiplies bf16 faster:
#
#   sparsify/recipes/lacuna_stories.sh NOVELS OUT
#
# The stories are those of recipes/text. The tokenizer is that of the model on novels.
set -euo pipefail
novels=$1 out=$2
tokenizer=models/lacuna-novels-3m
text=sparsify/recipes/text
python=${PYTHON:-python}
sparsify() { "$python" -m sparsify "$@"; }
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=500000000  # speed only
mkdir -p "$out/text"

if [ ! -e "$out/text/base.txt" ]; then
  xz -dc $text/stories.txt.xz >"$out/text/stories.txt"
  xz -dc $text/stories-held-out.txt.xz >"$out/text/held-out.txt"
  "$python" -m sparsify.recipes.plain_text "$novels" "$out/text/easy.txt" --easy "$novels"
  cat "$out"/text/{easy,stories}.txt >"$out/text/part"
  mv "$out/text/part" "$out/text/base.txt"
fi

fit() {  # NAME TEXT OPTIONS
  [ -e "$out/$1/final/config.json" ] || sparsify train --text "$out/text/$2.txt" \
    --valid "$out/text/held-out.txt" --tokenizer $tokenizer --out "$out/$1" --resume \
    --optimizer muon --lr 0.015 --embed-lr 0.002 --lr-shape linear --eval-every 200 \
    ${OPTIONS---compile} "${@:3}"
}
twin() {  # NAME OPTIONS
  fit "$1" stories --init "$out/base/final" --context 512 --batch 8 \
    --steps "${STEPS:-1000}" --warmup 0.02 --decay 0.8 --seed 2 "${@:2}"
}
fit base base --activation keep --lambda-peak 0 --context 256 --batch 16 --micro-batch 16 \
  --steps "${BASE_STEPS:-4400}" --warmup 0.041 --decay 0
twin prosparse --schedule small --lambda-peak "${LAMBDA:-0.07}"
twin relu --lambda-peak 0
twin dense --activation keep --lambda-peak 0

sparsify sweep --model "$out/prosparse/final" --text "$out/text/stories.txt" --tokens 65536 \
  --budget 0.005 --out "$out/sweep.json"
threshold=$("$python" -c "import json; print(json.load(open('$out/sweep.json'))['chosen'])")
sparsify export --model "$out/dense/final" --out "$out/models/dense"
sparsify export --model "$out/relu/final" --out "$out/models/relu"
sparsify export --model "$out/prosparse/final" --threshold "$threshold" \
  --out "$out/models/prosparse"
sparsify report --model "$out"/models/{dense,relu,prosparse} \
  --text "$out/text/held-out.txt" --log "$out"/{dense,relu,prosparse}/log.jsonl \
  --out "$out/report"
