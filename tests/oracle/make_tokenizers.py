#!/usr/bin/env python3
# ruff: noqa: E501
"""Small tokenizers in the formats of well-known model families, and what Hugging Face's
`tokenizers` makes of 10,000 strings with each.

    make_tokenizers.py train --text NOVELS.txt.xz     writes tests/data/tokenizers/NAME/*, atoms.json
    make_tokenizers.py golden                         writes tests/data/tokenizers/golden.json

The strings are put together from the texts in atoms.json by a generator that is simple enough to be
written again in C++ (tests/runtime/tokenizer/golden_strings.h). The format of golden.json is
described in tests/data/golden/README.md.
"""

import argparse
import json
import lzma
import random
import unicodedata
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

OUT = Path(__file__).resolve().parent.parent / "data" / "tokenizers"
STRINGS = 10_000
BLOCK = 50  # strings under one hash
SHOWN = 12  # strings whose ids are in the file
VOCAB = 900

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = [
    r"[\r\n]",
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-Ⴥა-ჺჽ-ჿᎠ-Ᏽ]+",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    r"[一-龥ࠀ-一가-퟿]+",
]
LLAMA_DECODER = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def byte_level(*steps, use_regex=False, add_prefix_space=False):
    last = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)
    return pre_tokenizers.Sequence([*steps, last]) if steps else last


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def bos(token, number):
    return processors.TemplateProcessing(single=f"{token} $A", special_tokens=[(token, number)])


def special(*contents):
    return [AddedToken(c, special=True, normalized=False) for c in contents]


def train(tokenizer, texts, tokens, byte_tokens=False, vocab=VOCAB):
    is_bytes = isinstance(tokenizer.decoder, decoders.ByteLevel)
    names = [t.content for t in tokens]
    if byte_tokens:
        names += [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab + (256 if byte_tokens else 0),
        show_progress=False,
        special_tokens=names,
        limit_alphabet=256 if is_bytes else 150,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if is_bytes else [],
    )
    tokenizer.train_from_iterator(texts, trainer)


def make(name):
    """The untrained tokenizer, its added tokens, and whether it has byte tokens."""
    tok = Tokenizer(models.BPE())
    tok.decoder = decoders.ByteLevel()
    eot = special("<|endoftext|>")
    chat = special("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    llama = special("<unk>", "<s>", "</s>")
    if name in ("gpt2", "opt"):
        tok.pre_tokenizer = byte_level(use_regex=True)
        tok.post_processor = processors.ByteLevel(trim_offsets=False)
        return tok, eot if name == "gpt2" else special("<s>", "<pad>", "</s>", "<unk>"), False
    if name == "llama3":
        tok = Tokenizer(models.BPE(ignore_merges=True))
        tok.decoder = decoders.ByteLevel()
        tok.pre_tokenizer = byte_level(split(LLAMA3))
        tok.post_processor = processors.Sequence(
            [processors.ByteLevel(trim_offsets=False), bos("<|begin_of_text|>", 0)]
        )
        return tok, special("<|begin_of_text|>", "<|eot_id|>"), False
    if name == "qwen2":
        tok.normalizer = normalizers.NFC()
        tok.pre_tokenizer = byte_level(split(QWEN2))
        return tok, chat, False
    if name == "smollm2":
        tok.pre_tokenizer = byte_level(pre_tokenizers.Digits(True), use_regex=True)
        return tok, chat, False
    if name == "cl100k":
        tok.pre_tokenizer = byte_level(split(CL100K, "removed", invert=True))
        return tok, eot, False
    if name == "o200k":
        tok.pre_tokenizer = byte_level(split(O200K))
        return tok, eot, False
    if name == "deepseek":
        tok.pre_tokenizer = byte_level(*map(split, DEEPSEEK), pre_tokenizers.Digits(True))
        return tok, eot, False
    if name == "folding":
        # Not of a family: the steps that no other has.
        tok.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(), normalizers.NFD()]
        )
        tok.pre_tokenizer = byte_level(
            split(r"[!-/]", "contiguous"),
            pre_tokenizers.WhitespaceSplit(),
            split(r"[aeiou]", "merged_with_next"),
            split(r"[xyz]+", "merged_with_previous"),
            pre_tokenizers.Digits(False),
            use_regex=True,
            add_prefix_space=True,
        )
        extra = [
            AddedToken("<left>", lstrip=True, special=True, normalized=False),
            AddedToken("<right>", rstrip=True, special=True, normalized=False),
            AddedToken("whale", single_word=True, normalized=False),
            AddedToken("captain ahab", normalized=True),
        ]
        return tok, eot + extra, False
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.decoder = decoders.Sequence([*LLAMA_DECODER, decoders.Strip(" ", 1, 0)])
    tok.post_processor = bos("<s>", 1)
    if name == "llama2":
        tok.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        return tok, llama, True
    if name == "mistral":
        tok.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
        return tok, llama, True
    if name == "gemma":
        tok.normalizer = normalizers.Replace(" ", "▁")
        tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tok.decoder = decoders.Sequence(LLAMA_DECODER)
        return tok, llama + [AddedToken("\n\n", normalized=False)], True
    if name == "metaspace":
        tok = Tokenizer(models.BPE(unk_token="<unk>"))
        tok.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", split=True)
        tok.decoder = decoders.Metaspace("▁", "always", split=True)
        return tok, llama, False
    raise ValueError(name)


