"""Perplexity and FFN sparsity on a token stream."""

import math

import numpy as np
import torch
from tqdm import tqdm

from . import textdata
from .penalty import ActivationTap


def head(ids, size, tokens):
    """The first `tokens` ids (all with None), and the text bytes they stand for, in proportion."""
    if tokens is None or tokens >= len(ids):
        return ids, size
    return ids[:tokens], size * tokens / len(ids)


@torch.no_grad()
def evaluate(model, ids, size, context, tokens=None, batch=8, progress=None):
    """Reads windows of `context` tokens, each on its own: all of them, or about `tokens` tokens'
    worth spread evenly. `size`: bytes of text that `ids` stand for. `progress`: title of a
    progress bar. Returns a dict: nll (nats per token), tokens (targets counted; <s> is none),
    windows, bytes (in proportion to the windows read), ppl_token, ppl_byte, sparsity (share of
    exact zeros in x1, per layer) and sparsity_mean."""
    training = model.training
    model.eval()
    rows = textdata.windows(ids, context)
    if tokens and tokens < len(rows) * context:
        rows = rows[np.linspace(0, len(rows) - 1, max(1, tokens // context)).astype(int)]
    total, count = 0.0, 0
    with ActivationTap(model, l1=False) as tap:
        for a in tqdm(range(0, len(rows), batch), desc=progress, disable=progress is None):
            part = torch.from_numpy(rows[a : a + batch].astype("int64"))
            logits = model(input_ids=part[:, :-1], use_cache=False).logits
            y = part[:, 1:]
            nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), y, reduction="none")
            total += float(nll[y != 1].double().sum())
            count += int((y != 1).sum())
        sparsity = tap.sparsity()
    model.train(training)
    used = size * len(rows) * context / len(ids)
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
