#!/usr/bin/env python3
"""Golden files for logits and tokenizer parity, made with Hugging Face transformers and
SentencePiece.

    make_golden.py tiny --out tests/data/golden
    make_golden.py compact --out tests/data/golden
    make_golden.py model --model models/NAME --text HELD_OUT.txt --out tests/data/golden/default
    make_golden.py tokenizer --model models/NAME --text HELD_OUT.txt --out
    tests/data/golden/tokenizer.json

`tiny` and `compact` write seeded random checkpoints and their golden files; `model` only the golden
files of a checkpoint that lives elsewhere. The format is described in tests/data/golden/README.md.
Everything is computed in float32 with eager attention, without a KV cache: each greedy step
recomputes the whole sequence. (With dynamic RoPE scaling, token by token with a cache: otherwise
the rotation of a position depends on what comes after it.)
"""

import argparse
import copy
import json
import lzma
import random
from pathlib import Path

import numpy as np
import sentencepiece as spm
import torch
from transformers import DynamicCache

from golden_checkpoints import FatRelu, absorb_mup, build, load, random_state, write_checkpoint
from golden_variants import BASE, BOS, COMPACT_VARIANTS, EOS, VARIANTS

PROMPTS = 20
COMPACT_PROMPTS = 10
GREEDY = 64
MAX_PROMPT = 40

# A prompt is kept only if, at each greedy step, the best logit leads the second by this share of
# the range, so that rounding cannot change the text.
MIN_MARGIN = 1e-4

# With FATReLU also: no gate value is closer than this to the threshold, where rounding would decide
# between 0 and a jump to the threshold.
MIN_EDGE = 2e-6


@torch.no_grad()
def token_by_token(model, ids, length):
    """`ids` continued greedily up to `length`, and the logits of all but the last."""
    ids, rows, cache = list(ids), [], DynamicCache(config=model.config)
    for position in range(length - 1):
        out = model(
            torch.tensor([ids[position : position + 1]]),
            past_key_values=cache,
            position_ids=torch.tensor([[position]]),
            use_cache=True,
        )
        rows.append(out.logits[0, -1])
        if len(ids) == position + 1:
            ids.append(int(rows[-1].argmax()))
    return ids, torch.stack(rows)


@torch.no_grad()
def all_logits(model, ids):
    """[len(ids), vocab]"""
    if is_dynamic(model):
        return token_by_token(model, ids, len(ids) + 1)[1]
    return model(torch.tensor([ids]), use_cache=False).logits[0]


def is_dynamic(model):
    rope = getattr(model.config, "rope_parameters", None) or {}
    return rope.get("rope_type") == "dynamic"


def greedy(model, prompt):
    """(GREEDY ids, float32 logits [len(prompt) + GREEDY - 1, vocab]), end of text not respected."""
    ids = list(prompt)
    if is_dynamic(model):
        ids, logits = token_by_token(model, prompt, len(prompt) + GREEDY)
    else:
        for _ in range(GREEDY):
            logits = all_logits(model, ids)
            ids.append(int(logits[-1].argmax()))
    return ids[len(prompt) :], logits


def ffn_zeros(model, sequences):
    """Share of zeros in x1, what the FFN's last projection reads, per layer over all positions of
    `sequences`."""
    is_opt = model.config.model_type == "opt"
    layers = model.model.decoder.layers if is_opt else model.model.layers
    zeros, counts = [0] * len(layers), [0] * len(layers)

    def watch(i):
        def hook(_, args):
            zeros[i] += int((args[0] == 0).sum())
            counts[i] += args[0].numel()

        return hook

    handles = [
        (layer.fc2 if is_opt else layer.mlp.down_proj).register_forward_pre_hook(watch(i))
        for i, layer in enumerate(layers)
    ]
    for ids in sequences:
        all_logits(model, ids)
    for handle in handles:
        handle.remove()
    return [round(z / c, 6) for z, c in zip(zeros, counts)]


