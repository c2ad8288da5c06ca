"""Training with the progressive L1 penalty, in one process or many (`accelerate launch`).

Writes into --out: log.jsonl (a line every --log-every steps), checkpoint/ (state to resume from;
replaced atomically) and at the end final/ (HF directory). SIGTERM saves a checkpoint and ends the
process; --resume goes on from there.
"""

import contextlib
import datetime
import json
import math
import shutil
import signal
import time
from pathlib import Path

import accelerate
import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoTokenizer

from . import evaluate, export, modeling, muon, schedule, textdata
from .objective import Objective


def batch_at(tokens, step, batch, context, seed):
    """Inputs and targets [batch, context] of a step. Each epoch is its own permutation of the
    windows and starts at its own offset, so a run can be resumed from the step number alone."""
    per_epoch = (len(tokens.ids) - context - 1) // context // batch
    if per_epoch < 1:
        raise ValueError(f"{len(tokens.ids)} tokens do not fill a batch of {batch} x {context}")
    epoch, i = divmod(step, per_epoch)
    rng = np.random.default_rng((seed, epoch))
    offset = int(rng.integers(context))
    order = rng.permutation(per_epoch * batch)[i * batch : (i + 1) * batch]
    return textdata.inputs_and_targets(
        textdata.windows(tokens.ids[offset:], context)[order], tokens.bos
    )


def make_model(args):
    """The model to train, in float32: --init with its gate substituted, or a new one."""
    if args.init:
        model = modeling.load(args.init)
        model.config.max_position_embeddings = max(
            model.config.max_position_embeddings, args.context
        )
    else:
        tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
        model = modeling.new_model(
            len(tokenizer), args.hidden, args.ffn, args.layers, args.heads, args.kv_heads,
            args.context, tokenizer.bos_token_id, tokenizer.eos_token_id,
        )  # fmt: skip
    if args.activation == "relu":
        modeling.set_activation(model)
    if args.gradient_checkpointing:
        model.activation_checkpointing_enable()
        # Else the hooks of Objective, which write down what they see, keep layers from being
        # compiled.
        torch._dynamo.config.skip_fwd_side_effects_in_bwd_under_checkpoint = True
    # On a CPU PyTorch's fused attention has much to do for a short row.
    short = args.context <= 512 and not torch.cuda.is_available()
    model.set_attn_implementation("eager" if short else modeling.CAUSAL)
    return model.train()


def make_optimizers(objective, args):
    """AdamW for all, or Muon for the matrices of the layers and Adam for embeddings and norms."""
    named = [(n, p) for n, p in objective.named_parameters() if p.requires_grad]
    if args.optimizer == "adamw":
        decayed = [p for _, p in named if p.ndim == 2]
        groups = [
            {"params": decayed, "weight_decay": args.weight_decay},
            {"params": [p for _, p in named if p.ndim != 2], "weight_decay": 0.0},
        ]
        optimizers = [torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95))]
    else:
        matrices = [p for n, p in named if ".layers." in n and p.ndim == 2]
        rest = [p for n, p in named if not (".layers." in n and p.ndim == 2)]
        dtype = torch.bfloat16 if args.bf16 else torch.float32
        optimizers = [
            muon.Muon(matrices, lr=args.lr, weight_decay=args.weight_decay, dtype=dtype),
            torch.optim.AdamW(rest, lr=args.embed_lr, betas=(0.9, 0.95), weight_decay=0.0),
        ]
    for o in optimizers:
        for group in o.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def stages_of(args):
    stages = schedule.stages_for(args.schedule, 1.0)
    scale = 1.0 if args.lambda_peak is None else args.lambda_peak / stages[-1][0]
    return [(scale * lam, end) for lam, end in stages]


