"""Dormand-Prince: the order of its steps, a tolerance for every row, rows that do not know of each other, a ceiling."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import driftfield as df
from driftfield.field.base import Field
from driftfield.rng import normal, rows, seeded
from driftfield.solve.adaptive import DormandPrince, Pace

from .test_rk import mixture

F64 = torch.float64
WIDE = DormandPrince(0.0, 1e12)  # takes any step it is told to
PROCESSES = [df.EDM(), df.VP(), df.VE(), df.Rectified(), df.PFGMPP(D=4.0)]
name = lambda v: type(v).__name__


def start(process, n, t):
    return process.perturb(mixture(process).sample(n, seeded(3)).to(F64), t, rows(0, 0, n))


class Line(Field):
    """`dx/dt = speed(t)` for every coordinate."""

    def __init__(self, speed):
        self.speed, self.calls = speed, 0

    def velocity(self, x, t):
        self.calls += 1
        v = self.speed(t)
        return torch.zeros_like(x) + (v[:, None] if v.ndim else v)

    def diffuse(self, x, s, t, rng):
        raise TypeError


@pytest.mark.parametrize(
    ("process", "count"), [(df.EDM(), 40), (df.VP(), 20), (df.PFGMPP(D=4.0), 80)], ids=["EDM", "VP", "PFGMPP"]
)
def test_a_step_is_of_fifth_order(process, count):
    """Global error at level 0.2 with one step for each interval of a grid, refined once, against a fine solution.

    On coarser grids the order seems higher: the leading error of this method is small.
    """
    field = df.Reverse(process, mixture(process))
    build = lambda n: df.geometric(process, n + 1, high=2.0, low=0.2)[:-1]
    x0 = start(process, 6, build(2)[0])

    def walk(n):
        x = x0
        for t, s in pairwise(build(n)):
            told = Pace(torch.full((6,), math.inf, dtype=F64), field.velocity(x, t))
            x, _ = WIDE.step(field, x, t, s, told, seeded(0))
        return x

    fine = walk(6 * count)
    errors = [(walk(n) - fine).norm().item() for n in (count, 2 * count)]
    assert errors[1] > 5e-14  # above rounding, so that the ratio means something
    assert math.log2(errors[0] / errors[1]) == pytest.approx(5, abs=0.15)


def test_polynomials_of_degree_four_are_exact_and_the_fifth_is_seen():
    """A step integrates `t^4` to rounding; of `t^5` the fifth-order weights miss what their nodes leave over."""
    t, s = torch.tensor(0.3, dtype=F64), torch.tensor(1.1, dtype=F64)
    for degree, exact in ((0, True), (3, True), (4, True), (5, False)):
        field = Line(lambda u, d=degree: u**d)
        told = Pace(torch.full((1,), math.inf, dtype=F64), field.velocity(torch.zeros(1, 1, dtype=F64), t))
        x, _ = WIDE.step(field, torch.zeros(1, 1, dtype=F64), t, s, told, seeded(0))
        wanted = (s ** (degree + 1) - t ** (degree + 1)) / (degree + 1)
        assert (abs(x.item() - wanted.item()) < 1e-15) == exact


@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_every_row_keeps_the_tolerance(process):
    """Global errors are within 10 tolerances in every row, whose size counts; and not for want of trying less."""
    field = df.Reverse(process, mixture(process))
    path = process.time(torch.tensor([5.0, 0.05], dtype=F64))
    x = start(process, 8, path[0])
    fine = df.sample(field, x, path, DormandPrince(1e-12, 1e-12, 20_000), seeded(0))
    for tolerance in (1e-4, 1e-6, 1e-8):
        found = df.sample(field, x, path, DormandPrince(tolerance, tolerance), seeded(0))
        error = (found - fine).abs().amax(1) / (1 + fine.abs().amax(1))
        assert (error < 10 * tolerance).all()
        assert error.max() > tolerance / 50


@pytest.mark.parametrize("process", [df.EDM(), df.Rectified(), df.PFGMPP(D=4.0)], ids=name)
def test_a_row_does_not_know_its_companions(process):
    """Beside rows of very different difficulty, and alone: the same to 1e-10 after the same steps."""
    field = df.Reverse(process, mixture(process))
    path = process.time(torch.tensor([5.0, 0.05], dtype=F64))
    x = torch.cat((start(process, 5, path[0]), 40 * torch.ones(1, 2, dtype=F64), torch.zeros(1, 2, dtype=F64)))
    together = df.sample(field, x, path, DormandPrince(), seeded(0))
    for i in range(len(x)):
        alone = df.sample(field, x[i : i + 1], path, DormandPrince(), seeded(0))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_what_generate_spends_is_counted_and_the_same_for_any_batch(process):
    """8 evaluations for the first step, 6 for each other, 1 to arrive at 0 (VE does not); the most of any row."""
    calls = []

    def model(x, t, cond=None):
        calls.append(len(x))
        return df.Normal(df.EDM(), 0.2, 0.6)(x, t) if process == df.PFGMPP(D=4.0) else exact(x, t)

    exact = None if process == df.PFGMPP(D=4.0) else df.Normal(process, 0.2, 0.6)
    one = df.generate(process, model, (7, 2), solver=DormandPrince(), dtype=F64, seed=5)
    assert one.nfe == len(calls)
    assert (one.nfe - (2 if isinstance(process, df.VE) else 3)) % 6 == 0
    parts = df.generate(process, model, (7, 2), solver="dormand-prince", nfe=one.nfe, dtype=F64, seed=5, batch=2)
    assert parts.nfe == one.nfe
    torch.testing.assert_close(parts, one, rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match=f"{one.nfe - 1 - (not isinstance(process, df.VE))} evaluations do not reach"):
        df.generate(process, model, (7, 2), solver="dormand-prince", nfe=one.nfe - 1, dtype=F64, seed=5)


def test_climbs_share_the_ceiling():
    process = df.EDM()
    path = df.restart(df.karras(process, 6), [(4, 2, 0.3, 3.0)])
    model = df.Normal(process, 0.0, 0.5)
    x = df.generate(process, model, (3, 2), solver="dormand-prince", grid=path, dtype=F64)
    assert x.nfe < 1000
    route = df.plan(process, solver="dormand-prince", grid=path, nfe=600)
    assert route.nfe <= 600
    assert df.plan(process, solver="dormand-prince", nfe=300).nfe == 300
    assert len(df.plan(process, solver="dormand-prince", nfe=300).path) == 2


def test_stops_on_the_way_do_not_change_the_end():
    """The states at the points of a grid are on the path, and the step's length and last velocity are carried over."""
    process = df.EDM()
    field = df.Reverse(process, df.Normal(process, 0.4, 0.6))
    path = df.geometric(process, 9, high=5.0, low=0.05)[:-1]
    x = start(process, 4, path[0])
    spread = lambda u: (u**2 + 0.36).sqrt()
    for t, state in df.integrate(field, x, path, DormandPrince(1e-9, 1e-9), seeded(0)):
        exact = 0.4 + (x - 0.4) * spread(t) / spread(path[0])
        torch.testing.assert_close(state, exact, rtol=0, atol=1e-7)
    up = df.sample(field, state, path.flip(0), DormandPrince(1e-9, 1e-9), seeded(0))
    torch.testing.assert_close(up, x, rtol=0, atol=1e-6)


