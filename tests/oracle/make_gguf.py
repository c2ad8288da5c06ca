#!/usr/bin/env python3
"""Golden GGUF files, written by the package `gguf` of llama.cpp.

    make_gguf.py types --out tests/data/golden/gguf/types.gguf
    make_gguf.py tiny --model tests/data/golden/silu_gqa_tied --out tests/data/golden/gguf/tiny.gguf

`types`: for each type of tensors that Lacuna reads a tensor of that name, and TYPE.expected, what
the package's `dequantize` makes of it. Blocks are random bytes with scales in a range where nothing
overflows, so every code occurs.

`tiny`: a Hugging Face directory in float32, as llama.cpp's converter writes it: names, keys, the
reordered rows of Q and K. Its vocabulary is made up.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, TokenType
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize
from safetensors.numpy import load_file

ROWS, COLS = 3, 512

# The places of the float16 numbers in a block, by type.
SCALES = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
    Type.IQ4_NL: [0], Type.IQ4_XS: [0],
}  # fmt: skip


def types(args):
    rng = np.random.default_rng(args.seed)
    writer = GGUFWriter(args.out, "none")
    for kind in (Type.F32, Type.F16, Type.BF16, *SCALES):
        if kind in SCALES:
            elements, size = GGML_QUANT_SIZES[kind]
            blocks = rng.integers(0, 256, (ROWS, COLS // elements, size), dtype=np.uint8)
            for at in SCALES[kind]:
                scale = rng.uniform(-2, 2, blocks.shape[:2]).astype("<f2")
                blocks[:, :, at : at + 2] = scale[..., None].view(np.uint8)
            data = blocks.reshape(ROWS, -1)
        else:
            floats = rng.standard_normal((ROWS, COLS)).astype(np.float32)
            if kind == Type.F16:
                # Subnormal ones too.
                data = (floats * 10.0 ** rng.integers(-7, 3, COLS)).astype(np.float16)
            elif kind == Type.BF16:
                data = (floats.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
            else:
                data = floats
        if kind == Type.BF16 or kind in SCALES:
            expected = dequantize(data, kind)
            writer.add_tensor(kind.name, data, raw_dtype=kind)
        else:
            expected = data.astype(np.float32)
            writer.add_tensor(kind.name, data)
        assert expected.shape == (ROWS, COLS) and np.isfinite(expected).all()
        writer.add_tensor(kind.name + ".expected", expected.astype(np.float32))
    finish(writer)


def interleave(weight, heads):
    """What llama.cpp's converter does to Q and K."""
    rows, cols = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, cols)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows, cols)


LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def gguf_name(name):
    stem, suffix = name.rsplit(".", 1)
    if stem in NAMES:
        return f"{NAMES[stem]}.{suffix}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[part]}.{suffix}"


def tiny(args):
    config = json.loads((args.model / "config.json").read_text())
    writer = GGUFWriter(args.out, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    tokens += [f"▁w{i}" for i in range(len(tokens), config["vocab_size"])]
    kinds += [TokenType.NORMAL] * (config["vocab_size"] - len(kinds))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(len(tokens))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])

    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, weight in sorted(load_file(args.model / "model.safetensors").items()):
        for part, count in heads.items():
            if f".{part}." in name:
                weight = interleave(weight, count)
        writer.add_tensor(gguf_name(name), weight)
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["types", "tiny"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="HF directory (tiny)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.what == "tiny" and not args.model:
        parser.error("tiny needs --model")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    {"types": types, "tiny": tiny}[args.what](args)


if __name__ == "__main__":
    main()
