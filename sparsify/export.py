"""Export as a Hugging Face directory that the server (and other ProSparse-aware loaders)
understand."""

import json
import shutil
from pathlib import Path

from safetensors.torch import save_file

from . import modeling


def config_for(model, threshold, dtype):
    """config.json with the classic LLaMA keys. threshold > 0: the keys of the published ProSparse
    checkpoints; 0: plain `relu`; None: the model's own activation."""
    c = model.config
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": c.hidden_act if threshold is None else "relu",
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_hidden_layers,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.max_position_embeddings,
        "rms_norm_eps": c.rms_norm_eps,
        "rope_theta": float(c.rope_parameters["rope_theta"]),
        "rope_scaling": None,
        "tie_word_embeddings": bool(c.tie_word_embeddings),
        "attention_bias": bool(c.attention_bias),
        "mlp_bias": bool(c.mlp_bias),
        "initializer_range": c.initializer_range,
        "bos_token_id": c.bos_token_id,
        "eos_token_id": c.eos_token_id,
        "torch_dtype": str(modeling.DTYPES[dtype]).removeprefix("torch."),
    }
    kind = c.rope_parameters.get("rope_type", "default")
    if kind != "default":
        raise ValueError(f"rope_type {kind!r} cannot be exported yet")
    if threshold:
        config |= {
            "architectures": ["SparseLlamaForCausalLM"],
            "model_type": "sparsellama",
            "hidden_act": "fatrelu",
            "hidden_act_param": threshold,
        }
    return config


def export(model, out, tokenizer, threshold=None, dtype="bf16"):
    """Writes config.json, model.safetensors, tokenizer.model, tokenizer_config.json,
    generation_config.json into `out`. Other files there (a model card) stay. Each file is replaced
    in one step."""
    out = Path(out)
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    out.mkdir(exist_ok=True)
    config = config_for(model, threshold, dtype)

    def write(name, value):
        (fresh / name).write_text(json.dumps(value, indent=2) + "\n")

    write("config.json", config)
    state = {
        n: p.detach().to(modeling.DTYPES[dtype]).contiguous() for n, p in model.state_dict().items()
    }
    if config["tie_word_embeddings"]:
        state.pop("lm_head.weight", None)
    save_file(state, fresh / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(tokenizer, fresh / "tokenizer.model")
    write(
        "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "model_max_length": config["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
            "legacy": True,
        },
    )
    ends = {"bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"]}
    write("generation_config.json", {**ends, "do_sample": True, "temperature": 0.7, "top_p": 0.95})
    for file in fresh.iterdir():
        file.chmod(0o644)
        file.replace(out / file.name)
    fresh.rmdir()


def run(args):
    path = Path(args.model)
    model = modeling.load(path, threshold=args.threshold)
    export(model, args.out, args.tokenizer or path / "tokenizer.model", args.threshold, args.dtype)
    print(f"{args.out}: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters")
