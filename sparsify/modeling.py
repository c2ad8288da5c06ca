"""LLaMA-family models with a ReLU-family FFN gate: making, substituting, loading, rounding."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


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


def new_model(vocab_size, hidden, ffn, layers, heads, kv_heads, context):
    """A random LLaMA-architecture model, tied embeddings, ReLU gate."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=hidden // heads,
        max_position_embeddings=context,
        hidden_act="relu",
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    return set_activation(LlamaForCausalLM(config))


def load(path, threshold=None):
    """Loads an HF directory in float32. `threshold` overrides the one of `hidden_act: fatrelu`.

    With threshold None the activation stays what the config says (SiLU stays SiLU)."""
    raw = json.loads((Path(path) / "config.json").read_text())
    if raw.get("hidden_act") != "fatrelu":
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    else:
        threshold = raw["hidden_act_param"] if threshold is None else threshold
        config = LlamaConfig.from_dict(raw | {"model_type": "llama", "hidden_act": "relu"})
        model = LlamaForCausalLM.from_pretrained(path, config=config, dtype=torch.float32)
    if threshold is not None:
        set_activation(model, threshold)
    return model.eval()


def round_weights(model, dtype):
    """Rounds every weight to `dtype` ("bf16", "f16", "f32") and back, in place. Returns `model`."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(DTYPES[dtype]))
    return model
