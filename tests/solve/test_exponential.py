"""Exponential integrators: published coefficients, exact cases, measured orders and the solvers they contain."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
import torch

import driftfield as df
from driftfield.field.base import Field
from driftfield.rng import rows, seeded
from driftfield.solve.coefficients import basis, coefficients, panels, slopes

from .test_rk import mixture

F64 = torch.float64
VP = df.VP()
POWER = [((1 - i / 5) + i / 5 * 1e-3**0.5) ** 2 for i in range(6)]  # the quadratic grid of five steps
SCALARS = [df.VP(), df.EDM(), df.PFGMPP(D=4.0), df.PFGMPP(D=128.0)]


def numbers(maps):
    return [m.a.item() for m in maps]


def quadratic(n):
    return torch.tensor([((1 - i / n) + i / n * 1e-3**0.5) ** 2 for i in range(n + 1)], dtype=F64)


def test_published_coefficients():
    """spec/deis.md 8.3 and 8.4: degree 3 in time on the quadratic grid, newest first; and two steps in the level."""
    expected = [
        (17.984750617081, [-16.991371074452]),
        (4.119922090348, [-4.106789692249, 0.889186125817]),
        (1.746415414633, [-1.514936823972, 0.673678769352, -0.157961083667]),
        (1.158029790524, [-0.697010605811, 0.385663191203, -0.146971528746, 0.022904665122]),
        (1.015418764879, [-0.226888235990, 0.081718137622, -0.024044127524, 0.003106290077]),
    ]
    for n, (psi, c) in enumerate(expected):
        nodes = tuple(POWER[n - k] for k in range(min(3, n) + 1))
        a, found = coefficients(VP, "noise", "t", nodes, POWER[n], POWER[n + 1])
        assert a.a.item() == pytest.approx(psi, abs=6e-13)
        assert numbers(found) == pytest.approx(c, abs=6e-13)
    for n, c in ((1, [-6.759846183288, 0.151863705910]), (2, [-1.284638785779, 0.109843244700, -0.000236030378])):
        nodes = tuple(POWER[n - k] for k in range(n + 1))
        _, found = coefficients(VP, "noise", "rho", nodes, POWER[n], POWER[n + 1])
        alpha = VP.alpha(torch.tensor(POWER[n + 1], dtype=F64)).item()
        assert [v / alpha for v in numbers(found)] == pytest.approx(c, abs=6e-13)


@pytest.mark.parametrize("process", [*SCALARS, df.VE(), df.SubVP(), df.Rectified()], ids=str)
@pytest.mark.parametrize("form", ["noise", "data"])
@pytest.mark.parametrize("clock", ["t", "rho", "log"])
def test_coefficients_of_any_degree_add_up_to_those_of_degree_0(process, form, clock):
    """The polynomials add up to 1: with all evaluations alike, the step is the first-order one."""
    levels = torch.tensor([9.0, 4.0, 1.5, 0.4, 0.1], dtype=F64)
    *nodes, s = process.time(levels).tolist()
    alpha, sigma = (curve(process.time(levels)).tolist() for curve in (process.alpha, process.sigma))
    a, c = coefficients(process, form, clock, tuple(reversed(nodes)), nodes[-1], s)
    ratio = alpha[-1] / alpha[-2] if form == "noise" else sigma[-1] / sigma[-2]
    assert a.a.item() == pytest.approx(ratio, rel=1e-13)
    rest = sigma[-1] - ratio * sigma[-2] if form == "noise" else alpha[-1] - ratio * alpha[-2]
    assert sum(numbers(c)) == pytest.approx(rest, rel=1e-12)


def test_quadrature_and_polynomials():
    """Panels integrate what is smooth in the logarithm over five decades and down to 0; `basis` interpolates."""
    x, w = panels(80.0, 1e-3)
    assert (w * np.log(x)).sum() == pytest.approx((math.log(1e-3) - 1) * 1e-3 - (math.log(80.0) - 1) * 80, rel=1e-14)
    x, w = panels(0.0, 2.0)
    assert (w * x**0.5).sum() == pytest.approx(2**1.5 / 1.5, rel=1e-14)
    nodes = (0.3, 1.1, 2.0, 2.7)
    at = np.array([0.5, 1.7])
    cubic = np.polynomial.Polynomial([1.0, -2.0, 0.5, 0.25])
    np.testing.assert_allclose(cubic(np.array(nodes)) @ basis(nodes, at), cubic(at), rtol=1e-13)
    np.testing.assert_allclose(cubic(np.array(nodes)) @ slopes(nodes, at), cubic.deriv()(at), rtol=1e-13)


@pytest.mark.parametrize("clock", ["t", "rho", "log"])
@pytest.mark.parametrize("form", ["noise", "data"])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_polynomials_are_integrated_exactly(clock, form, order):
    """An evaluation that is a polynomial in the clock, whatever the state: exact once the memory is full.

    This finds a history in the wrong order, which the sum of the coefficients does not.
    """
    process = df.EDM()
    grid = torch.linspace(3.0, 0.5, 9, dtype=F64)
    tick = {"t": lambda t: t, "rho": lambda t: t, "log": torch.log}[clock]
    value = lambda t: sum((0.3 + k) * tick(t) ** k for k in range(order))  # of degree order - 1

    def denoiser(x, t, cond=None):
        return torch.full_like(x, value(t)) if form == "data" else x - t * value(t)

    field = df.Reverse(process, denoiser)
    solver = df.Exponential(order, form, clock)
    x, state = torch.zeros(1, 1, dtype=F64), solver.init()
    for k, (t, s) in enumerate(pairwise(grid)):
        ahead, state = solver.step(field, x, t, s, state, None)
        u, w = np.polynomial.legendre.leggauss(40)
        u = torch.from_numpy((t.item() + s.item()) / 2 + (s.item() - t.item()) / 2 * u)
        w = torch.from_numpy((s.item() - t.item()) / 2 * w)
        noise, data = (w * value(u)).sum(), (w * value(u) / u**2).sum()  # of dx = eps dt and d(x / t) = y d(1 / t)
        exact = x + noise if form == "noise" else s * (x / t - data)
        if k >= order - 1:
            torch.testing.assert_close(ahead, exact, rtol=0, atol=1e-12)
        x = exact


DENSE = 1600


@lru_cache
def truth(process):
    """A mixture's field, a geometric path from level 5 to 0.05 of 1600 steps, and the states along it by RK4."""
    field = df.Reverse(process, mixture(process))
    grid = df.geometric(process, DENSE + 1, high=5.0, low=0.05)[:-1]
    x = process.perturb(torch.zeros(3, 2, dtype=F64), grid[0], rows(0, 0, 3))
    with torch.no_grad():
        return field, grid, [state for _, state in df.integrate(field, x, grid, df.RK4(), seeded(0))]


