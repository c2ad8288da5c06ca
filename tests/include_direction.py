"""Checks who may include whom: kernels <- runtime <- server -> proto <- client.

Usage: include_direction.py SOURCE_DIR. Prints file:line of every forbidden include; exit code 1
if there is any.
"""

import pathlib
import re
import sys

# Folder -> project folders it may include from.
ALLOWED_FOLDERS = {
    "proto": {"proto", "lacuna", "google", "grpc"},
    "kernels": {"kernels"},
    "runtime": {"kernels", "runtime"},
    "server": {"kernels", "runtime", "proto", "server", "lacuna", "google", "grpc"},
    "client": {"proto", "client", "lacuna", "google", "grpc"},
    "bench": {"kernels", "runtime", "bench"},
}
PROJECT_FOLDERS = set(ALLOWED_FOLDERS) | {"tests", "lacuna"}
# Folder -> libraries it must not know, by the first part of the include.
FORBIDDEN_LIBRARIES = {
    "kernels": {"grpc", "grpcpp", "google", "prometheus", "nlohmann", "CLI", "sentencepiece_processor.h"},
    "runtime": {"grpc", "grpcpp", "google", "prometheus", "CLI"},
    "client": {"prometheus"},
    "bench": {"grpc", "grpcpp", "google", "prometheus"},
}
# Sources compiled for one instruction set (kernels/cpu): C headers, intrinsics, each other, and our
# plain-data headers only.
ISA_SOURCES = {"generic.cc", "avx2.cc", "avx512.cc", "avx512vnni.cc", "amx.cc", "simd.h", "isa_tables.h"}
ISA_DATA_HEADERS = {"activation.h", "dtype.h", "kernel_table.h", "quantized_row.h", "row_matrix.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def is_isa_source(path):
    return path.name in ISA_SOURCES or path.name.endswith("_inl.h")


def fit_for_isa_source(quote, name):
    if quote == "<":
        return name.endswith(".h") and "/" not in name
    folder, _, file = name.rpartition("/")
    if folder == "kernels/base":
        return file in ISA_DATA_HEADERS
    return folder == "kernels/cpu" and is_isa_source(pathlib.Path(file))


def violations(root):
    for folder, allowed in ALLOWED_FOLDERS.items():
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in {".h", ".cc", ".cu", ".cuh"}:
                continue
            for number, line in enumerate(path.read_text().splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                quote, name = match.groups()
                first = name.split("/")[0]
                where = f"{path.relative_to(root)}:{number}"
                if first in PROJECT_FOLDERS and first not in allowed:
                    yield f"{where}: {folder}/ must not include {name}"
                elif first in FORBIDDEN_LIBRARIES.get(folder, ()):
                    yield f"{where}: {folder}/ must not use {name}"
                elif is_isa_source(path) and not fit_for_isa_source(quote, name):
                    yield f"{where}: a per-ISA source must not include {name}"


def main():
    root = pathlib.Path(sys.argv[1])
    if not (root / "kernels").is_dir():
        sys.exit(f"{root} is not the source tree: it has no kernels/")
    found = list(violations(root))
    print("\n".join(found) or "include direction: no violation")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