NAMES = (
    "gpt2 opt llama3 qwen2 smollm2 cl100k o200k deepseek folding llama2 mistral gemma metaspace"
).split()


def read_lines(path):
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [line.strip() for line in file if len(line) > 40]


def make_atoms(lines, rng):
    """Texts of all kinds, to be joined to strings."""
    atoms = []
    for _ in range(420):
        line = rng.choice(lines)
        begin = rng.randrange(len(line))
        atoms.append(line[begin : begin + rng.randint(1, 90)])
    code = Path(__file__).with_name("make_golden.py").read_text().splitlines(keepends=True)
    code += ["for (int i = 0; i < n; ++i) {\n\t\tx[i] += y[i] * 0x1F;\r\n}", "a->b::c<T&&>(*p)"]
    atoms += rng.sample(code, 60) + code[-2:]
    atoms += ["I'm", "they'LL", "'Tis", "don't", "we've'd", "'ſ", "ROCK'N'ROLL", "l'été"]
    atoms += [str(rng.randrange(10 ** rng.randint(1, 12))) for _ in range(40)]
    atoms += ["3.14159", "1,000,000", "٣٤٥", "½", "Ⅷ", "x²", "①", "1e-9", "0b1010", "२०२६"]
    atoms += ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "☃️", "✓", "\U0001f9d1\u200d\U0001f680"]
    atoms += [
        "e\u0301",
        "é",
        "ä̈̈",
        "q̃́",
        "\u0344",
        "Å",
        "Å",
        "ﬁ",
        "ﷺ",
        "ǅ",
        "İ",
        "ß",
        "ς",
        "각",
        "ᄀ\u1161\u11a8",
    ]
    atoms += [
        "Z" + "\u0316\u0301\u0327" * 9,
        "\u0f73\u0f72\u0f71",
        "नमस्ते",
        "สวัสดี",
        "שלום",
        "مرحبا بالعالم",
    ]
    atoms += [
        "你好，世界。",
        "東京タワー",
        "안녕하세요",
        "ひらがな",
        "漢字",
        "㍿",
        "𠮷野家",
        "ｆｕｌｌ　ｗｉｄｔｈ",
        "《》",
    ]
    atoms += ["Привет", "Ελληνικά", "Việt Nam", "naïve café", "Łódź", "Ångström", "ǄUNGLA"]
    atoms += [chr(c) for c in [*range(1, 32), 127, *range(128, 160)]] + ["\0", "\u00a0", "\u00ad"]
    atoms += [
        " ",
        "  ",
        "   ",
        "\t",
        "\n",
        "\n\n",
        "\r\n",
        " \n ",
        "\u2003",
        "\u3000",
        "\u180e",
        "\u200b",
        "\ufeff",
        "\u2028",
        "\u0085",
    ]
    atoms += [
        "▁",
        "▁▁",
        "_",
        "Ġ",
        "Ċ",
        "<0x0A>",
        "<0xE2>",
        "#version",
        "\ufffd",
        "\U0010ffff",
        "\ue000",
    ]
    atoms += [
        "<|endoftext|>",
        "<s>",
        "</s>",
        "<unk>",
        "<pad>",
        "<|im_start|>",
        "<|im_end|>",
        "<|eot_id|>",
        "<|begin_of_text|>",
    ]
    atoms += [
        "<left>",
        "<right>",
        "whale",
        "whales",
        "Captain Ahab",
        "captain ahab",
        "[INST]",
        "<|im_",
        "start|>",
    ]
    atoms += [
        "a" * 50,
        "ab" * 40,
        "=" * 70,
        "-" * 33,
        "  " * 25,
        "\n" * 20,
        "!?" * 15,
        "的" * 20,
        "é" * 30,
    ]
    while len(atoms) < 900:
        c = chr(rng.choice([rng.randrange(0x300, 0x3000), rng.randrange(0xA000, 0x20000)]))
        if is_old(c):
            atoms.append(c)
    return atoms


