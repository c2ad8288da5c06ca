import math

import pytest
from sparsify import schedule


def test_published_7b_schedule_against_the_formula():
    stages = schedule.PRESETS["prosparse-7b"]
    assert schedule.lambda_at(stages, 0) == 0.0
    assert schedule.lambda_at(stages, 5000) == 0.0
    assert schedule.lambda_at(stages, 5001) == 5e-3  # stage 1 is constant
    assert schedule.lambda_at(stages, 6000) == 5e-3
    for t in (6001, 7000, 8000, 9999):
        eta = 0.5 * (math.sin(-math.pi / 2 + math.pi * (t - 6000) / 4000) + 1)
        assert schedule.lambda_at(stages, t) == pytest.approx(5e-3 + eta * (5e-2 - 5e-3))
    assert schedule.lambda_at(stages, 8000) == pytest.approx((5e-3 + 5e-2) / 2)
    assert schedule.lambda_at(stages, 11000) == pytest.approx(5e-2)  # equal neighbours
    assert schedule.lambda_at(stages, 16500) == pytest.approx(2e-1)
    assert schedule.lambda_at(stages, 99999) == 2e-1


@pytest.mark.parametrize("name", schedule.PRESETS)
def test_presets_never_fall_and_join_without_a_jump_after_stage_1(name):
    stages = schedule.stages_for(name, 10000)
    values = [schedule.lambda_at(stages, t) for t in range(10001)]
    assert all(a <= b for a, b in zip(values, values[1:]))
    first_rise = int(stages[1][1])
    assert (
        max(b - a for a, b in zip(values[first_rise:], values[first_rise + 1 :]))
        < 1e-2 * stages[-1][0]
    )
    assert values[-1] == pytest.approx(stages[-1][0])


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_learning_rate_warms_up_stays_and_ends_at_zero(shape):
    factor = [schedule.lr_factor(p / 1000, 0.02, 0.5, shape) for p in range(1001)]
    assert factor[0] == 0 and factor[10] == pytest.approx(0.5)
    assert all(f == pytest.approx(1) for f in factor[20:501])
    assert factor[750] == pytest.approx(0.5) and factor[1000] == 0
    assert all(a >= b for a, b in zip(factor[500:], factor[501:]))


def test_learning_rate_without_decay_stays():
    assert schedule.lr_factor(1.0, 0.02, 0) == 1.0
    assert schedule.lr_factor(1.0) == 0
