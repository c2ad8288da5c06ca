#!/usr/bin/env bash
# Writes base/lacuna.yaml and components/monitoring/monitoring.yaml from the Helm chart, where they are
# edited.
# Usage: render.sh [OUTPUT_FOLDER]     default: this folder. Needs helm.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
mkdir -p "$out/base" "$out/components/monitoring"

render() {
  echo "# Written by render.sh from deploy/helm/lacuna; edit there."
  helm template lacuna "$here/../helm/lacuna" --namespace lacuna "$@" 2>/dev/null |
    grep -v -e 'helm.sh/chart:' -e 'app.kubernetes.io/managed-by:' -e '^# Source:'
}
render >"$out/base/lacuna.yaml"
render --show-only templates/monitoring.yaml \
  --set monitoring.serviceMonitor=true,monitoring.prometheusRule=true \
  >"$out/components/monitoring/monitoring.yaml"
