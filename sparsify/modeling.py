"""LLaMA-family models with a ReLU-family FFN gate: making, substituting, loading, rounding."""

import json
from pathlib import Path

import torch
from transformers import AttentionInterface, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}

# PyTorch's fused attention, of rows without padding. As "sdpa", transformers gives it a mask when
# it is compiled, with which it is slower.
CAUSAL = "causal"
AttentionInterface.register(CAUSAL, sdpa_attention_forward)


class FATReLU(torch.nn.Module):
    """x where x >= threshold, else 0. With threshold 0 this is ReLU."""

    def __init__(self, threshold=0.0):
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        return torch.where(x >= self.threshold, x, 0) if self.threshold else torch.relu(x)

    def extra_repr(self):
        return f"threshold={self.threshold}"


def set_activation(model, threshold=0.0):
    """Activation substitution: every FFN gate becomes FATReLU(threshold). Returns `model`."""
    for layer in model.model.layers:
        layer.mlp.act_fn = FATReLU(threshold)
    model.config.hidden_act = "relu"
    return model


def require_relu(model, path):
    """Ends the program if the gate is no ReLU: a threshold would make another model of it."""
    if model.config.hidden_act != "relu":
        raise SystemExit(
            f"{path}: its gate is {model.config.hidden_act}; train it with --activation relu first"
        )


def threshold_of(model):
    """The FATReLU threshold; None where the gate is another function."""
    return getattr(model.model.layers[0].mlp.act_fn, "threshold", None)


def new_model(vocab_size, hidden, ffn, layers, heads, kv_heads, context, bos=1, eos=2):
    """A random LLaMA-architecture model with SiLU gate and tied embeddings."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=hidden // heads,
        max_position_embeddings=context,
        hidden_act="silu",
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    return LlamaForCausalLM(config)


# What training, measuring and export know. Others would load as a LLaMA and lose what makes them
# different (MiniCPM's scales), or be refused only when they are exported, after the training.
ARCHITECTURES = ("LlamaForCausalLM", "SparseLlamaForCausalLM")


def read_config(path):
    """config.json of an HF directory. Ends the program if `load` cannot load it."""
    file = Path(path) / "config.json"
    if not file.exists():
        raise SystemExit(f"{path} has no config.json: want a directory, not a hub's name")
    raw = json.loads(file.read_text())
    kind = (raw.get("architectures") or ["?"])[0]
    if kind not in ARCHITECTURES:
        raise SystemExit(f"{path} is of {kind}: want one of {', '.join(ARCHITECTURES)}")
    return raw


def load(path):
    """Loads an HF directory in float32, `hidden_act: fatrelu` included."""
    raw = read_config(path)
    if raw.get("hidden_act") != "fatrelu":
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    config = LlamaConfig.from_dict(raw | {"model_type": "llama", "hidden_act": "relu"})
    model = LlamaForCausalLM.from_pretrained(path, config=config, dtype=torch.float32)
    return set_activation(model, raw["hidden_act_param"]).eval()


def threshold_keys(threshold):
    """What config.json of a FATReLU model says, with the keys of the published checkpoints."""
    return {
        "architectures": ["SparseLlamaForCausalLM"],
        "model_type": "sparsellama",
        "hidden_act": "fatrelu",
        "hidden_act_param": threshold,
    }


def write_threshold(model, folder):
    """Adds a FATReLU threshold to the config.json that save_pretrained wrote, which knows none."""
    file = Path(folder) / "config.json"
    if threshold_of(model):
        config = json.loads(file.read_text()) | threshold_keys(threshold_of(model))
        file.write_text(json.dumps(config, indent=2) + "\n")


def round_weights(model, dtype):
    """Rounds every weight to `dtype` ("bf16", "f16", "f32") and back, in place. Returns `model`."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(DTYPES[dtype]))
    return model
