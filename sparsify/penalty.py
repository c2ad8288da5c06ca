"""Watching x1 = σ(x·Wgateᵀ) ⊙ (x·Wupᵀ) from outside: the L1 penalty and the sparsity.

x1 is the input of every `mlp.down_proj`, so a forward pre-hook there sees it in any LLaMA-family
model without changing the model.
"""

import contextlib

import torch


def down_projections(model):
    """The FFN output projections of `model`, in layer order."""
    return [layer.mlp.down_proj for layer in model.model.layers]


class ActivationTap:
    """Collects per-layer statistics of x1 during forward passes, while used as a context manager.

    l1():       Σ over layers of mean |x1| over tokens and neurons (a scalar with gradient). The
                mean over neurons instead of the paper's sum makes λ comparable between widths.
    sparsity(): share of exact zeros in x1 per layer, over all tokens since the last reset().
    Not thread-safe. Values of one forward pass are kept until the next reset().
    """

    def __init__(self, model, l1=True, sparsity=True):
        self._modules = down_projections(model)
        self._want_l1, self._want_sparsity = l1, sparsity
        self._hooks = contextlib.ExitStack()
        self.reset()

    def reset(self):
        n = len(self._modules)
        self._l1 = [None] * n
        self._zeros, self._count = [0] * n, [0] * n

    def __enter__(self):
        for i, module in enumerate(self._modules):
            handle = module.register_forward_pre_hook(lambda _, args, i=i: self._see(i, args[0]))
            self._hooks.callback(handle.remove)
        return self

    def __exit__(self, *exc):
        self._hooks.close()

    def _see(self, i, x1):
        if self._want_l1:
            self._l1[i] = x1.abs().mean(dtype=torch.promote_types(x1.dtype, torch.float32))
        if self._want_sparsity:
            self._zeros[i] += x1.numel() - int(torch.count_nonzero(x1.detach()))
            self._count[i] += x1.numel()

    def l1(self):
        return torch.stack(self._l1).sum()

    def l1_per_layer(self):
        return [float(v.detach()) for v in self._l1]

    def sparsity(self):
        return [z / max(1, c) for z, c in zip(self._zeros, self._count)]