def is_old(c):
    """Whether all libraries have the same properties of `c`: their Unicode versions are 13 to 16.
    Python 3.11 has 14; what normalization does is known to agree for those of version 3.2 only."""
    new = unicodedata.ucd_3_2_0.category(c) == "Cn"
    changes = new and (unicodedata.normalize("NFKC", c.lower()) != c or unicodedata.combining(c))
    return unicodedata.category(c) not in ("Cn", "Cs") and not changes


class Generator:
    """Knuth's 64-bit linear congruential generator (MMIX); tests/.../golden_strings.h has it too."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n


JOINTS = ["", "", " ", " ", "  ", "\n"]


def make_string(atoms, index):
    gen = Generator(index)
    if index % 500 == 7:
        return atoms[gen.below(len(atoms))][:1] * 4000
    text = ""
    for _ in range(1 + gen.below(10)):
        text += atoms[gen.below(len(atoms))] + JOINTS[gen.below(len(JOINTS))]
    return text


def fnv(data, state=0xCBF29CE484222325):
    """FNV-1a, 64 bits, of bytes."""
    for byte in data:
        state = ((state ^ byte) * 0x100000001B3) % 2**64
    return state


def results(tokenizer, text):
    """Ids with special tokens left as text, the text of these, and ids with special tokens."""
    tokenizer.encode_special_tokens = True
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    decoded = tokenizer.decode(plain, skip_special_tokens=True)
    tokenizer.encode_special_tokens = False
    return plain, decoded, tokenizer.encode(text, add_special_tokens=False).ids


def write_train(text):
    rng = random.Random(20250611)
    lines = read_lines(text)
    atoms = make_atoms(lines, rng)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "atoms.json").write_text(
        json.dumps({"atoms": atoms}, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
    )
    corpus = rng.sample(lines, 1500) + [make_string(atoms, 1_000_000 + i) for i in range(400)]
    for name in NAMES:
        tokenizer, tokens, byte_tokens = make(name)
        train(tokenizer, corpus, tokens, byte_tokens)
        tokenizer.add_tokens([t for t in tokens if not t.special])
        tokenizer.add_special_tokens([t for t in tokens if t.special])
        folder = OUT / name
        folder.mkdir(exist_ok=True)
        data = json.loads(tokenizer.to_str())
        # The trainer makes control tokens of the byte tokens.
        data["added_tokens"] = [t for t in data["added_tokens"] if t["content"][:3] != "<0x"]
        if name == "gpt2":  # as older files have them
            data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]
        if name == "opt":
            write_gpt2_files(folder, data)
            continue
        (folder / "tokenizer.json").write_text(
            json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8"
        )


def write_gpt2_files(folder, data):
    vocab = json.dumps(data["model"]["vocab"], ensure_ascii=False, separators=(",", ":"))
    (folder / "vocab.json").write_text(vocab + "\n", encoding="utf-8")
    merges = "".join(" ".join(m) + "\n" for m in data["model"]["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    config = {
        "add_bos_token": True,
        "add_prefix_space": False,
        "bos_token": {"content": "</s>"},
        "eos_token": {"content": "</s>"},
        "pad_token": "<pad>",
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": "</s>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def load(name):
    folder = OUT / name
    if name != "opt":
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = byte_level(use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = bos("</s>", tokenizer.token_to_id("</s>"))
    tokenizer.add_special_tokens(special("</s>", "<pad>"))
    return tokenizer


def write_golden():
    atoms = json.loads((OUT / "atoms.json").read_text(encoding="utf-8"))["atoms"]
    strings = [make_string(atoms, i) for i in range(STRINGS)]
    golden = {"strings": STRINGS, "block": BLOCK, "tokenizers": {}}
    for name in NAMES:
        tokenizer = load(name)
        hashes, shown = [], []
        for begin in range(0, STRINGS, BLOCK):
            state = fnv(b"")
            for text in strings[begin : begin + BLOCK]:
                plain, decoded, marked = results(tokenizer, text)
                if len(shown) < SHOWN:
                    shown.append({"text": text, "ids": plain})
                for ids in (plain, marked):
                    state = fnv(len(ids).to_bytes(4, "little"), state)
                    state = fnv(b"".join(i.to_bytes(4, "little") for i in ids), state)
                state = fnv(decoded.encode(), state)
            hashes.append(f"{state:016x}")
        golden["tokenizers"][name] = {"shown": shown, "hashes": hashes}
    text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
    (OUT / "golden.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["train", "golden"])
    parser.add_argument("--text", help="novels, one paragraph a line, .xz")
    args = parser.parse_args()
    if args.what == "train":
        write_train(args.text)
    else:
        write_golden()
