import numpy as np
import pytest
import torch
from sparsify import modeling, muon, objective
from sparsify.objective import IGNORE, Objective
from torch.nn.functional import cross_entropy


def batch(model, n=32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(3, model.config.vocab_size, (2, n), generator=generator)
    y = torch.roll(x, -1, 1)
    y[:, -1] = IGNORE
    return x, y


@pytest.mark.parametrize("whole_logits", [0, objective.WHOLE_LOGITS])
def test_mixed_precision_changes_the_loss_by_rounding_only(model, whole_logits, monkeypatch):
    monkeypatch.setattr(objective, "WHOLE_LOGITS", whole_logits)
    x, y = batch(model)
    exact = Objective(model)(x, y)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = Objective(model)(x, y)[0]
    mixed.backward()
    assert mixed.dtype == torch.float32 and 0 < abs(mixed - exact) < 0.01 * exact
    assert all(p.grad.isfinite().all() for p in model.parameters())


def x1(model, layer, x):
    """x1 of a layer, recomputed from the layer's input."""
    seen = []
    mlp = model.model.layers[layer].mlp
    handle = mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(input_ids=x, use_cache=False)
    handle.remove()
    return torch.relu(mlp.gate_proj(seen[0])) * mlp.up_proj(seen[0])


def test_objective_measures_l1_and_zeros(model):
    x, y = batch(model)
    _, _, l1, zeros = Objective(model)(x, y)
    expected = [x1(model, i, x) for i in range(2)]
    assert torch.allclose(l1, torch.stack([v.abs().mean() for v in expected]))
    assert np.allclose(zeros, [float((v == 0).float().mean()) for v in expected])
    assert all(0.3 < s < 0.7 for s in zeros)


def test_penalty_gradient_agrees_with_finite_differences(model):
    objective = Objective(model.double())
    x, y = batch(model)
    weight = model.model.layers[1].mlp.gate_proj.weight

    def penalty():
        return objective(x, y)[2].sum()

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


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters()]


def test_loss_and_gradient_are_those_of_cross_entropy(model):
    x, y = batch(model)
    logits = model(input_ids=x, use_cache=False).logits.flatten(0, 1)
    expected = cross_entropy(logits, y.flatten(), ignore_index=IGNORE, reduction="sum")
    wanted = gradients(model, expected)
    nll = Objective(model)(x, y)[0]
    assert torch.allclose(nll, expected)
    for got, want in zip(gradients(model, nll), wanted):
        assert torch.allclose(got, want, rtol=1e-3, atol=1e-5)


def test_distillation_loss_is_the_divergence_from_the_teacher(model):
    x, y = batch(model)
    torch.manual_seed(5)
    teacher = modeling.new_model(380, 16, 24, 1, 2, 1, 64)
    nll, kl, _, _ = Objective(model, teacher)(x, y)
    assert torch.allclose(nll, Objective(model)(x, y)[0])
    p = torch.softmax(teacher(input_ids=x, use_cache=False).logits, -1)
    q = torch.softmax(model(input_ids=x, use_cache=False).logits, -1)
    expected = (p * (p / q).log()).sum(-1)[y != IGNORE].sum()
    assert torch.allclose(kl, expected, rtol=1e-4)
    kl.backward()
    assert float(model.model.layers[0].mlp.up_proj.weight.grad.abs().sum()) > 0
    assert all(p.grad is None for p in teacher.parameters())
    same = Objective(model, model)(x, y)[1]
    assert abs(float(same.detach())) < 1e-5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = Objective(model, teacher)(x, y)[1]
    assert abs(mixed - kl) < 0.01 * kl
    assert float(Objective(model, teacher).eval()(x, y)[1]) == 0


def test_gradient_checkpointing_changes_no_gradient(model):
    x, y = batch(model)

    def grads():
        nll, _, l1, _ = Objective(model.train())(x, y)
        return gradients(model, nll + 10 * l1.sum())

    plain = grads()
    runs = []
    model.model.layers[1].mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    model.activation_checkpointing_enable()
    for got, want in zip(grads(), plain):
        assert torch.allclose(got, want, rtol=1e-4, atol=1e-6)
    assert len(runs) == 2  # again in the backward pass


def test_attention_is_causal_without_a_mask(model):
    x, _ = batch(model)
    expected = model(input_ids=x).logits
    model.set_attn_implementation(modeling.CAUSAL)
    assert torch.allclose(model(input_ids=x).logits, expected, atol=1e-5)
    x[:, -1] = 3
    assert torch.allclose(model(input_ids=x).logits[:, :-1], expected[:, :-1], atol=1e-5)


def test_fatrelu_keeps_the_edge():
    act = modeling.FATReLU(0.5)
    assert act(torch.tensor([-1.0, 0.0, 0.49, 0.5, 2.0])).tolist() == [0, 0, 0, 0.5, 2.0]


def test_muon_update_is_orthogonal():
    g = torch.randn(3, 8, 24, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(muon.orthogonalise(g))
    assert 0.5 < float(values.min()) and float(values.max()) < 1.4
