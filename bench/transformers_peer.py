#!/usr/bin/env python3
"""Hugging Face transformers on the shapes of lacuna-bench --synthetic: random weights, a static
cache, and generate(), which compiles the decoding step on a GPU. Prints a JSON object for each
batch, with the names that lacuna-bench gives them.

    pip install torch transformers
    bench/transformers_peer.py --shape=prosparse-llama2-7b --batch=1,8

A token's time is the difference between generating --generate_tokens + 1 tokens and 1 token, so
prompts and the first step are no part of it. Both are greedy and never stop early.
"""

import argparse
import json
import statistics
import time

import torch
import transformers

# Hidden, FFN, layers, heads, key and value heads, vocabulary: as runtime/model/synthetic.cc.
SHAPES = {
    "prosparse-llama2-7b": (4096, 11008, 32, 32, 32, 32000),
    "prosparse-llama2-13b": (5120, 13824, 40, 40, 40, 32000),
    "minicpm-s-1b": (1536, 3840, 52, 24, 8, 32000),
    "relullama-7b": (4096, 11008, 32, 32, 32, 32000),
    "tiny": (256, 1024, 4, 4, 2, 1024),
}
DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}


def make_model(shape, dtype, device, context):
    hidden, ffn, layers, heads, kv_heads, vocabulary = SHAPES[shape]
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, hidden_act="relu",
        max_position_embeddings=context, bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
    return model.eval()


def measure(model, batch, args):
    prompts = torch.randint(
        1, model.config.vocab_size, (batch, args.prompt_tokens), device=args.device
    )

    def seconds(tokens):
        if args.device.startswith("cuda"):
            torch.cuda.synchronize()
        start = time.perf_counter()
        out = model.generate(
            prompts, attention_mask=torch.ones_like(prompts), do_sample=False,
            min_new_tokens=tokens, max_new_tokens=tokens, cache_implementation="static",
        )  # fmt: skip
        assert out.shape[1] == args.prompt_tokens + tokens
        if args.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(2):  # compiles, for both lengths of the cache
        seconds(args.generate_tokens + 1)
        seconds(1)
    prefill, decode = [], []
    for _ in range(args.repeat):
        first = seconds(1)
        prefill.append(batch * args.prompt_tokens / first)
        decode.append(batch * args.generate_tokens / (seconds(args.generate_tokens + 1) - first))
    return {
        "model": args.shape, "engine": f"transformers {transformers.__version__}",
        "weights": args.weights, "ffn": "dense", "device": args.device, "batch": batch,
        "prompt_tokens": args.prompt_tokens, "generate_tokens": args.generate_tokens,
        "prefill_tokens_per_s": statistics.median(prefill),
        "decode_tokens_per_s": statistics.median(decode),
        "decode_tokens_per_s_min": min(decode), "decode_tokens_per_s_max": max(decode),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="prosparse-llama2-7b")
    parser.add_argument("--weights", choices=DTYPES, default="bf16")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu")
    parser.add_argument("--batch", default="1", help="1,8 measures both")
    parser.add_argument("--prompt_tokens", type=int, default=128)
    parser.add_argument("--generate_tokens", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    context = args.prompt_tokens + args.generate_tokens + 1
    with torch.inference_mode():
        model = make_model(args.shape, args.weights, args.device, context)
        for batch in map(int, args.batch.split(",")):
            print(json.dumps(measure(model, batch, args)), flush=True)


if __name__ == "__main__":
    main()
