"""The published discrete-time schedules: their tables, and what is continuous in between."""

from __future__ import annotations

import math

import pytest
import torch

from driftfield.plain import from_plain, to_plain
from driftfield.process.discrete import DiscreteVP

F64 = torch.float64
STEPS = torch.arange(1001, dtype=F64)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "scaled-linear"])
def test_tables_are_the_products_of_their_variances(schedule):
    if schedule == "cosine":
        f = torch.cos((STEPS / 1000 + 0.008) / 1.008 * math.pi / 2).square()
        beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    elif schedule == "linear":
        beta = torch.linspace(1e-4, 0.02, 1000, dtype=F64)
    else:
        beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=F64).square()
    process = DiscreteVP(schedule)
    torch.testing.assert_close(process.alpha(STEPS[1:]).square(), (1 - beta).cumprod(0), rtol=1e-11, atol=0)
    torch.testing.assert_close(process.alpha(STEPS).square() + process.sigma(STEPS).square(), torch.ones(1001).double())
    torch.testing.assert_close(process.time(process.level(STEPS)), STEPS, rtol=1e-11, atol=0)
    assert process.span == (1.0, 1000.0)
    assert process.level(torch.zeros((), dtype=F64)) == 0


@pytest.mark.parametrize(
    ("name", "schedule", "ends"),
    [
        ("linear", "linear", {}),
        ("squaredcos_cap_v2", "cosine", {}),
        ("scaled_linear", "scaled-linear", {"beta_start": 0.00085, "beta_end": 0.012}),
    ],
)
def test_tables_are_those_of_diffusers(name, schedule, ends):
    """Which multiplies 1000 numbers in float32: 2e-5."""
    theirs = pytest.importorskip("diffusers").DDPMScheduler(1000, beta_schedule=name, **ends).alphas_cumprod
    torch.testing.assert_close(DiscreteVP(schedule).alpha(STEPS[1:]).square(), theirs.double(), rtol=2e-5, atol=0)
    made = DiscreteVP.of(theirs)
    torch.testing.assert_close(made.alpha(STEPS[1:]).square(), theirs.double(), rtol=1e-13, atol=0)
    assert (made.steps, made.schedule) == (1000, "table")


def test_log_alpha_is_linear_between_steps_and_beyond():
    process = DiscreteVP.of([0.9, 0.5, 0.2])
    log = lambda t: process.alpha(torch.tensor(t, dtype=F64)).log().item() * 2
    assert math.isclose(log(1.25), 0.75 * math.log(0.9) + 0.25 * math.log(0.5))
    assert math.isclose(log(0.5), math.log(0.9) / 2)
    assert math.isclose(log(4.0), 2 * math.log(0.2) - math.log(0.5))
    t = torch.tensor([0.2, 1.6, 2.9, 3.7], dtype=F64)
    torch.testing.assert_close(process.time(process.level(t)), t)


def test_slopes_at_a_whole_time_are_those_from_below():
    """Where samples come down to: one-sided differences."""
    process, t, h = DiscreteVP.of([0.9, 0.5, 0.2]), torch.tensor([1.0, 2.0, 2.3, 3.0], dtype=F64), 1e-6
    for curve, slope in zip((process.alpha, process.sigma), process.slopes(t), strict=True):
        torch.testing.assert_close((curve(t) - curve(t - h)) / h, slope, rtol=1e-5, atol=0)


def test_other_numbers_of_steps_add_about_the_same_noise():
    for schedule in ("linear", "scaled-linear"):
        tops = [
            DiscreteVP(schedule, n).level(torch.tensor(float(n), dtype=F64)).log().item() for n in (200, 1000, 4000)
        ]
        assert max(tops) - min(tops) < 0.6
    assert DiscreteVP("cosine", 50).span == (1.0, 50.0)


def test_it_is_a_plain_value_and_keeps_float32():
    for process in (DiscreteVP(), DiscreteVP("cosine", 20), DiscreteVP.of([0.9, 0.5]), DiscreteVP(span=(2.0, 900.0))):
        assert from_plain(to_plain(process)) == process
        assert hash(from_plain(to_plain(process))) == hash(process)
    t = torch.tensor([3.0, 700.5])
    p = DiscreteVP()
    for got in (p.alpha(t), p.sigma(t), *p.slopes(t), p.level(t), p.time(p.level(t))):
        assert got.dtype == torch.float32
    torch.testing.assert_close(p.sigma(t).double(), p.sigma(t.double()), rtol=1e-6, atol=0)


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match="unknown schedule 'liner'; did you mean 'linear'"):
        DiscreteVP("liner")
    with pytest.raises(ValueError, match="cannot be made of 10 steps; give more"):
        DiscreteVP(steps=10)
    for table in ([0.9, 0.95], [1.1, 0.5], [0.9, 0.0]):
        with pytest.raises(ValueError, match=r"within \(0, 1\]"):
            DiscreteVP.of(table)
    with pytest.raises(ValueError, match="got none"):
        DiscreteVP.of([])
