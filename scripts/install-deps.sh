#!/usr/bin/env bash
# Installs what Lacuna needs from Debian 12's packages; does nothing if all of it is there.
# Usage: scripts/install-deps.sh             to build, run and test
#        scripts/install-deps.sh --run       to build and run
#        scripts/install-deps.sh --kernels   to build and test without gRPC (GPU machines)
set -euo pipefail

base=(g++ cmake ninja-build python3 pkg-config libabsl-dev nlohmann-json3-dev libcli11-dev
      libpcre2-dev libutf8proc-dev)
service=(libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc
         prometheus-cpp-dev curl)
tests=(libgtest-dev libgmock-dev binutils
       libboost-context-dev  # fibers, for tests/cuda_emulation
       libsentencepiece-dev)  # the tokenizer's oracle
service_tests=(prometheus openssl  # for promtool and test certificates
               python3-yaml python3-venv)  # for tests/deploy

case "${1:-}" in
  "") wanted=("${base[@]}" "${service[@]}" "${tests[@]}" "${service_tests[@]}") ;;
  --run) wanted=("${base[@]}" "${service[@]}") ;;
  --kernels) wanted=("${base[@]}" "${tests[@]}") ;;
  *) sed -n '2,5s/^# //p' "$0"; [ "$1" = --help ] && exit 0 || exit 2 ;;
esac

missing=()
for package in "${wanted[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
    missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null ||
    { echo "install-deps: need root or sudo to install: ${missing[*]}" >&2; exit 1; }
  sudo=(sudo)
fi
echo "installing ${#missing[@]} Debian packages: ${missing[*]}"
"${sudo[@]}" apt-get update -q
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -q --no-install-recommends "${missing[@]}"
