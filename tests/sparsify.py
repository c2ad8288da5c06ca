"""Runs sparsify/tests, or says why not (exit code 77, which ctest counts as skipped).

They need the packages of sparsify/requirements.txt; LACUNA_PYTHON names the interpreter that has
them, if it is not python3.
"""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTHON = os.environ.get("LACUNA_PYTHON", "python3")

if subprocess.run([PYTHON, "-c", "import accelerate, torch, transformers, sentencepiece, google.protobuf, pytest"], capture_output=True).returncode:
    print(f"skipped: {PYTHON} lacks packages of sparsify/requirements.txt")
    sys.exit(77)
sys.exit(subprocess.run([PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "sparsify/tests"], cwd=ROOT).returncode)
