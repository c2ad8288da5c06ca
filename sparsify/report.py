"""Sparsity and perplexity of a checkpoint per layer and per text, as JSON and plots."""

import json
from pathlib import Path

from . import evaluate, modeling, textdata


def measure(path, texts, context, tokens=None, thresholds=None):
    """{text name: {threshold: result of evaluate.evaluate}}. `thresholds` None: 0 and that of the
    checkpoint."""
    path = Path(path)
    model = modeling.load(path)
    own = getattr(model.model.layers[0].mlp.act_fn, "threshold", None)
    if thresholds is None:
        thresholds = [None] if own is None else sorted({0.0, own})
    found = {}
    for text in texts:
        ids, size = textdata.encode(text, path / "tokenizer.model")
        name = Path(text).name
        found[name] = {}
        for t in thresholds:
            if t is not None:
                modeling.set_activation(model, t)
            title = f"{name} t={t}"
            result = evaluate.evaluate(model, ids, size, context, tokens, progress=title)
            found[name]["as is" if t is None else f"{t:g}"] = result
    return found


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def plot_layers(measured, file):
    """Bars of sparsity per layer, one colour per threshold, one panel per text."""
    plt = _pyplot()
    figure, panels = plt.subplots(1, len(measured), figsize=(5 * len(measured), 3.6), squeeze=False)
    for panel, (text, by_threshold) in zip(panels[0], measured.items()):
        width = 0.8 / len(by_threshold)
        for i, (t, result) in enumerate(by_threshold.items()):
            layers = range(len(result["sparsity"]))
            label = f"threshold {t}: mean {result['sparsity_mean']:.1%}"
            panel.bar([k + i * width for k in layers], result["sparsity"], width, label=label)
        panel.set(title=text, xlabel="layer", ylabel="share of zeros in x1", ylim=(0, 1))
        panel.set_xticks([k + 0.4 - width / 2 for k in layers], list(layers))
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=8, ncols=2)
    figure.tight_layout()
    figure.savefig(file, dpi=100)
    plt.close(figure)


def plot_training(log, file):
    """λ, loss and sparsity over the steps of a log.jsonl of `train`."""
    plt = _pyplot()
    rows = [json.loads(line) for line in open(log)]
    steps = [r["step"] for r in rows]
    figure, (a, b, c) = plt.subplots(3, 1, figsize=(7, 7), sharex=True)
    a.plot(steps, [r["lambda"] for r in rows], color="tab:red")
    a.set(ylabel="λ")
    b.plot(steps, [r["loss"] for r in rows], lw=0.6, alpha=0.6, label="training batch")
    valid = [(r["step"], r["valid"]["nll"]) for r in rows if "valid" in r]
    if valid:
        b.plot(*zip(*valid), "o-", ms=3, color="black", label="held out")
    b.set(
        ylabel="loss, nats per token",
        ylim=(None, sorted(r["loss"] for r in rows)[-len(rows) // 50 - 1]),
    )
    b.legend()
    for layer in range(len(rows[0]["sparsity"])):
        c.plot(steps, [r["sparsity"][layer] for r in rows], lw=0.8, label=f"layer {layer}")
    c.set(ylabel="share of zeros in x1", xlabel="step", ylim=(None, 1))
    c.legend(fontsize=7, ncols=2)
    figure.tight_layout()
    figure.savefig(file, dpi=90)
    plt.close(figure)


def run(args):
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if args.log:
        plot_training(args.log, out / "training.png")
    if args.text:
        measured = measure(args.model, args.text, args.context, args.tokens)
        (out / "sparsity.json").write_text(json.dumps(measured, indent=1) + "\n")
        plot_layers(measured, out / "sparsity.png")
        for text, by_threshold in measured.items():
            for t, r in by_threshold.items():
                print(
                    f"{text} t={t}: perplexity {r['ppl_token']:.3f} per token, "
                    f"{r['ppl_byte']:.4f} per byte, "
                    f"sparsity {r['sparsity_mean']:.4f} {[round(s, 4) for s in r['sparsity']]}"
                )