def write_golden(directory, model, draw, steps, extra, count=PROMPTS):
    """Writes golden.json and logits.bin. draw(slot) -> (ids, text or None) is called for slot 0 …
    count - 1, and again for the same slot while its prompt fails the checks. Logits are kept
    after `steps` greedy tokens."""
    directory.mkdir(parents=True, exist_ok=True)
    exact = copy.deepcopy(model).double()  # how far float32 rounding alone moves the logits
    prompts, rows, low, high, delta, rejected = [], [], np.inf, -np.inf, 0.0, 0
    while len(prompts) < count:
        assert rejected < 200, "too many prompts rejected"
        ids, text = draw(len(prompts))
        edges = [m for m in model.modules() if isinstance(m, FatRelu)]
        for act in edges:
            act.closest = float("inf")
        tokens, logits = greedy(model, ids)
        edge = min((act.closest for act in edges), default=float("inf"))
        best = logits[len(ids) - 1 :].topk(2).values
        spread = float(logits.max() - logits.min())
        margin = float((best[:, 0] - best[:, 1]).min()) / spread
        if margin < MIN_MARGIN or edge < MIN_EDGE or EOS in tokens or BOS in tokens:
            rejected += 1
            continue
        wide = all_logits(exact, ids + tokens[:-1])
        delta = max(delta, float((wide - logits).abs().max()) / spread)
        entry = {"prompt": ids, "greedy": tokens, "min_margin": round(margin, 7), "logits": []}
        if text is not None:
            entry["text"] = text
        for k in steps:
            entry["logits"].append({"position": len(ids) - 1 + k, "row": len(rows)})
            rows.append(logits[len(ids) - 1 + k].numpy())
        prompts.append(entry)
        low, high = min(low, float(logits.min())), max(high, float(logits.max()))
    distinct = np.mean([len(set(p["greedy"])) for p in prompts])
    zeros = ffn_zeros(model, [p["prompt"] + p["greedy"][:-1] for p in prompts])
    golden = {
        "format": 1,
        "vocab_size": model.config.vocab_size,
        "logits_file": "logits.bin",
        "logits_rows": len(rows),
        "logit_min": low,
        "logit_max": high,
        "float64_max_relative_delta": delta,
        "ffn_zero_share": zeros,
        **extra,
        "prompts": prompts,
    }
    (directory / "golden.json").write_text(json.dumps(golden, ensure_ascii=False) + "\n")
    np.stack(rows).astype("<f4").tofile(directory / "logits.bin")
    print(
        f"{directory.name}: logits [{low:.2f}, {high:.2f}], {distinct:.1f} distinct tokens of "
        f"{GREEDY}, "
        f"zeros {zeros}, f64 delta {delta:.1e}, {rejected} prompts rejected"
    )


def tiny(args):
    for seed, (name, (changes, shards)) in enumerate(VARIANTS.items(), start=args.seed):
        config = {k: v for k, v in (BASE | changes).items() if v is not None or k == "rope_scaling"}
        directory = args.out / name
        write_checkpoint(directory, config, random_state(build(config), seed), shards)
        write_tiny_golden(directory, config, seed, (0, 1, 31, 63), PROMPTS)


def compact(args):
    for seed, (name, keys) in enumerate(COMPACT_VARIANTS.items(), start=args.seed + 200):
        config = {k: v for k, v in keys.items() if v is not None or k == "sliding_window"}
        directory = args.out / name
        # The seed's weights for MiniCPM are those of a tied model, before any scale.
        is_mup = "scale_emb" in config
        tied = config | {"tie_word_embeddings": True, "model_type": "llama"} if is_mup else config
        # Smaller than their positions and blocks, or a model would repeat what it is given.
        embeddings = 0.05 if is_mup else 0.2 if "ffn_dim" in config else None
        state = random_state(build(tied), seed, embeddings)
        if name == "minicpm_llama_format":
            state = absorb_mup(state, config)
        write_checkpoint(directory, config, state, 1)
        write_tiny_golden(directory, config, seed, (0, 31, 63), COMPACT_PROMPTS)


def write_tiny_golden(directory, config, seed, steps, count):
    model, _ = load(directory)
    rng = random.Random(seed)

    def draw(slot):
        length = MAX_PROMPT if slot == count - 1 else 1 + 2 * slot
        ids = [rng.randrange(3, config["vocab_size"]) for _ in range(length)]
        return ([config["bos_token_id"]] + ids[1:] if slot else ids), None

    write_golden(directory, model, draw, steps, {"seed": seed}, count)


def prompt_length(slot):
    """1, 3, 5, … and at last MAX_PROMPT."""
    return MAX_PROMPT if slot == PROMPTS - 1 else 1 + 2 * slot


def read_paragraphs(path):
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip() and not line.startswith("<|")]


