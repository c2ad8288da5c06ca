"""Perplexity and FFN sparsity on a token stream."""

import math

import numpy as np
import torch
from tqdm import tqdm

from . import textdata


@torch.no_grad()
def evaluate(objective, tokens, context, limit=None, batch=8, progress=None):
    """Reads windows of `context` tokens, each on its own: all of them, or about `limit` tokens'
    worth spread evenly. `objective`: an objective.Objective, or what accelerate made of one.
    `progress`: title of a progress bar. Returns a dict: nll (nats per token), tokens (targets
    counted), windows, bytes (in proportion to the windows read), ppl_token, ppl_byte, sparsity
    (share of exact zeros in x1, per layer) and sparsity_mean."""
    training = objective.training
    objective.eval()
    device = next(objective.parameters()).device
    rows = textdata.windows(tokens.ids, context)
    if not len(rows):
        raise SystemExit(f"{len(tokens.ids)} tokens of text do not fill a window of {context}")
    if limit and limit < len(rows) * context:
        rows = rows[np.linspace(0, len(rows) - 1, max(1, limit // context)).astype(int)]
    total, count, zeros = 0.0, 0, 0.0
    for a in tqdm(range(0, len(rows), batch), desc=progress, disable=progress is None):
        x, y = textdata.inputs_and_targets(rows[a : a + batch], tokens.bos)
        nll, _, _, share = objective(x.to(device), y.to(device))
        total += float(nll)
        count += int((y >= 0).sum())
        zeros += share.double() * len(x)
    objective.train(training)
    sparsity = (zeros / len(rows)).tolist()
    used = tokens.size * len(rows) * context / len(tokens.ids)
    return {
        "nll": total / count,
        "tokens": count,
        "windows": len(rows),
        "bytes": round(used),
        "ppl_token": math.exp(total / count),
        "ppl_byte": math.exp(total / used),
        "sparsity": sparsity,
        "sparsity_mean": sum(sparsity) / len(sparsity),
    }
