import json
import os
import subprocess
import sys

import pytest
import torch
from sparsify import evaluate, export, modeling, report, sweep, textdata, train
from sparsify.__main__ import parser
from sparsify.objective import Objective
from transformers import AutoTokenizer

SHAPE = "--hidden 32 --ffn 48 --layers 2 --heads 4 --kv-heads 2"


def train_command(corpus, out, options=""):
    text, folder = corpus
    return (
        f"train --text {text} --valid {text} --tokenizer {folder} --out {out} {SHAPE} --context 32 "
        f"--batch 4 --micro-batch 2 --lr 0.003 --log-every 5 --eval-every 10 {options}"
    ).split()


def run(module, command):
    args = parser().parse_args(command if isinstance(command, list) else command.split())
    getattr(module, args.function[1])(args)


def log(out):
    return [json.loads(line) for line in open(out / "log.jsonl")]


def weights(path):
    return modeling.load(path).state_dict()


def test_train_sweep_export_and_report(corpus, tmp_path):
    run(train, train_command(corpus, tmp_path, "--steps 20 --optimizer muon --lr 0.02"))
    rows = log(tmp_path)
    assert [r["step"] for r in rows] == [5, 10, 15, 20]
    assert rows[-1]["lambda"] == pytest.approx(0.10) and rows[-1]["lr"] == 0
    assert rows[-1]["valid"]["ppl_token"] < 300
    final, out = tmp_path / "final", tmp_path / "exported"
    other = tmp_path / "other.txt"
    other.write_text("The garden and the sea.\n" * 200)
    run(sweep, f"sweep --model {final} --text {corpus[0]} --tokens 640 --context 32 "
        f"--thresholds 0.01 --out {tmp_path}/sweep.json")  # fmt: skip
    swept = json.loads((tmp_path / "sweep.json").read_text())["results"]
    assert [r["threshold"] for r in swept] == [0.0, 0.01]
    run(export, f"export --model {final} --threshold 0.01 --out {out}")
    run(
        report,
        f"report --model {final} {out} --text {corpus[0]} {other} --tokens 640 --context 32 "
        f"--log {tmp_path}/log.jsonl --out {tmp_path}/report",
    )
    rows = json.loads((tmp_path / "report/sparsity.json").read_text())
    assert [(r["model"], r["text"], r["threshold"]) for r in rows] == [
        ("final", "text.txt", 0.0),
        ("final", "other.txt", 0.0),
        ("exported", "text.txt", 0.0),
        ("exported", "text.txt", 0.01),
        ("exported", "other.txt", 0.0),
        ("exported", "other.txt", 0.01),
    ]
    shifted = [r for r in rows if r["threshold"] == 0.01]
    assert shifted[0]["sparsity"] == pytest.approx(swept[1]["sparsity"])
    tables = (tmp_path / "report/sparsity.md").read_text()
    assert [line.split("|")[1].strip() for line in tables.splitlines() if "threshold" in line] == [
        f"{r['model']}, threshold {r['threshold']:g}"
        for text in ("text.txt", "other.txt") for r in rows if r["text"] == text
    ]  # fmt: skip
    assert (tmp_path / "report/sparsity.png").stat().st_size > 1000
    assert (tmp_path / "report/training.png").stat().st_size > 1000


@pytest.mark.parametrize("options", ["", "--optimizer muon --embed-lr 0.01", "--bf16"])
def test_a_resumed_run_equals_one_that_was_not_stopped(corpus, tmp_path, options, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(train, train_command(corpus, whole, f"--steps 8 {options}"))
    step = train.Run.train_step

    def stop_after_5(self, *args):
        if self.step == 5:
            raise KeyboardInterrupt
        result = step(self, *args)
        if self.step == 5:
            self.save_checkpoint()
        return result

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train.Run, "train_step", stop_after_5)
        run(train, train_command(corpus, parts, f"--steps 8 {options}"))
    run(train, train_command(corpus, parts, f"--steps 8 {options} --resume"))
    a, b = weights(whole / "final"), weights(parts / "final")
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
    assert log(parts)[-1]["loss"] == log(whole)[-1]["loss"]


