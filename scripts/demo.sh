#!/usr/bin/env bash
# Shows Lacuna at work on a fresh Debian 12 machine: installs what is missing, builds, starts the
# server with the embedded model, streams one generation, and shows what the metrics say of it.
# Usage: scripts/demo.sh [PROMPT]
set -euo pipefail
cd "$(dirname "$0")/.."
prompt=${1:-The old man looked at the sea, and}

scripts/install-deps.sh --run
echo "building (a few minutes the first time)"
cmake --preset release -DLACUNA_TESTS=OFF >/dev/null
cmake --build --preset release --target lacuna-server lacuna

work=$(mktemp -d)
server=
stop() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap stop EXIT

build/release/bin/lacuna-server --listen=127.0.0.1:0 --metrics_listen=127.0.0.1:0 \
  >"$work/out" 2>"$work/log" &
server=$!
for _ in $(seq 300); do
  grep -q '^listening' "$work/out" && break
  kill -0 "$server" 2>/dev/null || { echo "the server did not start:"; cat "$work/log"; exit 1; }
  sleep 0.1
done
grpc=$(sed -n 's/^listening grpc=\([^ ]*\).*/\1/p' "$work/out")
metrics=$(sed -n 's/^listening .*metrics=\([^ ]*\).*/\1/p' "$work/out")

echo
echo "$prompt ..."
build/release/bin/lacuna generate --server="$grpc" --prompt="$prompt" --max_tokens=120 \
  --temperature=0.7 --seed=1 --stats
echo
echo "the server's metrics (http://$metrics/metrics, while it runs) say:"
curl -sf "http://$metrics/metrics" >"$work/metrics"
python3 - "$work/metrics" <<'PY'
import re, sys
total = active = read = skipped = 0.0
paths = {}
for line in open(sys.argv[1]):
    m = re.match(r"(\w+)(?:\{(.*)\})? (\S+)$", line)
    if not m:
        continue
    name, labels, value = m.group(1), m.group(2) or "", float(m.group(3))
    if name == "lacuna_ffn_neurons_total":
        total += value
    elif name == "lacuna_ffn_neurons_active_total":
        active += value
    elif name == "lacuna_ffn_weight_bytes_read_total":
        read += value
    elif name == "lacuna_ffn_weight_bytes_skipped_total":
        skipped += value
    elif name == "lacuna_ffn_dispatch_total":
        path = re.search(r'path="(\w+)"', labels).group(1)
        paths[path] = paths.get(path, 0) + value
print(f"  FFN neurons that were exactly zero   {100 * (1 - active / total):6.2f} %")
print(f"  FFN weight bytes skipped             {100 * skipped / (read + skipped):6.2f} %")
print("  FFN layers run                       " + ", ".join(f"{int(n)} {p}" for p, n in sorted(paths.items())))
PY
kill -TERM "$server"
wait "$server"
server=
echo "the server stopped cleanly"
