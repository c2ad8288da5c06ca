#!/usr/bin/env python3
# ruff: noqa: E501
"""Compares our tokenizers with Hugging Face's `tokenizers` on random strings, string by string.

    compare_tokenizers.py TOKENIZE_LINES [--strings N] [--seed S] [DIRECTORY...]

Without directories: those of tests/data/tokenizers. A directory holds a tokenizer.json. Needs the
package `tokenizers`; LACUNA_PYTHON names the interpreter that has it, if it is not python3. Exit
code 77, which ctest counts as skipped, if neither has.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path


def random_text(rng, atoms, is_old):
    """Atoms, random characters and long runs in a random order."""
    if rng.random() < 0.01:
        return rng.choice(atoms)[:1] * 4000
    text = ""
    for _ in range(rng.randint(1, 12)):
        kind = rng.random()
        if kind < 0.6:
            text += rng.choice(atoms)
        elif kind < 0.9:
            for _ in range(rng.randint(1, 6)):
                c = chr(rng.randrange(rng.choice([0x100, 0x800, 0x3000, 0x20000])))
                text += c if is_old(c) else ""
        else:
            text += rng.choice([" ", "\n", "\t", "a", "é", "=", "0", "的", "▁"]) * rng.randint(
                1, 40
            )
        text += rng.choice(["", " ", "  ", "\n"])
    return text


def compare(program, name, folder, tokenizer, strings):
    from make_tokenizers import results

    lines = "".join(json.dumps(text) + "\n" for text in strings)
    run = subprocess.run([program, folder], input=lines, capture_output=True, text=True)
    if run.returncode != 0:
        print(f"{name}: {run.stderr.strip()}")
        return False
    wrong = 0
    for text, line in zip(strings, run.stdout.split("\n")[:-1], strict=True):
        ours, oracle = json.loads(line), results(tokenizer, text)
        for what, got, want in zip(["ids", "decoded", "markup"], ours, oracle, strict=True):
            if got != want:
                wrong += 1
                if wrong <= 5:
                    print(
                        f"{name}: {what} of {text[:200]!r}\n  ours   {got!r:.400}\n  theirs {want!r:.400}"
                    )
    print(f"{name}: {len(strings)} strings, {wrong} differences")
    return wrong == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--strings", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("directories", nargs="*", type=Path)
    args = parser.parse_intermixed_args()
    try:
        import tokenizers
    except ImportError:
        python = os.environ.get("LACUNA_PYTHON")
        if python and python != sys.executable:
            sys.exit(subprocess.run([python, *sys.argv]).returncode)
        print(
            "skipped: python3 lacks the package tokenizers (LACUNA_PYTHON may name one that has it)"
        )
        sys.exit(77)

    from make_tokenizers import NAMES, OUT, is_old, load

    atoms = json.loads((OUT / "atoms.json").read_text(encoding="utf-8"))["atoms"]
    rng = random.Random(args.seed)
    strings = [random_text(rng, atoms, is_old) for _ in range(args.strings)]
    if args.directories:
        pairs = [
            (d.name, d, tokenizers.Tokenizer.from_file(str(d / "tokenizer.json")))
            for d in args.directories
        ]
    else:
        pairs = [(name, OUT / name, load(name)) for name in NAMES]
    good = [compare(args.program, name, str(d), tokenizer, strings) for name, d, tokenizer in pairs]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