def test_gradients_flow_where_they_are_enabled():
    process = df.EDM()
    x = start(process, 2, torch.tensor(5.0)).requires_grad_()
    path = torch.tensor([5.0, 0.5], dtype=F64)
    *_, (_, last) = df.integrate(df.Reverse(process, df.Normal(process, 0.0, 0.5)), x, path, DormandPrince(), seeded(0))
    (slope,) = torch.autograd.grad(last.sum(), x)
    torch.testing.assert_close(slope, torch.full_like(x, math.sqrt(0.5 / 25.25)), rtol=1e-4, atol=0)


def test_float32_is_kept():
    process = df.EDM()
    x = df.generate(process, df.Normal(process, 0.0, 0.5), (4, 2), solver="dormand-prince")
    assert x.dtype == torch.float32
    exact = df.generate(process, df.Normal(process, 0.0, 0.5), (4, 2), solver="dormand-prince", dtype=F64)
    assert x.shape == exact.shape
    with pytest.raises(ValueError, match=r"rtol=1e-08 is finer than torch.float32 can tell; use at least 1.2e-06"):
        df.generate(process, df.Normal(process, 0.0, 0.5), (4, 2), solver=DormandPrince(1e-8, 1e-8))


def test_mistakes_earn_a_sentence():
    for bad in ({"rtol": -1.0}, {"atol": 0.0}, {"rtol": math.nan}, {"atol": math.inf}):
        with pytest.raises(ValueError, match="rtol >= 0 and atol > 0"):
            DormandPrince(**bad)
    with pytest.raises(ValueError, match="needs 8 evaluations for its first step"):
        df.generate(df.EDM(), df.Point(torch.zeros(2)), (1, 2), solver="dormand-prince", nfe=5)
    path, x = torch.tensor([1.0, 0.1], dtype=F64), torch.zeros(3, 2, dtype=F64)
    with pytest.raises(FloatingPointError, match="not finite in row 0 at time 1"):
        df.sample(Line(lambda t: t * math.nan), x, path, DormandPrince(), seeded(0))
    with pytest.raises(FloatingPointError, match="no step is short enough for row 0 at time 0"):
        df.sample(Line(lambda t: torch.where(t > 0.5, 1.0, math.nan)), x, path, DormandPrince(), seeded(0))
    with pytest.raises(TypeError, match="Line is not made of"):
        df.sample(Line(torch.ones_like), x, torch.tensor([1.0, 0.0], dtype=F64), DormandPrince(), seeded(0))
    many = normal(torch.empty(5, 2, dtype=F64), seeded(0))
    field = df.Reverse(df.EDM(), df.Normal(df.EDM(), 0.0, 0.1))
    message = r"20 evaluations do not reach time 0.1 .* 5 of 5 rows are on their way, row 0 at time 0\.\d+; allow more"
    with pytest.raises(ValueError, match=message):
        df.sample(field, many, path, DormandPrince(1e-9, 1e-9, most=20), seeded(0))
