"""ProSparse (arXiv 2402.13516): train a LLaMA-architecture model with a ReLU FFN and a growing L1
penalty, choose the FATReLU threshold, measure, and export for the server."""

import argparse
import importlib

# As swept in the paper (0.005 to 0.03), and on.
THRESHOLDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)


def parser():
    top = argparse.ArgumentParser(prog="python -m sparsify", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    helpful = {"formatter_class": argparse.ArgumentDefaultsHelpFormatter}

    p = commands.add_parser("tokenizer", help="train a SentencePiece BPE tokenizer", **helpful)
    p.add_argument("--text", required=True, help=".txt or .txt.xz, a paragraph a line")
    p.add_argument("--out", required=True, help="directory for tokenizer.model")
    p.add_argument("--vocab-size", type=int, default=4096)
    p.add_argument("--sample-mb", type=float, default=20, help="about how much text to learn from")

    p = commands.add_parser("train", help="train with the progressive L1 penalty", **helpful)
    p.add_argument("--text", required=True, help="training text, .txt or .txt.xz")
    p.add_argument("--valid", required=True, help="held-out text")
    p.add_argument("--tokenizer", required=True, help="tokenizer.model")
    p.add_argument("--out", required=True, help="run directory")
    p.add_argument("--init", help="HF directory to start from (default: a new random model)")
    p.add_argument("--resume", action="store_true", help="go on from OUT/checkpoint if it is there")
    end = p.add_mutually_exclusive_group(required=True)
    end.add_argument("--steps", type=int, help="end after this many steps")
    end.add_argument("--until", metavar="HH:MM", help="end at this time of day; schedules adapt")
    p.add_argument("--hidden", type=int, default=192)
    p.add_argument("--ffn", type=int, default=768)
    p.add_argument("--layers", type=int, default=5)
    p.add_argument("--heads", type=int, default=6)
    p.add_argument("--kv-heads", type=int, default=2)
    p.add_argument("--context", type=int, default=512)
    p.add_argument("--batch", type=int, default=8, help="sequences a step")
    p.add_argument("--micro-batch", type=int, default=8, help="sequences a forward pass")
    p.add_argument("--lr", type=float, default=0.02, help="peak, Muon (layer matrices)")
    p.add_argument("--embed-lr", type=float, default=0.003, help="peak, Adam (embeddings, norms)")
    p.add_argument("--weight-decay", type=float, default=0.02, help="of the layer matrices")
    p.add_argument("--warmup", type=float, default=0.02, help="share of the run")
    p.add_argument("--schedule", default="small", help="λ preset, see schedule.py")
    p.add_argument(
        "--lambda-peak", type=float, help="scale the preset to this last λ; 0: no penalty"
    )
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=0, help="CPU threads, 0: PyTorch's choice")
    p.add_argument("--compile", action="store_true", help="use torch.compile")
    p.add_argument("--log-every", type=int, default=20)
    p.add_argument("--eval-every", type=int, default=500)
    p.add_argument(
        "--eval-tokens", type=int, default=65536, help="of the held-out text, while training"
    )
    p.add_argument("--save-minutes", type=float, default=4)

    p = commands.add_parser("sweep", help="choose the FATReLU threshold under a budget", **helpful)
    _add_model(p)
    p.add_argument(
        "--text", required=True, help="text to measure on (a sample of the training text)"
    )
    p.add_argument("--cache", help=".npz that keeps the token ids of --text")
    p.add_argument("--thresholds", type=float, nargs="+", default=THRESHOLDS)
    p.add_argument(
        "--budget", type=float, default=0.005, help="allowed rise of perplexity, as a share"
    )
    p.add_argument(
        "--dtype", choices=["bf16", "f16", "f32"], default="bf16", help="rounding of the weights"
    )
    p.add_argument("--out", help="JSON file for the results")

    p = commands.add_parser(
        "report", help="perplexity, sparsity per layer and text, plots", **helpful
    )
    _add_model(p)
    p.add_argument("--text", nargs="+", help="texts to measure on")
    p.add_argument("--log", help="log.jsonl of train: makes training.png")
    p.add_argument(
        "--out", required=True, help="directory for sparsity.json, sparsity.png, training.png"
    )

    p = commands.add_parser("export", help="write an HF directory for the server", **helpful)
    p.add_argument("--model", required=True, help="HF directory (RUN/final)")
    p.add_argument("--tokenizer", help="default: MODEL/tokenizer.model")
    p.add_argument(
        "--threshold", type=float, help="FATReLU threshold; 0: relu; left out: keep activation"
    )
    p.add_argument("--dtype", choices=["bf16", "f16", "f32"], default="bf16")
    p.add_argument("--out", required=True, help="directory to write; other files there stay")
    return top


def _add_model(p):
    p.add_argument("--model", required=True, help="HF directory")
    p.add_argument("--tokenizer", help="default: MODEL/tokenizer.model")
    p.add_argument("--context", type=int, default=512, help="window length")
    p.add_argument("--tokens", type=int, help="about how many tokens, spread evenly (default: all)")


def main():
    args = parser().parse_args()
    if args.command == "tokenizer":
        from . import textdata

        print(textdata.train_tokenizer(args.text, args.out, args.vocab_size, args.sample_mb))
    else:
        importlib.import_module(f"{__package__}.{args.command}").run(args)


if __name__ == "__main__":
    main()