def error(process, n, solver, exact_start):
    """The error of `n` steps, begun with exact states while the memory fills, or by the solver alone."""
    field, grid, states = truth(process)
    grid, states = grid[:: DENSE // n], states[:: DENSE // n]
    x, state = states[0], solver.init()
    with torch.no_grad():
        for k in range(n):
            x = states[k] if exact_start and k < solver.order else x
            x, state = solver.step(field, x, grid[k], grid[k + 1], state, None)
    return (x - states[-1]).norm().item()


def measured(process, solver, counts, exact_start=False):
    errors = [error(process, n, solver, exact_start) for n in counts]
    assert errors[-1] > 1e-11  # above rounding, so that the ratios mean something
    return [math.log2(a / b) for a, b in pairwise(errors)]


@pytest.mark.slow
@pytest.mark.parametrize("process", SCALARS, ids=str)
@pytest.mark.parametrize("clock", ["t", "rho", "log"])
@pytest.mark.parametrize("form", ["noise", "data"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_global_order(process, clock, form, order):
    """The ratio of the finest errors; above order 2 with exact states until the memory is full (see the next test)."""
    counts = (50, 100) if order < 3 else (100, 200) if order < 4 else (200, 400)
    found = measured(process, df.Exponential(order, form, clock), counts, exact_start=order > 2)
    assert found[-1] == pytest.approx(order, abs=0.15), found


@pytest.mark.parametrize("process", [df.VP(), df.EDM()], ids=str)
@pytest.mark.parametrize("solver", [df.DEIS(3), df.DEIS(4), df.DPMSolverPP(3), df.IPNDM()], ids=str)
def test_order_of_a_path_that_begins_with_few(process, solver):
    """The first steps, of lower order, leave an error of second order."""
    found = measured(process, solver, (100, 200))
    assert found[-1] > (1.9 if not isinstance(solver, df.IPNDM) else 0.9), found


@pytest.mark.slow
@pytest.mark.parametrize("process", SCALARS, ids=str)
@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (df.RhoRK(1), 1),
        (df.RhoRK(2), 2),
        (df.RhoRK(3), 3),
        (df.RhoRK(4), 4),
        (df.DPMSolver(1), 1),
        (df.DPMSolver(2), 2),
        (df.DPMSolver(3), 3),
        (df.UniPC(1), 2),
        (df.UniPC(2), 3),
        (df.Exponential(2, "noise", "log", "reuse"), 3),
        (df.GDDIM(1, corrector=True), 1),
        (df.GDDIM(2, corrector=True), 2),
        (df.GDDIM(3, corrector=True), 3),
    ],
    ids=str,
)
def test_order_of_one_step_methods_and_correctors(process, solver, order):
    """A corrector that reuses the next evaluation is of one order more than it remembers (UniPC)."""
    counts = (25, 50) if order > 2 and isinstance(solver, (df.RhoRK, df.DPMSolver)) else (100, 200)
    found = measured(process, solver, counts, exact_start=isinstance(solver, df.Exponential))
    assert found[-1] == pytest.approx(order, abs=0.2), found


def test_the_published_example():
    """spec/deis.md 8.5: data N(0, 1/4), x_T = 1, five and ten quadratic steps."""
    field = df.Reverse(VP, df.Normal(VP, 0.0, 0.5))
    expected = {
        5: [
            (df.DDIM(), 0.362399045937),
            (df.DEIS(2), 0.415368635623),
            (df.DEIS(3), 0.437467063470),
            (df.DEIS(4), 0.446488878183),
            (df.DEIS(2, "rho"), 0.396736507175),
            (df.DEIS(3, "rho"), 0.403653001371),
            (df.DEIS(4, "rho"), 0.404547471840),
            (df.RhoRK(2), 0.646376921868),
            (df.RhoRK(3), 0.506144264322),
            (df.RhoRK(4), 0.515050311283),
        ],
        10: [
            (df.DDIM(), 0.425978703089),
            (df.DEIS(2), 0.471266115683),
            (df.DEIS(3), 0.486098990437),
            (df.DEIS(4), 0.492294668266),
            (df.DEIS(2, "rho"), 0.463898381374),
            (df.DEIS(3, "rho"), 0.474782087434),
            (df.DEIS(4, "rho"), 0.478580953812),
            (df.RhoRK(2), 0.526563514078),
            (df.RhoRK(3), 0.499683497064),
            (df.RhoRK(4), 0.500936583154),
        ],
    }
    for n, cases in expected.items():
        for solver, value in cases:
            x = df.sample(field, torch.ones(1, 1, dtype=F64), quadratic(n), solver, seeded(0))
            assert x.item() == pytest.approx(value, abs=1e-12), (n, solver)


EXPONENTIAL = [
    *(
        df.Exponential(o, f, c, k)
        for o in (1, 2, 4)
        for f in ("noise", "data")
        for c in ("t", "log")
        for k in ("", "reuse")
    ),
    df.GDDIM(3, corrector=True),
    df.IPNDM(),
    df.RhoRK(3),
    df.DPMSolver(2),
    df.DPMSolver(3),
]


@pytest.mark.parametrize("solver", EXPONENTIAL, ids=str)
@pytest.mark.parametrize("process", [*SCALARS, df.VE(), df.SubVP()], ids=str)
def test_one_point_is_reached_from_anywhere(process, solver):
    """Data that are one point: noise and estimate are constant along the flow, so every step is exact."""
    point = torch.tensor([[0.3, -0.2]], dtype=F64)
    field = df.Reverse(process, df.Point(point[0]))
    for levels in ([30.0, 0.1], [30.0, 3.0, 0.5, 0.1], [9.0, 2.0, 0.0]):
        if levels[-1] == 0 and isinstance(process, df.VE):  # carries noise at time 0
            continue
        grid = process.time(torch.tensor(levels, dtype=F64))
        eps = torch.tensor([[1.5, -0.7]], dtype=F64)
        x = process.alpha(grid[0]) * point + process.sigma(grid[0]) * eps
        end = process.alpha(grid[-1]) * point + process.sigma(grid[-1]) * eps
        torch.testing.assert_close(df.sample(field, x, grid, solver, seeded(0)), end, rtol=0, atol=1e-11)


@pytest.mark.parametrize("process", SCALARS, ids=str)
def test_first_order_is_ddim_whatever_the_form_and_clock(process):
    field = df.Reverse(process, mixture(process))
    grid = df.karras(process, 7)
    x = process.perturb(torch.zeros(4, 2, dtype=F64), grid[0], rows(4, 0, 4))
    expected = x
    for t, s in pairwise(grid):
        y = field.predict(expected, t)
        eps = (expected - process.alpha(t) * y) / process.sigma(t)
        expected = process.alpha(s) * y + process.sigma(s) * eps
    same = [df.Exponential(1, form, clock) for form in ("noise", "data") for clock in ("t", "rho", "log")]
    for solver in (*same, df.DDIM(), df.RhoRK(1), df.DPMSolver(1), df.IPNDM(1)):
        torch.testing.assert_close(df.sample(field, x, grid, solver, seeded(0)), expected, rtol=1e-12, atol=1e-12)


def test_equal_methods_under_other_names():
    """rho2 is EDM's Heun and DPM-Solver-2 with r1 = 1; iPNDM is DEIS in the level where the levels are even."""
    process = df.EDM()
    field = df.Reverse(process, mixture(process))
    x = process.perturb(torch.zeros(4, 2, dtype=F64), torch.tensor(80.0, dtype=F64), rows(5, 0, 4))
    run = lambda solver, grid: df.sample(field, x, grid, solver, seeded(0))
    grid = df.karras(process, 9)
    for other in (df.RhoRK(2), df.DPMSolver(2, r1=1.0)):
        torch.testing.assert_close(run(other, grid), run(df.Heun(), grid), rtol=1e-12, atol=1e-12)
    even = torch.linspace(80, 0.5, 30, dtype=F64)
    torch.testing.assert_close(run(df.IPNDM(4), even), run(df.DEIS(4, "rho"), even), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(run(df.IPNDM(2), even), run(df.DEIS(2, "rho"), even), rtol=1e-12, atol=1e-12)


def test_vp_and_edm_take_the_same_steps_in_the_level():
    """`x / alpha` moves alike on every process at equal levels, in the clocks that know levels alone."""
    vp, edm = df.VP(), df.EDM()
    levels = df.karras(edm, 9, high=60.0)[:-1]
    x = edm.perturb(torch.zeros(4, 2, dtype=F64), levels[0], rows(6, 0, 4))
    times = vp.time(levels)
    for solver in (df.DEIS(3, "rho"), df.DPMSolverPP(3), df.UniPC(2), df.RhoRK(4), df.DPMSolver(3)):
        there = df.sample(df.Reverse(edm, mixture(edm)), x, levels, solver, seeded(0))
        here = df.sample(df.Reverse(vp, mixture(vp)), vp.alpha(times[0]) * x, times, solver, seeded(0))
        torch.testing.assert_close(here / vp.alpha(times[-1]), there, rtol=0, atol=1e-9)


@pytest.mark.parametrize("solver", [df.DEIS(), df.DPMSolverPP(3), df.UniPC(), df.IPNDM(), df.GDDIM(2, True)], ids=str)
def test_a_climb_forgets(solver):
    """After a climb a path goes on as one that begins there: nothing below it is remembered."""
    process = df.EDM()
    field = df.Reverse(process, mixture(process))
    path = torch.tensor([80.0, 20.0, 5.0, 1.0, 10.0, 3.0, 0.5], dtype=F64)
    x = process.perturb(torch.zeros(4, 2, dtype=F64), path[0], rows(7, 0, 4))
    states = [s for _, s in df.integrate(field, x, path, solver, rows(8, 0, 4))]
    alone = df.sample(field, states[4], path[4:], solver, seeded(0))
    torch.testing.assert_close(states[-1], alone, rtol=0, atol=0)


def test_where_no_signal_is_left():
    """The straight path begins at an infinite level: the first step is the same in both forms, levels alone refuse."""
    process = df.Rectified()
    field = df.Reverse(process, mixture(process))
    x = torch.tensor([[0.4, -1.0]], dtype=F64)
    grid = df.uniform(process, 40)
    fine = df.sample(field, x, torch.linspace(1, 0.02, 2001, dtype=F64), df.RK4(), seeded(0))
    low = torch.cat((grid[grid > 0.03], torch.tensor([0.02], dtype=F64)))
    for solver in (df.DEIS(3), df.DPMSolverPP(2), df.Exponential(2, "data", "t"), df.IPNDM(), df.UniPC()):
        assert (df.sample(field, x, low, solver, seeded(0)) - fine).norm() < 0.05, solver
    for solver in (df.RhoRK(2), df.DPMSolver(2)):
        with pytest.raises(ValueError, match="keeps no signal at time 1, so its level is infinite"):
            df.sample(field, x, low, solver, seeded(0))


def test_a_process_that_may_change_is_asked_again():
    """What is found for a frozen value is kept; a process of another kind may have changed since."""

    class Faster(df.EDM):
        factor = 1.0

        def sigma(self, t):
            return self.factor * t

        def slopes(self, t):
            return torch.zeros_like(t), torch.full_like(t, self.factor)

        def time(self, level):
            return level / self.factor

        __hash__ = object.__hash__

    Faster.__dataclass_params__ = None  # a plain class
    process = Faster()
    before = numbers(coefficients(process, "noise", "t", (2.0, 3.0), 2.0, 1.0)[1])
    Faster.factor = 2.0
    after = numbers(coefficients(process, "noise", "t", (2.0, 3.0), 2.0, 1.0)[1])
    assert after == pytest.approx([2 * v for v in before])
    listed = df.EDM(span=[0.002, 80.0])  # frozen, but not to be hashed
    assert len(coefficients(listed, "noise", "t", (2.0, 3.0), 2.0, 1.0)[1]) == 2


def test_what_there_is_not():
    with pytest.raises(ValueError, match="order is the number of evaluations remembered, 1 to 4, got 5"):
        df.Exponential(5)
    with pytest.raises(ValueError, match="unknown form 'score'"):
        df.Exponential(form="score")
    with pytest.raises(ValueError, match="unknown clock 'tau'"):
        df.Exponential(clock="tau")
    with pytest.raises(ValueError, match="r1 is a share of the step"):
        df.DPMSolver(3, r1=0.7)

    class Drift(Field):
        def velocity(self, x, t):
            return -x

        def diffuse(self, x, s, t, rng):
            return x

    with pytest.raises(TypeError, match="which Drift is not made of"):
        df.sample(Drift(), torch.ones(1, 1), torch.tensor([1.0, 0.5]), df.DEIS(), seeded(0))
