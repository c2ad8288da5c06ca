"""Writes a checkpoint of a published model's shape with seeded random weights.

For measuring what depends on sizes alone: how long loading takes, and how much memory. Needs
nothing but Python; a 7B model (13.5 GB) takes about as long as its bytes take to be written.

Usage: make_full_size.py SHAPE OUTPUT_DIRECTORY --tokenizer FILE

FILE is a SentencePiece tokenizer.model of the family (LLaMA 2's has 32000 pieces). If the model has
more ids, pieces that no text needs are appended.
"""

import argparse
import array
import json
import pathlib
import random
import struct

# config.json as the published checkpoints have it, as far as it is read.
SHAPES = {
    "prosparse-llama-2-7b": {
        "architectures": ["SparseLlamaForCausalLM"],
        "model_type": "sparsellama",
        "hidden_act": "fatrelu",
        "hidden_act_param": 0.01,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "vocab_size": 32000,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    },
    "minicpm-s-1b": {
        "architectures": ["MiniCPMForCausalLM"],
        "hidden_act": "fatrelu",
        "hidden_act_param": 0.03,
        "hidden_size": 1536,
        "intermediate_size": 3840,
        "num_hidden_layers": 52,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "max_position_embeddings": 4096,
        "vocab_size": 73440,
        "rms_norm_eps": 1e-05,
        "scale_emb": 12,
        "scale_depth": 1.4,
        "dim_model_base": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    },
}
SEED = 7
DEVIATION = 0.02  # of weights, as models are initialised
# Weights are runs of one block of random numbers, each starting somewhere else in it.
BLOCK_BYTES = 8 << 20
SHARD_BYTES = 5 * 10**9


def bf16(values):
    """The upper halves of float32 numbers, little-endian."""
    floats = array.array("f", values).tobytes()
    out = bytearray(len(floats) // 2)
    out[0::2] = floats[2::4]
    out[1::2] = floats[3::4]
    return bytes(out)


def tensors(config):
    """(name, shape) in the order of the layers."""
    hidden, ffn, vocab = (config[k] for k in ("hidden_size", "intermediate_size", "vocab_size"))
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", [vocab, hidden]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "self_attn.q_proj.weight", [hidden, hidden]
        yield prefix + "self_attn.k_proj.weight", [kv, hidden]
        yield prefix + "self_attn.v_proj.weight", [kv, hidden]
        yield prefix + "self_attn.o_proj.weight", [hidden, hidden]
        yield prefix + "mlp.gate_proj.weight", [ffn, hidden]
        yield prefix + "mlp.up_proj.weight", [ffn, hidden]
        yield prefix + "mlp.down_proj.weight", [hidden, ffn]
        yield prefix + "input_layernorm.weight", [hidden]
        yield prefix + "post_attention_layernorm.weight", [hidden]
    yield "model.norm.weight", [hidden]
    if config.get("tie_word_embeddings") is False:
        yield "lm_head.weight", [vocab, hidden]


def size_of(shape):
    return 2 * shape[0] * (shape[1] if len(shape) == 2 else 1)


def shards(config):
    """Lists of (name, shape), each of at most SHARD_BYTES."""
    result = [[]]
    used = 0
    for name, shape in tensors(config):
        if used + size_of(shape) > SHARD_BYTES:
            result.append([])
            used = 0
        used += size_of(shape)
        result[-1].append((name, shape))
    return result


def write_shard(path, entries, rng, block):
    header = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in entries:
        begin, end = end, end + size_of(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    one = bf16([1.0])
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape in entries:
            left = size_of(shape)
            if len(shape) == 1:
                file.write(one * shape[0])
                continue
            while left > 0:
                start = 2 * rng.randrange(BLOCK_BYTES // 4)
                left -= file.write(block[start : start + min(left, BLOCK_BYTES // 2)])


def padded_tokenizer(model, vocab):
    """The SentencePiece model with `vocab` pieces: a protobuf's repeated field 1 goes on at its end."""
    count = 0
    at = 0
    while at < len(model):  # every field of the message is of wire type 2
        tag = model[at]
        length = shift = 0
        while True:
            at += 1
            length |= (model[at] & 0x7F) << shift
            shift += 7
            if model[at] < 0x80:
                break
        at += 1 + length
        count += tag == 0x0A
    if count > vocab:
        raise SystemExit(f"the tokenizer has {count} pieces, the model {vocab} ids")
    pieces = b""
    for i in range(count, vocab):
        text = f"\ue000{i}".encode()
        piece = b"\x0a" + bytes([len(text)]) + text + b"\x15" + struct.pack("<f", -float(i))
        pieces += b"\x0a" + bytes([len(piece)]) + piece
    return model + pieces


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    args = parser.parse_args()
    config = SHAPES[args.shape]
    args.output.mkdir(parents=True)
    (args.output / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (args.output / "tokenizer.model").write_bytes(
        padded_tokenizer(args.tokenizer.read_bytes(), config["vocab_size"])
    )
    rng = random.Random(SEED)
    block = memoryview(bf16(rng.gauss(0, DEVIATION) for _ in range(BLOCK_BYTES // 2)))
    parts = shards(config)
    weight_map = {}
    total = 0
    for i, entries in enumerate(parts, 1):
        name = f"model-{i:05}-of-{len(parts):05}.safetensors"
        write_shard(args.output / name, entries, rng, block)
        for tensor, shape in entries:
            weight_map[tensor] = name
            total += size_of(shape)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (args.output / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


if __name__ == "__main__":
    main()