class Run:
    """Model, optimizers and data of a run, spread over the processes by accelerate."""

    def __init__(self, args):
        self.args, self.out, self.step = args, Path(args.out), 0
        self.out.mkdir(parents=True, exist_ok=True)
        # The others wait while the first process encodes the texts, perhaps for hours.
        patience = accelerate.InitProcessGroupKwargs(timeout=datetime.timedelta(hours=12))
        self.accelerator = accelerate.Accelerator(
            mixed_precision="bf16" if args.bf16 else None, kwargs_handlers=[patience]
        )
        bf16 = self.accelerator.mixed_precision == "bf16"
        if bf16:
            torch.backends.cuda.matmul.allow_tf32 = True  # of the logits; finer than bf16
        if args.micro_batch is None:
            args.micro_batch = math.gcd(8, max(1, args.batch // self.accelerator.num_processes))
        if args.batch % (self.accelerator.num_processes * args.micro_batch):
            raise ValueError(
                f"--batch {args.batch} is no multiple of {self.accelerator.num_processes} "
                f"processes x --micro-batch {args.micro_batch}"
            )
        self.fsdp = self.accelerator.distributed_type == accelerate.DistributedType.FSDP
        if self.fsdp and args.optimizer == "muon":
            raise ValueError("Muon needs whole matrices: use --optimizer adamw with FSDP")
        if self.fsdp and bf16:
            # accelerate's own would round the losses to bf16, and sum gradients in it.
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = (
                torch.distributed.fsdp.MixedPrecisionPolicy(
                    param_dtype=torch.bfloat16, reduce_dtype=torch.float32
                )
            )
        self.claim_out()
        tokenizer = args.tokenizer or args.init
        with self.accelerator.main_process_first():  # the others find its cache
            self.tokens = textdata.encode(args.text, tokenizer, self.out / "train-ids.npz")
            valid = textdata.encode(args.valid, tokenizer, self.out / "valid-ids.npz")
        self.valid = valid.head(args.eval_tokens)
        if len(self.valid.ids) <= args.context:
            raise SystemExit(
                f"--valid and --eval-tokens leave {len(self.valid.ids)} tokens, which do not fill "
                f"a window of {args.context}"
            )
        self.model, teacher = make_model(args), None
        vocabulary = self.model.config.vocab_size
        if max(int(self.tokens.ids.max()), int(valid.ids.max())) >= vocabulary:
            raise SystemExit(f"{tokenizer} has ids that the model's {vocabulary} embeddings lack")
        if args.distill:
            teacher = modeling.load(args.teacher or args.init).requires_grad_(False)
            if teacher.config.vocab_size != vocabulary:
                raise SystemExit(
                    f"the teacher has a vocabulary of {teacher.config.vocab_size}, the model one "
                    f"of {vocabulary}"
                )
            teacher.to(self.accelerator.device, torch.bfloat16 if bf16 else torch.float32)
        objective = Objective(self.model, teacher, compiled=args.compile)
        self.objective, *self.optimizers = self.accelerator.prepare(
            objective, *make_optimizers(objective, args)
        )
        if args.resume and (self.out / "checkpoint").exists():
            self.resume(json.loads((self.out / "checkpoint/run.json").read_text()))

    def options(self):
        """What must be the same for a run to go on as if it had not been stopped."""
        names = (
            "init", "steps", "activation", "schedule", "lambda_peak", "distill", "teacher",
            "context", "batch", "optimizer", "lr", "embed_lr", "weight_decay", "warmup", "decay",
            "lr_shape", "seed",
        )  # fmt: skip
        # Checkpoints of one process, of several and of FSDP have different files.
        kind = {"processes": self.accelerator.distributed_type.value}
        return {name: getattr(self.args, name) for name in names} | kind

    def resume(self, saved):
        for name, was in saved["options"].items():
            if self.options()[name] != was:
                raise SystemExit(
                    f"{self.out} holds a run with {name} {was}, not {self.options()[name]}: go on "
                    "with what it had, or name another --out"
                )
        self.accelerator.load_state(self.out / "checkpoint")
        self.step = saved["step"]

    def claim_out(self):
        """Refuses to overwrite another run, and takes up a checkpoint that was being replaced."""
        final, old = self.out / "checkpoint", self.out / ".old"
        if self.accelerator.is_main_process and not final.exists() and old.exists():
            old.rename(final)
        self.accelerator.wait_for_everyone()
        if final.exists() and not self.args.resume:
            raise SystemExit(f"{self.out} holds a run: add --resume, or name another --out")

    def train_step(self, lam, lr_factor):
        """One update. Returns [nll, kl, |x1| per layer, zeros per layer], means over the step."""
        args, processes = self.args, self.accelerator.num_processes
        for group in (g for o in self.optimizers for g in o.param_groups):
            group["lr"] = group["peak_lr"] * lr_factor
        x, y = batch_at(self.tokens, self.step, args.batch, args.context, args.seed)
        # Gradients are averaged over processes: each divides its sums by an equal share.
        targets = int((y >= 0).sum()) / processes
        own = slice(self.accelerator.process_index, None, processes)
        x, y = x[own].to(self.accelerator.device), y[own].to(self.accelerator.device)
        parts = list(zip(x.split(args.micro_batch), y.split(args.micro_batch)))
        stats = 0.0
        for i, (xs, ys) in enumerate(parts):
            # FSDP would keep whole gradients while it waits.
            at_once = self.fsdp or i == len(parts) - 1
            wait = contextlib.nullcontext() if at_once else self.accelerator.no_sync(self.objective)
            with wait:
                nll, kl, l1, zeros = self.objective(xs, ys)
                lm = (1 - args.distill) * nll + args.distill * kl
                self.accelerator.backward(lm / targets + lam * l1.sum() / len(parts))
            sums = torch.stack([nll, kl]).detach() / targets
            stats = stats + torch.cat([sums, torch.cat([l1.detach(), zeros]) / len(parts)])
        self.accelerator.clip_grad_norm_(self.objective.parameters(), 1.0)
        for o in self.optimizers:
            o.step()
            o.zero_grad()
        self.step += 1
        return self.accelerator.reduce(stats, "mean").tolist()

    def evaluate(self):
        batch = self.args.micro_batch
        return evaluate.evaluate(self.objective, self.valid, self.args.context, batch=batch)

    def save_checkpoint(self):
        fresh, old, final = (self.out / n for n in (".new", ".old", "checkpoint"))
        self.accelerator.save_state(fresh)
        self.accelerator.wait_for_everyone()  # each process has written its part
        if self.accelerator.is_main_process:
            saved = {"step": self.step, "options": self.options()}
            (fresh / "run.json").write_text(json.dumps(saved, indent=1) + "\n")
            if final.exists():
                shutil.rmtree(old, ignore_errors=True)
                final.rename(old)
            fresh.rename(final)
            shutil.rmtree(old, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def save_final(self):
        state = self.accelerator.get_state_dict(self.objective)
        if self.accelerator.is_main_process:
            state = {k.removeprefix("model."): v for k, v in state.items()}
            fresh, final = self.out / ".final.new", self.out / "final"
            shutil.rmtree(fresh, ignore_errors=True)
            self.model.save_pretrained(fresh, state_dict=state)
            modeling.write_threshold(self.model, fresh)
            export.copy_tokenizer(self.args.tokenizer or self.args.init, fresh)
            shutil.rmtree(final, ignore_errors=True)
            fresh.rename(final)

    def in_any_process(self, *flags):
        """Which of `flags` are set in any process."""
        tensor = torch.tensor(flags, dtype=torch.float32, device=self.accelerator.device)
        return [f > 0 for f in self.accelerator.reduce(tensor, "sum").tolist()]


def run(args):
    if not args.init and not args.tokenizer:
        raise SystemExit("train wants --init or --tokenizer: a new model has that vocabulary")
    if args.distill and not args.init and not args.teacher:
        raise SystemExit("--distill of a new model wants a --teacher")
    if args.teacher and not args.distill:
        raise SystemExit("--teacher without --distill: say with which weight")
    for path in (args.init, args.teacher):  # before texts are encoded
        if path:
            modeling.read_config(path)
    if args.lr is None:
        args.lr = 0.02 if args.optimizer == "muon" else 3e-5
    accelerate.utils.set_seed(args.seed)
    if args.threads:
        torch.set_num_threads(args.threads)
    run = Run(args)
    main, stages = run.accelerator.is_main_process, stages_of(args)
    if main:
        print(f"training on {run.accelerator.num_processes} x {run.accelerator.device.type}")
    log = _open_log(run.out / "log.jsonl", run.step) if main else None
    bar = tqdm(total=args.steps, initial=run.step, desc="train", unit="step", disable=not main)
    stopped, last_save, seconds = [], time.time(), time.time()
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    stop = False
    while run.step < args.steps and not stop:
        progress = (run.step + 1) / args.steps
        lam = schedule.lambda_at(stages, progress)
        factor = schedule.lr_factor(progress, args.warmup, args.decay, args.lr_shape)
        nll, kl, *layers = run.train_step(lam, factor)
        if not np.isfinite(nll):
            raise RuntimeError(f"loss is {nll} at step {run.step}: use a lower learning rate")
        bar.update()
        half = len(layers) // 2
        evaluates = run.step % args.eval_every == 0 or run.step == args.steps
        if run.step % args.log_every == 0 or evaluates:
            record = {
                "step": run.step, "tokens": run.step * args.batch * args.context,
                "processes": run.accelerator.num_processes,
                "seconds": round(time.time() - seconds, 2), "lr": args.lr * factor, "lambda": lam,
                "loss": nll, "kl": kl, "l1": layers[:half], "sparsity": layers[half:],
            }  # fmt: skip
            if evaluates:
                record["valid"] = run.evaluate()
            if main:
                log.write(json.dumps(record) + "\n")
                log.flush()
            mean = sum(layers[half:]) / half
            bar.set_postfix_str(f"loss {nll:.3f} λ {lam:.4f} sparsity {mean:.3f}")
        late = time.time() - last_save > args.save_minutes * 60
        stop, save = run.in_any_process(bool(stopped), late)
        if save:
            run.save_checkpoint()
            last_save = time.time()
    run.save_checkpoint()
    if run.step >= args.steps:
        run.save_final()
    run.accelerator.end_training()
    if run.step < args.steps:
        raise SystemExit(128 + signal.SIGTERM)  # so that a recipe does not go on to its next step


def _open_log(path, step):
    """The log for appending, without lines of steps that will be done again after a resume."""
    lines = path.read_text().splitlines(keepends=True) if step and path.exists() else []
    log = open(path, "w")
    log.writelines(line for line in lines if json.loads(line)["step"] <= step)
    return log
