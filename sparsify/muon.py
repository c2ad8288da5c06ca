"""Muon: momentum, orthogonalised by Newton-Schulz, for the hidden matrices (K. Jordan et al.,
2024).

Kept here instead of torch.optim.Muon because matrices of one shape are orthogonalised as one batch
and, if wished, in float32, which is several times faster on CPUs that do not multiply bf16.
"""

import torch


def orthogonalise(g, steps=5):
    """[n, r, c] -> the same with all singular values near 1 (quintic iteration, coefficients of
    the paper)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    transpose = g.size(-2) > g.size(-1)
    x = g.mT if transpose else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * (s @ s)) @ x
    return x.mT if transpose else x


class Muon(torch.optim.Optimizer):
    """Parameters must be matrices [out, in]. Update: lr · √max(1, out/in) · orthogonal(Nesterov
    momentum), orthogonalised in `dtype`."""

    def __init__(self, params, lr=0.02, momentum=0.95, weight_decay=0.0, dtype=torch.float32):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            by_shape = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for (rows, cols), params in by_shape.items():
                grads = []
                for p in params:
                    buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    grads.append(p.grad.lerp(buffer, group["momentum"]))
                updates = orthogonalise(torch.stack(grads).to(self.dtype))
                for p, update in zip(params, updates):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * max(1, rows / cols) ** 0.5)
