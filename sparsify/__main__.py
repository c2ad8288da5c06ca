"""ProSparse (arXiv 2402.13516): train a LLaMA-architecture model with a ReLU FFN and a growing L1
penalty, choose the FATReLU threshold, measure, and export for the server."""

import argparse
import importlib

from . import schedule

# As swept in the paper (0.005 to 0.03), and on.
THRESHOLDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults of the options that have one."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def positive(text):
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"want 1 or more, not {text}")
    return int(text)


def parser():
    top = argparse.ArgumentParser(prog="python -m sparsify", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)

    def command(name, module, text):
        p = commands.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=Formatter,
        )
        p.set_defaults(function=(module, "run" if module == name else name))
        return p

    p = command("tokenizer", "textdata", "train a SentencePiece BPE tokenizer")
    p.add_argument("--text", required=True, help=".txt or .txt.xz, a paragraph a line")
    p.add_argument("--out", required=True, help="directory to write")
    p.add_argument("--vocab-size", type=int, default=4096)
    p.add_argument("--sample-mb", type=float, default=20, help="about how much text to learn from")

    p = command("dequantize", "export", "make an HF directory of a GGUF file")
    p.add_argument("--gguf", required=True)
    p.add_argument("--out", required=True, help="directory to write")
    _add_dtype(p)

    p = command("train", "train", "train, with or without the progressive L1 penalty")
    p.add_argument("--text", required=True, help="training text, .txt or .txt.xz")
    p.add_argument("--valid", required=True, help="held-out text")
    p.add_argument("--out", required=True, help="run directory")
    p.add_argument("--init", help="HF directory to start from (default: a new random model)")
    p.add_argument("--tokenizer", help="HF directory (default: INIT)")
    p.add_argument("--resume", action="store_true", help="go on from OUT/checkpoint if it is there")
    p.add_argument("--steps", type=positive, required=True)
    p.add_argument("--activation", choices=["relu", "keep"], default="relu")
    p.add_argument("--schedule", choices=sorted(schedule.PRESETS), default="small", help="λ preset")
    p.add_argument(
        "--lambda-peak", type=float, help="scale the preset to this last λ; 0: no penalty"
    )
    p.add_argument(
        "--distill", type=float, default=0.0,
        help="weight w of the loss (1 - w) * cross entropy + w * KL(teacher || model)",
    )  # fmt: skip
    p.add_argument("--teacher", help="HF directory with INIT's vocabulary (default: INIT)")
    p.add_argument("--context", type=positive, default=512)
    p.add_argument("--batch", type=positive, default=8, help="sequences a step, over all processes")
    p.add_argument(
        "--micro-batch", type=positive,
        help="sequences a forward pass, evaluation included (default: up to 8)",
    )  # fmt: skip
    p.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw")
    p.add_argument("--lr", type=float, help="peak (default: 3e-5; of Muon's matrices 0.02)")
    p.add_argument(
        "--embed-lr", type=float, default=0.003, help="with muon: peak of embeddings and norms"
    )
    p.add_argument("--weight-decay", type=float, default=0.02, help="of the matrices")
    p.add_argument("--warmup", type=float, default=0.02, help="share of the run")
    p.add_argument("--decay", type=float, default=1.0, help="share of the run that lr falls in")
    p.add_argument("--lr-shape", choices=["linear", "cosine"], default="cosine")
    p.add_argument("--bf16", action="store_true", help="mixed precision, float32 weights")
    p.add_argument("--compile", action="store_true", help="use torch.compile")
    p.add_argument("--gradient-checkpointing", action="store_true", help="less memory, slower")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=0, help="CPU threads, 0: PyTorch's choice")
    p.add_argument("--log-every", type=positive, default=20)
    p.add_argument("--eval-every", type=positive, default=500)
    p.add_argument(
        "--eval-tokens",
        type=positive,
        default=65536,
        help="the first so many of the held-out text, while training",
    )
    p.add_argument("--save-minutes", type=float, default=4)
    shape = p.add_argument_group("shape of a new model")
    shape.add_argument("--hidden", type=int, default=192)
    shape.add_argument("--ffn", type=int, default=768)
    shape.add_argument("--layers", type=int, default=5)
    shape.add_argument("--heads", type=int, default=6)
    shape.add_argument("--kv-heads", type=int, default=2)

    p = command("sweep", "sweep", "choose the FATReLU threshold under a budget")
    p.add_argument("--model", required=True, help="HF directory")
    p.add_argument("--tokenizer", help="HF directory (default: MODEL)")
    p.add_argument(
        "--text", required=True, help="text to measure on (a sample of the training text)"
    )
    p.add_argument("--cache", help=".npz that keeps the token ids of --text")
    _add_measuring(p)
    p.add_argument("--thresholds", type=float, nargs="+", default=THRESHOLDS)
    p.add_argument(
        "--budget",
        type=float,
        default=0.005,
        help="allowed rise of perplexity over threshold 0 (not over a dense model), as a share",
    )
    _add_dtype(p)
    p.add_argument("--out", help="JSON file for the results")

    p = command("report", "report", "perplexity, sparsity per layer and text: JSON, tables, plots")
    p.add_argument("--model", nargs="+", default=[], help="HF directories to compare")
    p.add_argument("--text", nargs="+", help="texts to measure on")
    _add_measuring(p)
    p.add_argument("--log", nargs="+", help="log.jsonl of train: makes training.png")
    p.add_argument(
        "--out", required=True, help="directory for sparsity.{json,md,png} and training.png"
    )

    p = command("export", "export", "write an HF directory for the server")
    p.add_argument("--model", required=True, help="HF directory (RUN/final)")
    p.add_argument("--tokenizer", help="HF directory (default: MODEL)")
    p.add_argument(
        "--threshold", type=float, help="FATReLU threshold; 0: relu; left out: keep activation"
    )
    _add_dtype(p)
    p.add_argument("--out", required=True, help="directory to write; other files there stay")
    return top


def _add_measuring(p):
    p.add_argument("--context", type=positive, default=512, help="window length")
    p.add_argument("--tokens", type=int, help="about how many tokens, spread evenly (default: all)")
    p.add_argument("--device", default="cpu", help="cpu, cuda; a large model needs cuda")
    p.add_argument("--batch", type=positive, default=8, help="windows a forward pass")


def _add_dtype(p):
    p.add_argument("--dtype", choices=["bf16", "f16", "f32"], default="bf16", help="of the weights")


def main():
    args = parser().parse_args()
    module, function = args.function
    getattr(importlib.import_module(f"{__package__}.{module}"), function)(args)


if __name__ == "__main__":
    main()
