"""Sparsity and perplexity of checkpoints per layer and per text, as JSON, tables and plots."""

import gc
import json
from pathlib import Path

from . import evaluate, modeling, textdata
from .objective import Objective


def measure(models, texts, context, limit=None, device="cpu", batch=8):
    """A list of rows {model, text, threshold, ...evaluate.evaluate}: every model on every text; one
    with FATReLU before the threshold shift (0) too. Threshold None: no ReLU family."""
    rows = []
    for path in map(Path, models):
        model = modeling.load(path)
        own = modeling.threshold_of(model)
        if own is None and model.config.hidden_act == "relu":
            own = 0.0
        objective = Objective(model).to(device)
        for text in texts:
            tokens = textdata.encode(text, path)
            for t in [None] if own is None else sorted({0.0, own}):
                if t is not None:
                    modeling.set_activation(model, t)
                row = {"model": path.name, "text": Path(text).name, "threshold": t}
                title = " ".join(str(v) for v in row.values())
                rows.append(
                    row | evaluate.evaluate(objective, tokens, context, limit, batch, title)
                )
        del objective, model
        gc.collect()  # they refer to each other; the next one may need the memory
    return rows


def table(rows, text):
    """The rows of one text as a Markdown table; perplexities against that of the first row."""
    rows = [r for r in rows if r["text"] == text]
    layers = max(len(r["sparsity"]) for r in rows)
    head = ["", "perplexity per token", "per byte", "against the first", "sparsity, mean"]
    lines = [head + [f"layer {k}" for k in range(layers)], ["---"] * (len(head) + layers)]
    for r in rows:
        shift = "" if r["threshold"] is None else f", threshold {r['threshold']:g}"
        against = r["ppl_token"] / rows[0]["ppl_token"] - 1
        lines.append(
            [r["model"] + shift, f"{r['ppl_token']:.2f}", f"{r['ppl_byte']:.4f}"]
            + [f"{against:+.2%}" if r is not rows[0] else ""]
            + [
                "—" if r["threshold"] is None else f"{share:.1%}"
                for share in (r["sparsity_mean"], *r["sparsity"])
            ]
            + [""] * (layers - len(r["sparsity"]))
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def plot_layers(rows, file):
    """Bars of sparsity per layer, a colour per model and threshold, a panel per text."""
    plt = _pyplot()
    texts = sorted({r["text"] for r in rows})
    figure, panels = plt.subplots(1, len(texts), figsize=(6 * len(texts), 4), squeeze=False)
    for panel, text in zip(panels[0], texts):
        shown = [r for r in rows if r["text"] == text]
        width = 0.8 / len(shown)
        for i, row in enumerate(shown):
            layers = range(len(row["sparsity"]))
            shift = "" if not row["threshold"] else f", threshold {row['threshold']:g}"
            label = f"{row['model']}{shift}: mean {row['sparsity_mean']:.1%}"
            panel.bar([k + i * width for k in layers], row["sparsity"], width, label=label)
        panel.set(title=text, xlabel="layer", ylabel="share of zeros in x1", ylim=(0, 1))
        panel.set_xticks([k + 0.4 - width / 2 for k in layers], list(layers))
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), fontsize=8, ncols=2)
    figure.tight_layout()
    figure.savefig(file, dpi=100)
    plt.close(figure)


def plot_training(logs, file):
    """λ, loss and sparsity over the steps of log.jsonl files of `train`, named after their
    folders."""
    plt = _pyplot()
    figure, (a, b, c) = plt.subplots(3, 1, figsize=(7, 8), sharex=True)
    losses = []
    for log in map(Path, logs):
        rows = [json.loads(line) for line in open(log)]
        name, steps = log.resolve().parent.name, [r["step"] for r in rows]
        a.plot(steps, [r["lambda"] for r in rows], label=name)
        (line,) = b.plot(steps, [r["loss"] for r in rows], lw=0.7, alpha=0.7, label=name)
        valid = [(r["step"], r["valid"]["nll"]) for r in rows if "valid" in r]
        if valid:
            b.plot(*zip(*valid), "o", ms=3, color=line.get_color(), label=f"{name}, held out")
        mean = [sum(r["sparsity"]) / len(r["sparsity"]) for r in rows]
        c.plot(steps, mean, color=line.get_color(), label=f"{name}, mean")
        if any(r["lambda"] for r in rows):
            layers = len(rows[0]["sparsity"])
            for layer in range(layers):
                values = [r["sparsity"][layer] for r in rows]
                label = f"{name}, layer {layer}" if layers <= 8 else None
                c.plot(steps, values, lw=0.7, ls="--", label=label)
        losses += [r["loss"] for r in rows]
    a.set(ylabel="λ")
    b.set(ylabel="loss, nats per token", ylim=(None, sorted(losses)[(len(losses) - 1) * 49 // 50]))
    c.set(ylabel="share of zeros in x1", xlabel="step", ylim=(0, 1))
    for panel in (a, b, c):
        panel.legend(fontsize=7, ncols=2)
    figure.tight_layout()
    figure.savefig(file, dpi=90)
    plt.close(figure)


def run(args):
    for kind, paths in ("models", args.model or []), ("texts", args.text or []):
        names = [Path(path).name for path in paths]
        for name in names:
            if names.count(name) > 1:
                raise SystemExit(f"two {kind} are named {name}, as the rows would be: rename one")
    if not args.text and not args.log:
        raise SystemExit("report wants --model and --text to measure, or --log to plot")
    if bool(args.text) != bool(args.model):
        raise SystemExit("report measures each --model on each --text: name both")
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    if args.log:
        plot_training(args.log, out / "training.png")
    if args.text:
        rows = measure(args.model, args.text, args.context, args.tokens, args.device, args.batch)
        (out / "sparsity.json").write_text(json.dumps(rows, indent=1) + "\n")
        plot_layers(rows, out / "sparsity.png")
        texts = dict.fromkeys(r["text"] for r in rows)
        tables = "\n".join(f"{text}\n\n{table(rows, text)}" for text in texts)
        (out / "sparsity.md").write_text(tables)
        print(tables, end="")
