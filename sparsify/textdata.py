"""Text in, token arrays out: reading, the SentencePiece tokenizer, encoding.

Text format: UTF-8 (`.txt` or `.txt.xz`), one paragraph a line, blank lines ignored, a line
`<|endofbook|>` between documents. Documents that turn out to be hard-wrapped (a paragraph over many
lines) are unwrapped first. Paragraphs are joined with one newline. A document is cut into
*passages* of whole paragraphs (>= PASSAGE_CHARS characters); each passage is encoded on its own and
starts with <s> where the tokenizer has it, so the model learns to start anywhere in a book and not
only at title pages. The last passage of a document ends with </s>, unless the document's last line
is `<|cut|>`: it goes on, but not here.
"""

import hashlib
import io
import json
import lzma
import string
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sentencepiece as spm
import torch
from tqdm import tqdm
from transformers import AutoTokenizer

from .objective import IGNORE

BOUNDARY = "<|endofbook|>"
CUT = "<|cut|>"
PASSAGE_CHARS = 4000
ENCODED_AT_ONCE = 1000  # passages: the tokenizer holds some 30 times their size
TOKENIZER_FILES = (
    "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip
SENTENCE_END = ".!?:;\"'”’—*"


def read_documents(path):
    """Yields each document of `path` as a list of paragraphs (stripped, single spaces, not
    empty)."""
    path = Path(path)
    opener = lzma.open if path.suffix == ".xz" else open
    lines = []
    with opener(path, "rt", encoding="utf-8") as file:
        for line in file:
            line = " ".join(line.split())
            if line != BOUNDARY:
                lines.append(line)
            elif any(lines):
                yield _unwrap(lines)
                lines = []
    if any(lines):
        yield _unwrap(lines)


def _unwrap(lines):
    """Paragraphs of a document given as lines. A document is taken as hard-wrapped when over 40 %
    of its lines end in a letter or comma; then a paragraph ends at a blank line or, in documents
    without blank lines, at a sentence end where the next line's first word would still have
    fitted."""
    full = [line for line in lines if line]
    if not full or sum(line[-1].isalpha() or line[-1] == "," for line in full) < 0.4 * len(full):
        return full
    has_blanks = len(full) < 0.95 * len(lines)
    width = sorted(map(len, full))[int(0.95 * len(full))]
    paragraphs, part = [], []
    for line, following in zip(lines, [*lines[1:], ""]):
        if line:
            part.append(line)
        fits = len(line) + 1 + len(following.split(" ")[0]) < width - 4
        if part and (not following or (not has_blanks and fits and line[-1] in SENTENCE_END)):
            paragraphs.append(" ".join(part))
            part = []
    return paragraphs


def passages(paragraphs):
    """Joins paragraphs with newlines into strings of at least PASSAGE_CHARS (the last may be
    shorter)."""
    part, size = [], 0
    for paragraph in paragraphs:
        part.append(paragraph)
        size += len(paragraph) + 1
        if size >= PASSAGE_CHARS:
            yield "\n".join(part)
            part, size = [], 0
    if part:
        yield "\n".join(part)


def tokenizer(args):
    """Writes tokenizer.model and tokenizer_config.json into --out: BPE with byte fallback and
    LLaMA's options, learnt from every n-th paragraph of --text so that the sample has about
    --sample-mb MB. Newline is the byte piece <0x0A>."""
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    lines = [p for document in read_documents(args.text) for p in document]
    total = sum(len(line.encode()) for line in lines)
    every = max(1, round(total / (args.sample_mb * 1e6)))
    model = io.BytesIO()  # not model_prefix, which would put the path into the file
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines[::every]),
        model_writer=model,
        model_type="bpe",
        vocab_size=args.vocab_size,
        byte_fallback=True,
        character_coverage=0.9998,
        required_chars=string.digits + string.ascii_letters + string.punctuation,
        normalization_rule_name="identity",
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        max_sentence_length=65536,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
        num_threads=2,
        minloglevel=1,
    )  # fmt: skip
    (out / "tokenizer.model").write_bytes(model.getvalue())
    config = {
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False,
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False, "legacy": True,
    }  # fmt: skip
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


class Tokens(NamedTuple):
    ids: np.ndarray  # uint16, or uint32 with a large vocabulary
    size: int  # bytes of text that they stand for
    bos: int  # the id at the start of each passage, never a target; -1: none

    def head(self, n):
        """The first `n` ids (all with None), and their bytes in proportion."""
        if n is None or n >= len(self.ids):
            return self
        return Tokens(self.ids[:n], round(self.size * n / len(self.ids)), self.bos)


def encode(text, tokenizer, cache=None):
    """Tokens of the file `text`. `tokenizer`: HF directory. Each passage starts with what the
    tokenizer puts before every text (<s> of LLaMA tokenizers); with one that puts nothing there,
    passages are joined with newlines. With `cache` (a .npz path) the result is kept there."""
    files = [Path(tokenizer) / name for name in TOKENIZER_FILES]
    key = hashlib.sha256(b"".join(f.read_bytes() for f in files if f.exists())).hexdigest()
    key += f" {Path(text).name} {Path(text).stat().st_size}"
    if cache and Path(cache).exists():
        saved = np.load(cache)
        if str(saved["key"]) != key:
            raise SystemExit(f"{cache} is of another text or tokenizer: delete it")
        return Tokens(saved["ids"], int(saved["size"]), int(saved["bos"]))
    hf = AutoTokenizer.from_pretrained(tokenizer)
    hf.model_max_length = 10**9  # silences a warning: passages are cut into windows later
    prefix = hf("")["input_ids"]
    if len(prefix) > 1 or hf.eos_token_id is None:
        raise SystemExit(
            f"{tokenizer}: want an end token, and at most one token before a text, not {prefix}"
        )
    dtype = np.uint16 if len(hf) <= 1 << 16 else np.uint32
    chunks, size = [], 0
    for document in tqdm(read_documents(text), desc=f"encode {Path(text).name}", unit="doc"):
        ends = document[-1] != CUT
        texts = list(passages(document if ends else document[:-1]))
        size += sum(len(t.encode()) for t in texts)
        if not prefix:
            texts[:-1] = [t + "\n" for t in texts[:-1]]
        for first in range(0, len(texts), ENCODED_AT_ONCE):
            ids = hf(texts[first : first + ENCODED_AT_ONCE], return_attention_mask=False)
            chunks += [np.array(i, dtype=dtype) for i in ids["input_ids"]]
        if ends:
            chunks.append(np.array([hf.eos_token_id], dtype=dtype))
    if not chunks:
        raise SystemExit(f"{text} has no text")
    tokens = Tokens(np.concatenate(chunks), size, prefix[0] if prefix else -1)
    if cache:
        fresh = Path(cache).with_suffix(".new.npz")
        np.savez(fresh, key=key, **tokens._asdict())
        fresh.rename(cache)
    return tokens


def windows(ids, context):
    """View of `ids` as [n, context + 1] rows that overlap by one token; the tail is dropped."""
    n = (len(ids) - 1) // context
    return np.lib.stride_tricks.as_strided(
        ids, (n, context + 1), (context * ids.itemsize, ids.itemsize), writeable=False
    )


def inputs_and_targets(rows, bos):
    """Tensors x, y [n, context] of rows [n, context + 1]; `bos` is no target."""
    rows = torch.from_numpy(rows.astype(np.int64))
    x, y = rows[:, :-1], rows[:, 1:]
    return x, torch.where(y == bos, IGNORE, y)
