"""Checkpoints in Hugging Face's layout: written with seeded random weights, and loaded as models of
transformers that compute what the checkpoints mean."""

import copy
import json

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)


class FatRelu(torch.nn.Module):
    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold
        self.closest = float("inf")  # of the values seen to the threshold

    def forward(self, x):
        self.closest = min(self.closest, float((x - self.threshold).abs().min()))
        return torch.where(x >= self.threshold, x, torch.zeros_like(x))


def build(config):
    """A model of transformers in float32 for the fields of a config.json. Where the library has
    none, LlamaForCausalLM with another activation, or muP's scales in its weights (load)."""
    config = copy.deepcopy(config)  # the library changes dictionaries in it
    known = {k: v for k, v in config.items() if k not in ("architectures", "torch_dtype")}
    kind = config.get("model_type", "minicpm")
    if kind == "opt":
        return OPTForCausalLM(OPTConfig(**known, attn_implementation="eager")).float().eval()
    fatrelu = config["hidden_act"] == "fatrelu"
    if fatrelu or kind == "llama_sparse_relu":
        known |= {"hidden_act": "relu"}
    known.setdefault("rope_theta", 10000.0)
    if kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**known, attn_implementation="eager"))
    else:
        known |= {"model_type": "llama"}
        if kind == "minicpm":
            known |= {"tie_word_embeddings": False}
        model = LlamaForCausalLM(LlamaConfig(**known, attn_implementation="eager"))
    rope = model.config.rope_parameters
    assert float(rope["rope_theta"]) == known["rope_theta"]
    scaling = config.get("rope_scaling") or {}
    assert rope["rope_type"] == scaling.get("rope_type", scaling.get("type", "default"))
    for layer in model.model.layers:
        if fatrelu:
            layer.mlp.act_fn = FatRelu(config["hidden_act_param"])
        if kind == "bamboo":
            layer.mlp.up_proj.register_forward_hook(lambda module, args, out: torch.relu(out))
    return model.float().eval()


def absorb_mup(state, config):
    """What openbmb's conversion to the LLaMA format does, on a tied checkpoint."""
    depth = config["scale_depth"] / config["num_hidden_layers"] ** 0.5
    embeddings = state["model.embed_tokens.weight"]
    scaled = {"lm_head.weight": embeddings * config["dim_model_base"] / config["hidden_size"]}
    for name, t in state.items():
        if name == "model.embed_tokens.weight":
            t = t * config["scale_emb"]
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            t = t * depth
        scaled[name] = t
    return scaled


def load(directory):
    """The checkpoint of an HF directory with all weights widened to float32."""
    config = json.loads((directory / "config.json").read_text())
    model = build(config)
    state = {}
    for file in sorted(directory.glob("model*.safetensors")):
        state |= {name: t.float() for name, t in load_file(file).items()}
    if config["architectures"] == ["MiniCPMForCausalLM"]:
        state = absorb_mup(state, config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied = ["lm_head.weight"] if model.config.tie_word_embeddings else []
    assert list(missing) == tied and not unexpected, (missing, unexpected)
    return model, config


def random_state(model, seed, embeddings=None):
    """Weights large enough for varied text and logits of some ±10: N(0, embeddings²) embeddings, by
    default 1 or, tied, 0.5; N(0, 1.5²/fan-in) matrices, norms around 1."""
    if embeddings is None:
        embeddings = 0.5 if model.config.tie_word_embeddings else 1.0
    g = torch.Generator().manual_seed(seed)
    state = {}
    for name, p in model.state_dict().items():
        noise = torch.randn(p.shape, generator=g)
        if name.endswith("bias"):
            state[name] = 0.1 * noise
        elif p.ndim == 1:
            state[name] = 1 + 0.1 * noise
        elif name.endswith("embed_tokens.weight"):
            state[name] = noise * embeddings
        elif name.endswith("embed_positions.weight"):
            state[name] = noise
        elif name == "lm_head.weight":
            state[name] = 0.4 * noise
        else:
            state[name] = noise * 1.5 / p.shape[1] ** 0.5
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    return state


def save(state, file):
    save_file(state, file, metadata={"format": "pt"})
    file.chmod(0o644)


def write_checkpoint(directory, config, state, shards):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    dtype = getattr(torch, config["torch_dtype"])
    state = {name: t.to(dtype).contiguous() for name, t in state.items()}
    if shards == 1:
        save(state, directory / "model.safetensors")
        return
    names, weight_map = sorted(state), {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {n: state[n] for n in names[i::shards]}
        save(part, directory / file)
        weight_map |= {n: file for n in part}
    size = sum(t.numel() * t.element_size() for t in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
