"""What is refused, before a training is spent on it or a result overwritten."""

import json
import shutil
from pathlib import Path

import pytest
from sparsify import export, modeling, report, sweep, textdata, train
from test_commands import run, train_command


def refused(module, command):
    with pytest.raises(SystemExit) as stop:
        run(module, command)
    return str(stop.value)


def test_models_that_are_no_llama(corpus, tmp_path):
    command = train_command(corpus, tmp_path / "a", "--steps 1 --init x")
    assert "no config.json" in refused(train, command)
    assert not (tmp_path / "a").exists()  # before texts are encoded
    command = train_command(corpus, tmp_path / "a", "--steps 1 --distill 0.5 --teacher x")
    assert "no config.json" in refused(train, command)
    command = train_command(corpus, tmp_path / "a", "--steps 1 --teacher x")
    assert "--distill" in refused(train, command)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["MiniCPMForCausalLM"]}))
    command = train_command(corpus, tmp_path / "b", f"--steps 1 --init {tmp_path}")
    assert "MiniCPMForCausalLM" in refused(train, command)


def test_a_threshold_for_a_gate_that_is_no_relu(corpus, tmp_path):
    run(train, train_command(corpus, tmp_path, "--steps 1 --activation keep"))
    final = tmp_path / "final"
    assert "silu" in refused(sweep, f"sweep --model {final} --text {corpus[0]} --context 32")
    command = f"export --model {final} --threshold 0.1 --out {tmp_path}/out"
    assert "silu" in refused(export, command)


def test_a_run_is_not_overwritten(corpus, tmp_path):
    run(train, train_command(corpus, tmp_path, "--steps 1"))
    assert "--resume" in refused(train, train_command(corpus, tmp_path, "--steps 2"))


@pytest.mark.parametrize("option", ["--steps 3", "--lr 0.1", "--batch 2", "--seed 9"])
def test_a_run_does_not_go_on_with_other_options(corpus, tmp_path, option):
    run(train, train_command(corpus, tmp_path, "--steps 2"))
    name, value = option.removeprefix("--").split()
    answer = refused(train, train_command(corpus, tmp_path, f"--steps 2 {option} --resume"))
    assert f"with {name} " in answer and f", not {value}" in answer


def test_a_vocabulary_that_is_too_small(model, corpus, tmp_path):
    small = modeling.new_model(300, 16, 24, 1, 2, 1, 64)
    small.save_pretrained(tmp_path / "small")
    command = f"--steps 1 --init {tmp_path}/small"
    assert "300 embeddings" in refused(train, train_command(corpus, tmp_path / "a", command))
    command = f"--steps 1 --distill 0.5 --teacher {tmp_path}/small"
    assert "vocabulary of 300" in refused(train, train_command(corpus, tmp_path / "b", command))


def test_a_checkpoint_that_was_being_replaced_is_found(corpus, tmp_path):
    run(train, train_command(corpus, tmp_path, "--steps 2"))
    (tmp_path / "checkpoint").rename(tmp_path / ".old")
    assert "--resume" in refused(train, train_command(corpus, tmp_path, "--steps 2"))


def test_a_checkpoint_that_was_not_quite_thrown_away_is_no_hindrance(corpus, tmp_path):
    run(train, train_command(corpus, tmp_path, "--steps 2"))
    shutil.copytree(tmp_path / "checkpoint", tmp_path / ".old")
    run(train, train_command(corpus, tmp_path, "--steps 2 --resume"))
    assert json.loads((tmp_path / "checkpoint/run.json").read_text())["step"] == 2
    assert not (tmp_path / ".old").exists()


def test_a_final_model_that_was_half_written_is_not_taken_for_one(corpus, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(export, "copy_tokenizer", broken)
    with pytest.raises(OSError, match="disk full"):
        run(train, train_command(corpus, tmp_path, "--steps 1"))
    assert not (tmp_path / "final").exists()


def test_an_export_has_its_config_last(model, corpus, tmp_path, monkeypatch):
    order, replace = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda a, b: order.append(b.name) or replace(a, b))
    export.export(model, tmp_path / "model", corpus[1], "f32")
    assert order[-1] == "config.json" and "model.safetensors" in order


def test_a_text_shorter_than_a_window(model, corpus, tmp_path):
    (tmp_path / "short.txt").write_text("The sea.\n")
    export.export(model, tmp_path / "model", corpus[1], "f32")
    command = f"report --model {tmp_path}/model --text {tmp_path}/short.txt --out {tmp_path}/report"
    assert "do not fill a window of 512" in refused(report, command)


def test_a_report_of_models_or_texts_of_one_name(tmp_path):
    command = f"report --model a/final b/final --text x.txt --out {tmp_path}/report"
    assert "two models are named final" in refused(report, command)
    command = f"report --model a b --text a/x.txt b/x.txt --out {tmp_path}/report"
    assert "two texts are named x.txt" in refused(report, command)


def test_a_report_of_nothing(corpus, tmp_path):
    assert "--log" in refused(report, f"report --out {tmp_path}")
    assert "name both" in refused(report, f"report --text {corpus[0]} --out {tmp_path}")


def test_a_text_without_a_word(corpus, tmp_path):
    (tmp_path / "empty.txt").write_text("\n<|endofbook|>\n")
    with pytest.raises(SystemExit, match="no text"):
        textdata.encode(tmp_path / "empty.txt", corpus[1])


def test_a_model_from_nothing_without_a_tokenizer(corpus, tmp_path):
    command = f"train --text {corpus[0]} --valid {corpus[0]} --out {tmp_path}/run --steps 1"
    assert "--init or --tokenizer" in refused(train, command)
    command += f" --tokenizer {corpus[1]} --distill 0.5"
    assert "--teacher" in refused(train, command)


def test_a_cache_of_another_text(corpus, tmp_path):
    cache, other = tmp_path / "ids.npz", tmp_path / "other.txt"
    other.write_text("The sea.\n")
    textdata.encode(corpus[0], corpus[1], cache)
    with pytest.raises(SystemExit, match="another text"):
        textdata.encode(other, corpus[1], cache)


def test_a_validation_text_shorter_than_a_window(corpus, tmp_path):
    command = train_command(corpus, tmp_path, "--steps 1 --eval-tokens 32")
    assert "do not fill a window of 32" in refused(train, command)


def test_continuing_a_fatrelu_model_keeps_its_threshold(model, corpus, tmp_path):
    modeling.set_activation(model, 0.25)
    export.export(model, tmp_path / "shifted", corpus[1], "f32")
    options = f"--init {tmp_path}/shifted --steps 1 --activation keep"
    run(train, train_command(corpus, tmp_path / "run", options))
    assert modeling.threshold_of(modeling.load(tmp_path / "run/final")) == 0.25


def test_documents_of_blank_lines_are_none(corpus, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The sea.\n<|endofbook|>\n\n \n")
    assert list(textdata.read_documents(text)) == [["The sea."]]
    assert textdata.encode(text, corpus[1]).ids[-1] == 2
