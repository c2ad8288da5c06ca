"""Activation threshold shift: choosing t of FATReLU (x if x >= t, else 0) under a quality
budget."""

import json
from pathlib import Path

from . import evaluate, modeling, textdata
from .objective import Objective


def choose(results, budget):
    """The largest threshold whose perplexity, and that of all smaller ones, is at most (1 +
    budget) times that of threshold 0. `results`: list of {threshold, ppl_token} that starts with
    threshold 0."""
    best, limit = 0.0, results[0]["ppl_token"] * (1 + budget)
    for r in sorted(results, key=lambda r: r["threshold"]):
        if not r["ppl_token"] <= limit:  # or it is no number
            break
        best = r["threshold"]
    return best


def run(args):
    tokens = textdata.encode(args.text, args.tokenizer or args.model, args.cache)
    model = modeling.round_weights(modeling.load(args.model), args.dtype)
    modeling.require_relu(model, args.model)
    objective = Objective(model).to(args.device)
    results = []
    for t in sorted({0.0, *args.thresholds}):
        modeling.set_activation(model, t)
        measured = evaluate.evaluate(
            objective, tokens, args.context, args.tokens, args.batch, progress=f"threshold {t:g}"
        )
        results.append({"threshold": t, **measured})
        ppl, zeros = measured["ppl_token"], measured["sparsity_mean"]
        print(f"t {t:<6g} perplexity {ppl:.4f} sparsity {zeros:.4f}")
        if ppl > results[0]["ppl_token"] * (1 + 4 * args.budget):
            break
    chosen = choose(results, args.budget)
    summary = {
        "text": Path(args.text).name, "dtype": args.dtype, "budget": args.budget, "chosen": chosen,
        "results": results,
    }  # fmt: skip
    if args.out:
        Path(args.out).write_text(json.dumps(summary, indent=1) + "\n")
    print(f"chosen threshold: {chosen:g} (budget {args.budget:.2%} of perplexity)")
    if chosen == max(args.thresholds):
        print("that is the largest one tried: larger --thresholds may be within the budget, too")
