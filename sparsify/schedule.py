"""The ProSparse schedule of the L1 factor λ (arXiv 2402.13516, Algorithm 1), and the learning rate.

A schedule is a list of stages (λ_i, T_i) with increasing end points T_i. Stage 0 and stage 1 are
constant. In a later stage λ rises from λ_{i-1} to λ_i along a quarter-to-quarter sine:

    η = ½ [sin(−π/2 + π (t − T_{i−1}) / (T_i − T_{i−1})) + 1],   λ = λ_{i−1} + η (λ_i − λ_{i−1})

so two equal neighbours make a constant stage. After the last end point λ stays.
"""

import math

# End points in steps, as published. The last two have them as shares of the run; their λ goes with
# the penalty of objective.py and models of a few million parameters, `small` to continue a dense
# one, `scratch` to start from nothing with ReLU.
PRESETS = {
    "prosparse-7b": [
        (0.0, 5000), (5e-3, 6000), (5e-2, 10000), (5e-2, 12000), (2e-1, 16000), (2e-1, 16500),
    ],
    "prosparse-13b": [
        (0.0, 5500), (5e-3, 6750), (1e-2, 10750), (1e-2, 11000), (2e-2, 15000), (2e-2, 16000),
    ],
    "prosparse-1b": [
        (0.0, 10000), (1e-3, 15000), (5e-3, 20000), (5e-3, 25000), (5e-2, 35000), (5e-2, 95000),
    ],
    "scratch": [(0.0, 0.20), (0.02, 0.28), (0.10, 0.50), (0.10, 1.0)],
    "small": [(0.0, 0.05), (0.02, 0.10), (0.10, 0.50), (0.10, 1.0)],
}  # fmt: skip


def stages_for(preset, total):
    """Stages of `preset` stretched so that the last end point is `total` (steps or 1.0)."""
    stages = PRESETS[preset]
    scale = total / stages[-1][1]
    return [(lam, end * scale) for lam, end in stages]


def lambda_at(stages, t):
    """λ at time t (same unit as the end points), t >= 0."""
    previous, start = None, 0.0
    for i, (lam, end) in enumerate(stages):
        if t <= end:
            if i < 2:
                return lam
            eta = 0.5 * (math.sin(-math.pi / 2 + math.pi * (t - start) / (end - start)) + 1)
            return previous + eta * (lam - previous)
        previous, start = lam, end
    return previous


def lr_factor(progress, warmup=0.02, decay=1.0, shape="linear"):
    """Learning rate over its peak at `progress` in [0, 1]: a linear warm-up, a plateau, and a fall
    to zero over the last `decay` of the run (0: none), as a line or half a cosine."""
    if progress < warmup:
        return progress / warmup
    fall = min(decay, 1 - warmup)
    left = min(1.0, (1 - progress) / fall) if fall else 1.0
    return left if shape == "linear" else 0.5 * (1 - math.cos(math.pi * left))
