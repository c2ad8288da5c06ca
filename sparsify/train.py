"""Training with the progressive L1 penalty.

Writes into --out: log.jsonl (a line every --log-every steps), checkpoint/ (an HF directory plus
trainer.pt to resume from; replaced atomically) and at the end final/ (HF directory). SIGTERM saves
a checkpoint and ends the process; --resume goes on from there.
"""

import json
import shutil
import signal
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from . import clock, evaluate, modeling, muon, schedule, textdata
from .penalty import ActivationTap

IGNORE = -100


def batch_at(ids, step, batch, context, seed):
    """Inputs and targets [batch, context] of a step. Each epoch is its own permutation of the
    windows and starts at its own offset, so a run can be resumed from the step number alone. <s>
    is no target."""
    per_epoch = (len(ids) - context - 1) // context // batch
    epoch, i = divmod(step, per_epoch)
    rng = np.random.default_rng((seed, epoch))
    offset = int(rng.integers(context))
    order = rng.permutation(per_epoch * batch)[i * batch : (i + 1) * batch]
    rows = textdata.windows(ids[offset:], context)[order].astype(np.int64)
    x, y = torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, 1:]).clone()
    y[y == 1] = IGNORE
    return x, y


class _LinearCrossEntropy(torch.autograd.Function):
    """mean over valid targets of cross_entropy(h Wᵀ), with logits made for `chunk` rows at a time
    and the gradients computed on the way: no [tokens, vocab] array lives longer than one chunk."""

    @staticmethod
    def forward(ctx, h, w, y, chunk):
        valid = int((y != IGNORE).sum())
        dh, dw, total = torch.empty_like(h), torch.zeros_like(w), 0.0
        for a in range(0, len(h), chunk):
            hc, yc = h[a : a + chunk], y[a : a + chunk]
            p = hc @ w.T
            keep = yc != IGNORE
            rows, cols = torch.nonzero(keep).squeeze(1), yc[keep]
            p -= p.max(dim=1, keepdim=True).values
            target = p[rows, cols]
            p.exp_()
            norm = p.sum(dim=1, keepdim=True)
            total += float((norm.squeeze(1)[rows].log() - target).sum())
            p *= keep.unsqueeze(1) / (norm * valid)
            p[rows, cols] -= 1 / valid
            dh[a : a + chunk] = p @ w
            dw.addmm_(p.T, hc)
        ctx.save_for_backward(dh, dw)
        return h.new_tensor(total / valid)

    @staticmethod
    def backward(ctx, grad):
        dh, dw = ctx.saved_tensors
        return grad * dh, grad * dw, None, None


def lm_loss(model, x, y, body=None):
    """Cross entropy per token of y given x. `body` may be a compiled model.model."""
    hidden = (model.model if body is None else body)(input_ids=x, use_cache=False).last_hidden_state
    return _LinearCrossEntropy.apply(hidden.flatten(0, 1), model.lm_head.weight, y.flatten(), 1024)


