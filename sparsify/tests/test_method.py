import json

import numpy as np
import torch
from sparsify import evaluate, export, modeling, muon, sweep, textdata, train
from sparsify.__main__ import parser
from sparsify.penalty import ActivationTap


def ids(model, n=32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, model.config.vocab_size, (2, n), generator=generator)


def x1(model, layer, x):
    """x1 of a layer, recomputed from the layer's input."""
    seen = []
    mlp = model.model.layers[layer].mlp
    handle = mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(input_ids=x, use_cache=False)
    handle.remove()
    return torch.relu(mlp.gate_proj(seen[0])) * mlp.up_proj(seen[0])


def test_tap_measures_l1_and_zeros(model):
    x = ids(model)
    with ActivationTap(model) as tap:
        model(input_ids=x, use_cache=False)
    expected = [x1(model, i, x) for i in range(2)]
    assert torch.allclose(tap.l1(), sum(v.abs().mean() for v in expected))
    assert np.allclose(tap.sparsity(), [float((v == 0).float().mean()) for v in expected])
    assert all(0.3 < s < 0.7 for s in tap.sparsity())


def test_penalty_gradient_agrees_with_finite_differences(model):
    model.double()
    x = ids(model)
    weight = model.model.layers[1].mlp.gate_proj.weight

    def penalty():
        with ActivationTap(model, sparsity=False) as tap:
            model(input_ids=x, use_cache=False)
            return tap.l1()

    penalty().backward()
    with torch.no_grad():
        direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)).double()
        step, base = 1e-6, weight.clone()
        weight.copy_(base + step * direction)
        high = float(penalty())
        weight.copy_(base - step * direction)
        low = float(penalty())
    slope = (high - low) / (2 * step)
    assert abs(slope - float((weight.grad * direction).sum())) < 1e-3 * abs(slope)


def test_chunked_loss_equals_cross_entropy(model):
    x = ids(model)
    y = torch.roll(x, -1, 1)
    y[:, -1] = train.IGNORE
    expected = torch.nn.functional.cross_entropy(
        model(input_ids=x, use_cache=False).logits.flatten(0, 1),
        y.flatten(),
        ignore_index=train.IGNORE,
    )
    expected.backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    loss = train.lm_loss(model, x, y)
    loss.backward()
    assert torch.allclose(loss, expected, atol=1e-5)
    for p, g in zip(model.parameters(), grads):
        assert torch.allclose(p.grad, g, atol=1e-5)


def test_fatrelu_keeps_the_edge():
    act = modeling.FATReLU(0.5)
    assert act(torch.tensor([-1.0, 0.0, 0.49, 0.5, 2.0])).tolist() == [0, 0, 0, 0.5, 2.0]


def test_muon_update_is_orthogonal():
    g = torch.randn(3, 8, 24, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(muon.orthogonalise(g))
    assert 0.5 < float(values.min()) and float(values.max()) < 1.4


def test_export_and_reload_give_the_same_logits(model, corpus, tmp_path):
    x = ids(model)
    for threshold, act in ((0.01, "fatrelu"), (0.0, "relu")):
        modeling.set_activation(model, threshold).eval()
        expected = model(input_ids=x, use_cache=False).logits
        export.export(model, tmp_path / act, corpus[1], threshold, "f32")
        config = json.loads((tmp_path / act / "config.json").read_text())
        assert config["hidden_act"] == act
        assert config.get("hidden_act_param", 0.0) == threshold
        again = modeling.load(tmp_path / act)(input_ids=x, use_cache=False).logits
        assert torch.equal(again, expected)


def test_sweep_takes_the_last_threshold_within_the_budget():
    results = [
        {"threshold": t, "ppl_token": p}
        for t, p in ((0, 100), (0.1, 100.3), (0.2, 102), (0.3, 100))
    ]
    assert sweep.choose(results, 0.005) == 0.1
    assert sweep.choose(results, 0.0) == 0.0
    assert sweep.choose(results, 0.1) == 0.3


def test_text_is_unwrapped_and_encoded(corpus):
    text, tokenizer = corpus
    documents = list(textdata.read_documents(text))
    assert [len(d) for d in documents] == [400, 50]
    assert all(p.endswith("The end.") and "\n" not in p for p in documents[1])
    tokens, size = textdata.encode(text, tokenizer)
    sp = textdata.spm.SentencePieceProcessor(model_file=str(tokenizer))
    assert (
        tokens[0] == sp.bos_id()
        and tokens[-1] == sp.eos_id()
        and list(tokens).count(sp.eos_id()) == 2
    )
    assert sp.decode([int(t) for t in tokens[:60]]).startswith(documents[0][0])
    assert size == sum(len(p.encode()) for d in documents for p in textdata.passages(d))


def test_batches_cover_an_epoch_once():
    tokens = np.arange(1000, dtype=np.uint16)
    firsts = [int(r[0]) for s in range(6) for r in train.batch_at(tokens, s, 8, 20, seed=1)[0]]
    assert len(set(firsts)) == 48
    x, y = train.batch_at(tokens, 3, 8, 20, seed=1)
    assert torch.equal(x[:, 1:], torch.where(y[:, :-1] < 0, 1, y[:, :-1]))


def test_train_sweep_and_resume_from_the_command_line(corpus, tmp_path):
    text, tokenizer = corpus
    command = (
        f"train --text {text} --valid {text} --tokenizer {tokenizer} --out {tmp_path} "
        "--hidden 32 --ffn 48 --layers 2 --heads 4 --kv-heads 2 --context 32 "
        "--batch 4 --micro-batch 2 --log-every 5 --eval-every 10 --steps"
    )
    train.run(parser().parse_args([*command.split(), "20"]))
    rows = [json.loads(line) for line in open(tmp_path / "log.jsonl")]
    assert [r["step"] for r in rows] == [5, 10, 15, 20]
    assert rows[-1]["progress"] == 1.0 and rows[-1]["lambda"] > 0
    assert rows[-1]["valid"]["ppl_token"] < 300
    state = torch.load(tmp_path / "checkpoint/trainer.pt", weights_only=True)
    assert state["step"] == 20
    train.run(parser().parse_args([*command.split(), "20", "--resume"]))  # nothing left to do
    model = modeling.load(tmp_path / "final")
    tokens, size = textdata.encode(text, tokenizer)
    result = evaluate.evaluate(model, tokens, size, 32, tokens=640)
    assert result["windows"] == 20 and 0 < result["sparsity_mean"] < 1
    sweep.run(
        parser().parse_args(
            f"sweep --model {tmp_path}/final --text {text} --tokens 640 --context 32 "
            f"--thresholds 0.01 "
            f"--out {tmp_path}/sweep.json".split()
        )
    )
    assert json.loads((tmp_path / "sweep.json").read_text())["results"][0]["threshold"] == 0.0
