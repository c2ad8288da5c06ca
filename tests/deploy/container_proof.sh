#!/usr/bin/env bash
# Builds deploy/docker/Dockerfile where there is no container engine and no image registry: with
# buildah, on a base that debootstrap makes from Debian's packages. Then runs the image's root file
# system read-only as its user (readonly_root_test.py), and looks at its configuration and at its
# list of contents. Needs root, the Debian packages buildah and debootstrap, and some 20 minutes of
# one core; it is no part of scripts/test.sh.
# Usage: container_proof.sh WORK_FOLDER    kept, so that a second run goes on where the first ended
set -euo pipefail
mkdir -p "$1"
work=$(realpath "$1")
cd "$(dirname "$0")/../.."
export BUILDAH_ISOLATION=chroot
buildah() { command buildah --root "$work/storage" --runroot "$work/run" "$@"; }

if [ ! -e "$work/base.done" ]; then
  debootstrap --variant=minbase bookworm "$work/base" >"$work/debootstrap.log"
  touch "$work/base.done"
fi
if ! buildah inspect --type image localhost/base >/dev/null 2>&1; then
  container=$(buildah from scratch)
  buildah copy -q "$container" "$work/base" / >/dev/null
  buildah commit -q "$container" localhost/base >/dev/null
  buildah rm "$container" >/dev/null
fi

# The steps trust whom this machine trusts.
certificates=/usr/local/share/ca-certificates
buildah bud --layers --ignorefile deploy/docker/Dockerfile.dockerignore \
  --volume "$certificates:$certificates:ro" \
  --build-arg BASE=localhost/base --build-arg JOBS=1 \
  --build-arg REVISION="$(git rev-parse HEAD)" \
  -f deploy/docker/Dockerfile -t localhost/lacuna .

buildah inspect --type image localhost/lacuna >"$work/image.json"
container=$(buildah from localhost/lacuna)
root=$(buildah mount "$container")
trap 'buildah umount "$container" >/dev/null; buildah rm "$container" >/dev/null' EXIT
python3 - "$work/image.json" "$root" <<'PY'
import json, pathlib, sys
config = json.load(open(sys.argv[1]))["OCIv1"]["config"]
root = pathlib.Path(sys.argv[2])
print({key: config[key] for key in ("User", "Entrypoint", "ExposedPorts", "StopSignal", "Labels")})
assert config["User"] == "65532:65532" and config["Entrypoint"] == ["/usr/bin/lacuna-server"]
assert {"title", "description", "licenses", "version", "revision"} == {
    label.rsplit(".", 1)[1] for label in config["Labels"]
    if label.startswith("org.opencontainers.image.")}
packages = json.load(open(root / "usr/share/doc/lacuna/sbom.spdx.json"))["packages"]
names = {package["name"] for package in packages}
print(len(packages), "packages in the SBOM")
assert {"libgrpc++1.51", "libprotobuf32", "libc6", "libssl3"} <= names, names
assert not (root / "src").exists() and not (root / "usr/bin/g++").exists()
PY
du -sh "$root"
exec_root=$work/root  # a copy: the storage folder is closed to other users
rm -rf "$exec_root"
cp -a "$root" "$exec_root"
python3 tests/deploy/readonly_root_test.py "$exec_root"