def make_optimizers(model, lr, embed_lr, weight_decay):
    """Muon for the matrices of the layers, Adam for embeddings and norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    optimizers = [
        muon.Muon(matrices, lr=lr, weight_decay=weight_decay),
        torch.optim.AdamW(rest, lr=embed_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    for o in optimizers:
        for group in o.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def save_checkpoint(out, name, model, tokenizer, state=None):
    """Writes `out`/`name` completely, then puts it in place of the old one."""
    fresh, final = out / f".{name}.new", out / name
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(fresh)
    shutil.copy(tokenizer, fresh / "tokenizer.model")
    if state:
        torch.save(state, fresh / "trainer.pt")
    if final.exists():
        final.rename(out / f".{name}.old")
    fresh.rename(final)
    shutil.rmtree(out / f".{name}.old", ignore_errors=True)


def next_time(text):
    """'HH:MM' -> the next such moment as seconds since the epoch."""
    at = datetime.combine(datetime.now(), datetime.strptime(text, "%H:%M").time())
    return (at if at > datetime.now() else at + timedelta(days=1)).timestamp()


def run(args):
    torch.manual_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    ids, _ = textdata.encode(args.text, args.tokenizer, out / "train-ids.npz")
    valid, valid_bytes = textdata.encode(args.valid, args.tokenizer, out / "valid-ids.npz")
    valid, valid_bytes = evaluate.head(valid, valid_bytes, args.eval_tokens)

    if args.init:
        model = modeling.set_activation(modeling.load(args.init))
    else:
        vocab = textdata.spm.SentencePieceProcessor(model_file=str(args.tokenizer)).vocab_size()
        model = modeling.new_model(
            vocab, args.hidden, args.ffn, args.layers, args.heads, args.kv_heads, args.context
        )
    optimizers = make_optimizers(model, args.lr, args.embed_lr, args.weight_decay)
    step, value, active, lambda_scale = 0, 0.0, 0.0, 1.0
    if args.resume and (out / "checkpoint").exists():
        saved = torch.load(out / "checkpoint/trainer.pt", weights_only=True)
        source = modeling.load(out / "checkpoint")
        model.load_state_dict(source.state_dict())
        for o, s in zip(optimizers, saved["optimizers"]):
            o.load_state_dict(s)
        step, value, active = saved["step"], saved["progress"], saved["active_seconds"]
    model.train()

    deadline = next_time(args.until) if args.until else None
    progress = clock.Progress(args.steps, deadline, value)
    progress.active_seconds = active
    stages = schedule.stages_for(args.schedule, 1.0)
    if args.lambda_peak is not None:
        lambda_scale = args.lambda_peak / stages[-1][0]
    tap = ActivationTap(model, sparsity=False)
    body = torch.compile(model.model) if args.compile else model.model
    tokens_per_step = args.batch * args.context
    log = _open_log(out / "log.jsonl", step)
    bar = tqdm(
        total=1.0, initial=value, desc="train", bar_format="{l_bar}{bar}| {elapsed} {postfix}"
    )
    last_save, stopped = time.time(), []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))

    def state():
        return {
            "step": step, "progress": progress.value, "active_seconds": progress.active_seconds,
            "optimizers": [o.state_dict() for o in optimizers],
        }  # fmt: skip

    with tap:
        while progress.value < 1 and not stopped:
            lam = lambda_scale * schedule.lambda_at(stages, progress.value)
            factor = schedule.lr_factor(progress.value, args.warmup)
            for o in optimizers:
                for group in o.param_groups:
                    group["lr"] = group["peak_lr"] * factor
            x, y = batch_at(ids, step, args.batch, args.context, args.seed)
            loss, l1 = 0.0, 0.0
            for xs, ys in zip(x.split(args.micro_batch), y.split(args.micro_batch)):
                share = len(xs) / len(x)
                lm = lm_loss(model, xs, ys, body)
                penalty = tap.l1()
                ((lm + lam * penalty) * share).backward()
                loss += float(lm.detach()) * share
                l1 += float(penalty.detach()) * share
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for o in optimizers:
                o.step()
                o.zero_grad(set_to_none=True)
            if not np.isfinite(loss):
                raise RuntimeError(f"loss is {loss} at step {step}: use a lower learning rate")
            step += 1
            progress.tick()
            if step % args.log_every == 0 or progress.value >= 1:
                record = {
                    "step": step, "tokens": step * tokens_per_step, "progress": progress.value,
                    "active_seconds": progress.active_seconds, "lr": args.lr * factor,
                    "lambda": lam, "loss": loss, "l1": l1, "l1_per_layer": tap.l1_per_layer(),
                    "sparsity": _sparsity(model, xs),
                }  # fmt: skip
                if step % args.eval_every == 0 or progress.value >= 1:
                    record["valid"] = evaluate.evaluate(model, valid, valid_bytes, args.context)
                log.write(json.dumps(record) + "\n")
                log.flush()
                mean = sum(record["sparsity"]) / len(record["sparsity"])
                bar.set_postfix_str(f"step {step} loss {loss:.3f} λ {lam:.4f} sparsity {mean:.3f}")
            bar.update(progress.value - bar.n)
            if time.time() - last_save > args.save_minutes * 60:
                save_checkpoint(out, "checkpoint", model, args.tokenizer, state())
                last_save = time.time()
    save_checkpoint(out, "checkpoint", model, args.tokenizer, state())
    if progress.value >= 1:
        save_checkpoint(out, "final", model, args.tokenizer)


def _open_log(path, step):
    """The log for appending, without lines of steps that will be done again after a resume."""
    lines = path.read_text().splitlines(keepends=True) if step and path.exists() else []
    log = open(path, "w")
    log.writelines(line for line in lines if json.loads(line)["step"] <= step)
    return log


def _sparsity(model, x):
    """Share of zeros in x1 per layer on the inputs x."""
    with torch.no_grad(), ActivationTap(model, l1=False) as tap:
        model.model(input_ids=x, use_cache=False)
        return tap.sparsity()