def model(args):
    model, _ = load(args.model)
    sp = spm.SentencePieceProcessor(model_file=str(args.model / "tokenizer.model"))
    rng = random.Random(args.seed)
    paragraphs = [p for p in read_paragraphs(args.text) if len(p) > 250]

    def draw(slot):
        text = " ".join(rng.choice(paragraphs).split()[: prompt_length(slot)])
        return [BOS] + sp.encode(text), text

    write_golden(args.out, model, draw, (0, 63), {"model": args.model.name, "seed": args.seed})


HAND_MADE = [
    "", " ", "  ", "   ", "a", " a", "a ", " a ", "  a  b  ", "\n", "\n\n", "a\nb", "a\n\nb\n",
    "\t", "a\tb", "\r\n",
    "\u0000", "a\u0000b", "\u0001\u0002\u001f", "\u007f", "\u00a0", "a\u00a0b", "\u2003x\u2009y",
    "\u200b", "\ufeff",
    "\u3000", "\u2028", "\ufffd", "\ufffe", "\U0010ffff", "\u00ad", "<s>", "</s>", "<unk>",
    "<0x0A>", "<|endofbook|>",
    "\u2581", "\u2581a", "a\u2581b", " \u2581 ", "0", "1234567890", "3.14159", "-1", "1,000,000",
    "x=1", "2026-01-31",
    "£20", "½", "٣٤٥", "①②", "é", "e\u0301", "ñ", "n\u0303", "Å", "A\u030a",
    "a\u0300\u0301\u0302\u0303", "ﬁ", "ß",
    "日本語", "你好，世界", "한국어", "ไทย", "हिन्दी",
    "עברית", "العربية", "Ελληνικά", "ἀρχή", "Русский",
    "æœ",
    "😀", "👨‍👩‍👧‍👦", "🇫🇷", "👍🏽", "😀😀😀 yes", "a😀b", "𝔘𝔫𝔦", "—", "“Don’t,” said he.",
    "‘quoted’",
    "--", "...", "…",
    "!!!???", "(a) [b] {c}", "a_b", "a/b\\c", "user@example.org", "http://example.org/?q=1&r=2#s",
    "C++20", "`code`",
    "The quick brown fox jumps over the lazy dog.", "IT WAS A DARK NIGHT", "mIxEd CaSe",
    "antidisestablishmentarianism",
    "Once upon a time", "Once upon a time ", " Once upon a time", "once  upon   a    time",
    "It is\na truth", "I'm",
    "don't", "o'clock", "Mr. Darcy", "CHAPTER I.", "x" * 300, "ab" * 200, " " * 100, "\n" * 50,
    "a " * 150, "é" * 100,
    "日" * 100, "😀" * 60, "1" * 120, "-" * 200, "the " * 100, "The\u0000end", "zzzzqqqqxxxx",
    "ſtrange", "naïve café",
]  # fmt: skip


def tokenizer(args):
    sp = spm.SentencePieceProcessor(model_file=str(args.model / "tokenizer.model"))
    rng = random.Random(args.seed)
    strings = list(HAND_MADE)
    for paragraph in rng.sample([p for p in read_paragraphs(args.text) if len(p) > 20], 80):
        words = paragraph.split()
        start = rng.randrange(len(words))
        strings.append(" ".join(words[start : start + rng.randint(2, 40)]))
    ranges = [(0x20, 0x7E)] * 4 + [(0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x2000, 0x206F),
              (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1FAFF), (0x00,
              0x1F)]  # fmt: skip
    while len(strings) < 300:
        picks = [rng.choice(ranges) for _ in range(rng.randint(1, 30))]
        strings.append("".join(chr(rng.randint(*r)) for r in picks))
    cases = []
    for text in strings:
        ids = sp.encode(text)
        cases.append({"text": text, "ids": ids, "decoded": sp.decode(ids)})
    golden = {"format": 1, "model": args.model.name, "vocab_size": sp.vocab_size(), "cases": cases}
    args.out.write_text(json.dumps(golden) + "\n")
    print(
        f"{len(cases)} strings, {sum(c['text'] == c['decoded'] for c in cases)} come back unchanged"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["tiny", "compact", "model", "tokenizer"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="HF directory (model, tokenizer)")
    parser.add_argument(
        "--text", type=Path, help="held-out text, .txt or .txt.xz (model, tokenizer)"
    )
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.what in ("model", "tokenizer") and not (args.model and args.text):
        parser.error(f"{args.what} needs --model and --text")
    torch.manual_seed(args.seed)
    {"tiny": tiny, "compact": compact, "model": model, "tokenizer": tokenizer}[args.what](args)


if __name__ == "__main__":
    main()
