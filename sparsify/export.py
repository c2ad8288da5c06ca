"""Export as a Hugging Face directory that the server (and other ProSparse-aware loaders)
understand, and the way from a GGUF file to such a directory."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from . import modeling
from .textdata import TOKENIZER_FILES


def copy_tokenizer(source, out):
    """Copies the tokenizer's files from one HF directory to another, byte by byte."""
    for name in TOKENIZER_FILES:
        if (Path(source) / name).exists():
            shutil.copyfile(Path(source) / name, Path(out) / name)


def config_for(model, dtype):
    """config.json with the classic LLaMA keys. A FATReLU threshold > 0 is written with the keys of
    the published ProSparse checkpoints."""
    c, threshold = model.config, modeling.threshold_of(model)
    rope = dict(c.rope_parameters)
    theta, kind = rope.pop("rope_theta"), rope.get("rope_type", "default")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": c.hidden_act,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.max_position_embeddings,
        "rms_norm_eps": c.rms_norm_eps,
        "rope_theta": float(theta),
        "rope_scaling": None if kind == "default" else rope,
        "tie_word_embeddings": bool(c.tie_word_embeddings),
        "attention_bias": bool(c.attention_bias),
        "mlp_bias": bool(c.mlp_bias),
        "initializer_range": c.initializer_range,
        "bos_token_id": c.bos_token_id,
        "eos_token_id": c.eos_token_id,
        "torch_dtype": str(modeling.DTYPES[dtype]).removeprefix("torch."),
    }
    if c.head_dim != c.hidden_size // c.num_attention_heads:
        config["head_dim"] = c.head_dim
    if threshold:
        config |= modeling.threshold_keys(threshold)
    return config


def export(model, out, tokenizer, dtype="bf16"):
    """Writes config.json, generation_config.json, model.safetensors and the files of the HF
    directory `tokenizer` into `out`. Other files there (a model card) stay. Each file is replaced
    in one step, config.json last: where it is, so is the rest."""
    out = Path(out)
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    out.mkdir(exist_ok=True)
    config = config_for(model, dtype)

    def write(name, value):
        (fresh / name).write_text(json.dumps(value, indent=2) + "\n")

    write("config.json", config)
    state = {
        n: p.detach().to(modeling.DTYPES[dtype]).contiguous() for n, p in model.state_dict().items()
    }
    if config["tie_word_embeddings"]:
        state.pop("lm_head.weight", None)
    save_file(state, fresh / "model.safetensors", metadata={"format": "pt"})
    copy_tokenizer(tokenizer, fresh)
    # Of some models any of several tokens ends a text, and only this file knows all of them.
    ends = {
        "bos_token_id": config["bos_token_id"],
        "eos_token_id": model.generation_config.eos_token_id or config["eos_token_id"],
    }
    write("generation_config.json", {**ends, "do_sample": True, "temperature": 0.7, "top_p": 0.95})
    for file in sorted(fresh.iterdir(), key=lambda file: file.name == "config.json"):
        file.chmod(0o644)
        file.replace(out / file.name)
    fresh.rmdir()


def run(args):
    model = modeling.load(args.model)
    if args.threshold is not None:
        modeling.require_relu(model, args.model)
        modeling.set_activation(model, args.threshold)
    export(model, args.out, args.tokenizer or args.model, args.dtype)
    print(f"{args.out}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")


def dequantize(args):
    """A GGUF file as an HF directory with bf16 weights and tokenizer.json."""
    path = Path(args.gguf)
    where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    AutoTokenizer.from_pretrained(**where).save_pretrained(args.out)
    export(model, args.out, args.out, args.dtype)