def test_two_processes_do_what_one_does(corpus, tmp_path):
    options = "--steps 5 --lambda-peak 1 --batch 8"
    run(train, train_command(corpus, tmp_path / "one", options))
    environment = {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    launch = "-m torch.distributed.run --standalone --nproc_per_node 2".split()
    command = ["-m", "sparsify", *train_command(corpus, tmp_path / "two", options)]
    subprocess.run([sys.executable, *launch, *command], env=os.environ | environment, check=True)
    one, two = log(tmp_path / "one")[-1], log(tmp_path / "two")[-1]
    assert (one["processes"], two["processes"]) == (1, 2)
    for key in ("loss", "l1", "sparsity"):
        assert two[key] == pytest.approx(one[key], rel=1e-4)
    a, b = weights(tmp_path / "one/final"), weights(tmp_path / "two/final")
    for name in a:
        assert torch.allclose(a[name], b[name], atol=1e-4), name


def test_continued_training_keeps_the_activation_on_request(corpus, tmp_path):
    run(train, train_command(corpus, tmp_path / "dense", "--steps 2 --activation keep"))
    dense = modeling.load(tmp_path / "dense/final")
    assert dense.config.hidden_act == "silu" and modeling.threshold_of(dense) is None
    init = f"--init {tmp_path}/dense/final --steps 2"
    run(train, train_command(corpus, tmp_path / "relu", f"{init} --distill 0.5"))
    rows = log(tmp_path / "relu")
    assert rows[-1]["kl"] > 0 and rows[-1]["sparsity"][0] > 0.3
    assert modeling.load(tmp_path / "relu/final").config.hidden_act == "relu"


def test_export_and_reload_give_the_same_logits(model, corpus, tmp_path):
    x = torch.arange(3, 67).view(2, 32)
    for threshold, act in ((0.01, "fatrelu"), (0.0, "relu")):
        modeling.set_activation(model, threshold).eval()
        expected = model(input_ids=x, use_cache=False).logits
        export.export(model, tmp_path / act, corpus[1], "f32")
        config = json.loads((tmp_path / act / "config.json").read_text())
        assert config["hidden_act"] == act
        assert config.get("hidden_act_param", 0.0) == threshold
        again = modeling.load(tmp_path / act)(input_ids=x, use_cache=False).logits
        assert torch.equal(again, expected)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / act)
        assert tokenizer("the old man") == AutoTokenizer.from_pretrained(corpus[1])("the old man")


def test_sparsity_of_a_text_is_the_mean_over_its_tokens(model, corpus):
    tokens = textdata.encode(*corpus)
    objective = Objective(model)
    one = evaluate.evaluate(objective, tokens, 32, limit=640, batch=20)
    many = evaluate.evaluate(objective, tokens, 32, limit=640, batch=3)
    assert one["windows"] == 20
    assert many["sparsity"] == pytest.approx(one["sparsity"], abs=1e-6)
    assert many["nll"] == pytest.approx(one["nll"], abs=1e-5)


def test_sweep_takes_the_last_threshold_within_the_budget():
    results = [
        {"threshold": t, "ppl_token": p}
        for t, p in ((0, 100), (0.1, 100.3), (0.2, 102), (0.3, 100))
    ]
    assert sweep.choose(results, 0.005) == 0.1
    assert sweep.choose(results, 0.0) == 0.0
    assert sweep.choose(results, 0.1) == 0.3
    results[2]["ppl_token"] = float("nan")
    assert sweep.choose(results, 0.1) == 0.1


def test_tables_compare_with_the_first_row():
    def row(model, threshold, ppl, *sparsity):
        mean = sum(sparsity) / len(sparsity)
        rest = {"ppl_token": ppl, "ppl_byte": 2.0, "sparsity": sparsity, "sparsity_mean": mean}
        return {"model": model, "text": "a.txt", "threshold": threshold} | rest

    rows = [row("dense", None, 10.0, 0.0, 0.0), row("sparse", 0.1, 10.25, 0.8, 0.9)]
    other = rows[0] | {"text": "b.txt"}
    assert report.table([*rows, other], "a.txt").splitlines() == [
        "|  | perplexity per token | per byte | against the first | sparsity, mean | "
        "layer 0 | layer 1 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| dense | 10.00 | 2.0000 |  | — | — | — |",
        "| sparse, threshold 0.1 | 10.25 | 2.0000 | +2.50% | 85.0% | 80.0% | 90.0% |",
    ]
    shifted = [row("sparse", t, p, 0.8) for t, p in ((0.0, 10.0), (0.1, 10.1))]
    deep = row("deep", 0.0, 9.0, 0.5, 0.5, 0.5)
    lines = report.table([*shifted, deep], "a.txt").splitlines()
    assert "+1.00%" in lines[3] and "-10.00%" in lines[4]
    assert {line.count("|") for line in lines} == {9} and lines[2].endswith("| 80.0% |  |  |")


def test_documents_that_were_cut_have_no_end(corpus, tmp_path):
    text = tmp_path / "cut.txt"
    text.write_text("The sea.\n<|endofbook|>\nThe garden.\n<|cut|>\n<|endofbook|>\nThe end.\n")
    ids = list(textdata.encode(text, corpus[1]).ids)
    assert ids.count(1) == 3 and ids.count(2) == 2 and ids[-1] == 2
    second = ids[ids.index(1, 1) :]
    assert 2 not in second[: second.index(1, 1)]
