#!/bin/bash
# The embedded model and its twins: a dense SwiGLU model from nothing on all stories of recipes/text,
# then three continuations on the plain ones, with the same tokens in the same order at the same
# learning rates: dense, vanilla ReLU, ProSparse.
# From the root of the repository; BASE_STEPS and STEPS make it longer, LAMBDA the zeros more, and
# OPTIONS replaces "--compile", with "--bf16 --compile" say, where a CPU multiplies bf16 faster:
#
#   sparsify/recipes/lacuna_stories.sh OUT
#
# The tokenizer is the one that is there. It was learnt on 20 MB of novels, to learn another:
#   python -m sparsify tokenizer --text TEXT --out DIR --vocab-size 4096 --sample-mb 20
set -euo pipefail
out=$1
text=sparsify/recipes/text
plain=$text/stories-plain.txt.xz
python=${PYTHON:-python}
sparsify() { "$python" -m sparsify "$@"; }
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=500000000  # speed only

mkdir -p "$out"
cat $plain $text/stories-varied.txt.xz >"$out/stories.txt.xz"

fit() {  # NAME TEXT OPTIONS
  [ -e "$out/$1/final/config.json" ] || sparsify train --text "$2" \
    --valid $text/stories-held-out.txt.xz --tokenizer models/lacuna-stories-3m --out "$out/$1" \
    --resume --optimizer muon --lr 0.015 --embed-lr 0.002 --lr-shape linear --eval-every 200 \
    ${OPTIONS---compile} "${@:3}"
}
twin() {  # NAME OPTIONS
  fit "$1" $plain --init "$out/base/final" --context 512 --batch 8 \
    --steps "${STEPS:-1200}" --warmup 0.02 --decay 0.8 --seed 2 "${@:2}"
}
fit base "$out/stories.txt.xz" --activation keep --lambda-peak 0 --context 256 --batch 16 --micro-batch 16 \
  --steps "${BASE_STEPS:-5000}" --warmup 0.036 --decay 0
twin prosparse --schedule small --lambda-peak "${LAMBDA:-0.1}"
twin relu --lambda-peak 0
twin dense --activation keep --lambda-peak 0

sparsify sweep --model "$out/prosparse/final" --text $plain --tokens 65536 \
  --budget 0.003 --out "$out/sweep.json"
threshold=$("$python" -c "import json; print(json.load(open('$out/sweep.json'))['chosen'])")
sparsify export --model "$out/dense/final" --out "$out/models/dense"
sparsify export --model "$out/relu/final" --out "$out/models/relu"
sparsify export --model "$out/prosparse/final" --threshold "$threshold" \
  --out "$out/models/prosparse"
sparsify report --model "$out"/models/{dense,relu,prosparse} \
  --text $text/stories-held-out.txt.xz --log "$out"/{dense,relu,prosparse}/log.jsonl \
  --out "$out/report"
