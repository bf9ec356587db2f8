"""Solvers: measured orders, closed forms, counted evaluations, and one law under two clocks."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import driftfield as df
from driftfield.grid import GRIDS
from driftfield.rng import normal, rows, seeded
from driftfield.solve.base import cost, moves
from driftfield.solve.named import SOLVERS

SOLVERS = {name: by for name, by in SOLVERS.items() if not by().adaptive}  # those have test_adaptive.py
F64 = torch.float64
GAUSSIAN = [df.EDM(), df.VP(), df.SubVP(), df.VE(), df.Rectified()]
name = lambda v: type(v).__name__


def mixture(process):
    weights = torch.tensor([0.3, 0.7], dtype=F64)
    means = torch.tensor([[1.0, -0.5], [-0.8, 0.6]], dtype=F64)
    covariances = torch.stack((0.2 * torch.eye(2, dtype=F64), torch.tensor([[0.3, 0.1], [0.1, 0.15]], dtype=F64)))
    return df.Mixture(process, weights, means, covariances)


def ends(process):
    """A top with signal left, and a low end where every field is smooth: level 0.05 (higher for VE's clock)."""
    return 5.0, 0.05


class Counted:
    """A denoiser that counts its calls."""

    def __init__(self, inner):
        self.inner, self.calls = inner, 0

    def __call__(self, x, t, cond=None):
        self.calls += 1
        return self.inner(x, t, cond)


@pytest.mark.parametrize(("solver", "order", "margin"), [(df.Euler(), 1, 0.1), (df.Heun(), 2, 0.1), (df.RK4(), 4, 0.2)])
@pytest.mark.parametrize("process", [df.EDM(), df.VP(), df.Rectified(), df.PFGMPP(D=4.0), df.PFGMPP(D=128.0)], ids=str)
def test_global_order_on_a_mixture(process, solver, order, margin):
    """Error at level 0.05 against a fine RK4 solution, on grids refined twice; the last ratio gives the order."""
    field = df.Reverse(process, mixture(process))
    high, low = ends(process)
    build = lambda n: df.geometric(process, n + 1, high=high, low=low)[:-1]
    x = process.perturb(torch.zeros(6, 2, dtype=F64), build(2)[0], rows(0, 0, 6))
    fine = df.sample(field, x, build(1600), df.RK4(), seeded(0))
    counts = (160, 320) if order < 4 else (60, 120)
    errors = [(df.sample(field, x, build(n), solver, seeded(0)) - fine).norm().item() for n in counts]
    assert errors[1] > 1e-11  # above rounding, so that the ratio means something
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=margin)


@pytest.mark.parametrize("process", GAUSSIAN, ids=name)
def test_gaussian_data_have_a_closed_form(process):
    """For `N(m, s^2)` the flow keeps quantiles: `(x_t - alpha_t m) / sqrt(sigma_t^2 + alpha_t^2 s^2)` is conserved."""
    m, s = 0.4, 0.6
    t = df.geometric(process, 401, high=5.0, low=0.05)[:-1]
    x = process.perturb(torch.zeros(5, 3, dtype=F64), t[0], rows(1, 0, 5))
    spread = lambda u: (process.sigma(u).square() + (process.alpha(u) * s).square()).sqrt()
    z = (x - process.alpha(t[0]) * m) / spread(t[0])
    exact = process.alpha(t[-1]) * m + spread(t[-1]) * z
    field = df.Reverse(process, df.Normal(process, m, s))
    torch.testing.assert_close(df.sample(field, x, t, df.RK4(), seeded(0)), exact, rtol=0, atol=1e-7)


def test_sample_moments_are_the_solvers_own():
    """Heun on 18 EDM points is linear on Gaussian data, and enlarges the deviation: the samples show just that."""
    process, s, n = df.EDM(), 0.7, 20_000
    grid = df.karras(process, 18)
    denoiser = df.Normal(process, 0.0, s)
    drawn = df.generate(process, denoiser, (n, 2), solver="heun", grid=grid, dtype=F64, seed=3)
    factor = df.sample(df.Reverse(process, denoiser), torch.ones(1, 2, dtype=F64), grid, df.Heun(), seeded(0))[0, 0]
    sd = (factor * 80.0).item()
    s2, alone = s * s, 80.0  # the same recursion on one number: v = x t / (s^2 + t^2)
    for t, u in pairwise(grid.tolist()):
        v = alone * t / (s2 + t * t)
        ahead = alone + (u - t) * v
        alone = ahead if u == 0 else alone + (u - t) / 2 * (v + ahead * u / (s2 + u * u))
    assert sd == pytest.approx(alone, rel=1e-12)
    assert 1.04 < sd / s < 1.06  # too wide by 5 %: a property of 18 steps of Heun, not of the code
    covariance = drawn.T.cov()
    mean_error, var_error = sd / n**0.5, sd**2 * (2 / n) ** 0.5
    assert drawn.mean(0).abs().max() < 5 * mean_error
    assert (covariance.diagonal() - sd**2).abs().max() < 5 * var_error
    assert covariance[0, 1].abs() < 5 * sd**2 / n**0.5


def test_vp_and_edm_agree_after_the_change_of_variables():
    """One mixture, one solution, two clocks and two scalings: equal to 1e-8 on fine grids."""
    vp, edm = df.VP(), df.EDM()
    levels = df.geometric(edm, 3001, high=10.0, low=0.05)[:-1]
    x = edm.perturb(torch.zeros(8, 2, dtype=F64), levels[0], rows(2, 0, 8))
    there = df.sample(df.Reverse(edm, mixture(edm)), x, levels, df.RK4(), seeded(0))
    times = vp.time(levels)
    other = df.sample(df.Reverse(vp, mixture(vp)), vp.alpha(times[0]) * x, times, df.RK4(), seeded(0))
    torch.testing.assert_close(other / vp.alpha(times[-1]), there, rtol=0, atol=1e-8)


LEVELS = ("rho1", "rho2", "rho3", "rho4", "dpm2", "dpm3", "gddim-pc")  # need a finite level at the top


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("process", [*GAUSSIAN, df.PFGMPP(D=2.0)], ids=name)
@pytest.mark.parametrize("nfe", [1, 2, 5, 20, 33])
def test_counted_evaluations_keep_the_budget(process, solver, nfe):
    """Never more than asked, exactly what is reported, and no longer path would have fitted."""
    counted = Counted(df.Point(torch.tensor([0.3, -0.2])))
    per_step = {"heun": 2, "rk4": 4, "rho2": 2, "rho3": 3, "rho4": 4, "dpm2": 2, "dpm3": 3, "gddim-pc": 2}.get(
        solver, 1
    )
    if isinstance(process, df.PFGMPP) and solver in ("reverse-sde", "ancestral") and nfe > 5:
        return  # a table of the noise for every step: seconds, and nothing new
    if isinstance(process, df.Rectified) and solver in LEVELS:
        with pytest.raises(ValueError, match="keeps no signal"):
            df.generate(process, counted, (3, 2), solver=solver, nfe=max(nfe, 5))
        return
    if isinstance(process, df.VE) and nfe < per_step and solver != "gddim-pc":  # it has no step to 0, which costs one
        with pytest.raises(ValueError, match=f"costs {per_step} evaluations, more than nfe={nfe}"):
            df.generate(process, counted, (3, 2), solver=solver, nfe=nfe)
        return
    drawn = df.generate(process, counted, (3, 2), solver=solver, nfe=nfe)
    assert counted.calls == drawn.nfe <= nfe
    assert nfe - drawn.nfe < per_step


@pytest.mark.parametrize(
    "path",
    [
        lambda p, n, **k: df.restart(GRIDS["natural"](p, n + 4, **k), [(3, 2, 0.2, 1.0)], process=p),
        lambda p, n, **k: df.churn(GRIDS["natural"](p, n, **k), 5.0, process=p),
    ],
    ids=["restart", "churn"],
)
@pytest.mark.parametrize("process", [df.EDM(), df.VP(), df.PFGMPP(D=8.0), df.Rectified()], ids=name)
def test_paths_that_climb_keep_the_budget(process, path):
    for solver in SOLVERS:
        if isinstance(process, df.Rectified) and solver in LEVELS:
            continue
        if isinstance(process, df.PFGMPP) and solver in ("reverse-sde", "ancestral"):
            continue
        counted = Counted(df.Point(torch.tensor([0.3, -0.2])))
        drawn = df.generate(process, counted, (3, 2), solver=solver, nfe=40, grid=path)
        assert counted.calls == drawn.nfe <= 40
        assert bool(drawn.isfinite().all())


@pytest.mark.parametrize("solver", [df.Euler(), df.Heun(), df.RK4()], ids=name)
def test_one_datum_is_recovered_exactly(solver):
    """spec/pfgmpp.md 8.5: with alpha = 1 every method is exact for one datum, whatever the number of steps."""
    datum = torch.tensor([0.3, -1.7, 2.0], dtype=F64)
    for process in (df.EDM(), df.PFGMPP(D=1.0), df.PFGMPP(D=64.0), df.PFGM()):
        for steps in (1, 2, 9):
            drawn = df.generate(
                process, df.Point(datum), (5, 3), solver=solver, grid=df.karras(process, steps), dtype=F64
            )
            torch.testing.assert_close(drawn, datum.expand(5, 3), rtol=0, atol=1e-9)


def test_heun_is_edms():
    """Algorithm 1 of Karras et al. written out, on the same grid and start."""
    process, denoiser = df.EDM(), mixture(df.EDM())
    grid = df.karras(process, 18)
    x = z = process.prior((4, 2), rows(0, 0, 4), F64)
    for t, s in pairwise(grid):
        d = (z - denoiser(z, t)) / t
        ahead = z + (s - t) * d
        z = ahead if s == 0 else z + (s - t) * (d + (ahead - denoiser(ahead, s)) / s) / 2
    torch.testing.assert_close(
        df.sample(df.Reverse(process, denoiser), x, grid, df.Heun(), seeded(0)), z, rtol=0, atol=1e-11
    )


def test_restart_of_no_times_is_the_plain_path():
    grid = df.karras(df.EDM(), 18)
    assert torch.equal(df.restart(grid, [(3, 0, 0.1, 0.5)]), grid)


@pytest.mark.parametrize("process", [df.EDM(), df.VP(), df.PFGMPP(D=4.0)], ids=str)
def test_restart_leaves_the_exact_marginal_alone(process):
    """Exact start at level 0.5, climb to 2 and back by a fine RK4: the law of the state is unchanged (KS, 1e-3)."""
    from scipy import stats

    model = mixture(process)
    low = process.time(torch.tensor(0.5, dtype=F64))
    path = torch.cat((low[None], df.geometric(process, 31, high=2.0, low=0.5)[:-2], low[None]))
    start = lambda seed: process.perturb(model.sample(4000, seeded(seed)), low, seeded(seed + 1))
    field = df.Reverse(process, model)
    moved = df.sample(field, start(10), path, df.RK4(), seeded(12))
    fresh = start(20)
    for axis in range(2):
        assert stats.ks_2samp(moved[:, axis].numpy(), fresh[:, axis].numpy()).pvalue > 1e-3


def test_again_solves_between_a_climb_and_its_return():
    grid = df.restart(df.karras(df.EDM(), 6), [(4, 2, 0.3, 3.0)])
    inside = [move for move in moves(grid, df.Euler(), df.RK4()) if isinstance(move.by, df.RK4)]
    assert len(inside) == 6
    assert cost(grid, df.Euler(), df.RK4()) == 6 + 6 * 4


def test_a_path_that_ends_higher_encodes_and_adds_no_noise():
    """Down, up again: encode inverts decode."""
    process = df.EDM()
    grid = df.geometric(process, 601, high=10.0, low=0.05)[:-1]
    field = df.Reverse(process, mixture(process))
    x = process.perturb(torch.zeros(4, 2, dtype=F64), grid[0], rows(3, 0, 4))
    down = df.sample(field, x, grid, df.RK4(), seeded(0))
    torch.testing.assert_close(df.sample(field, down, grid.flip(0), df.RK4(), seeded(0)), x, rtol=0, atol=1e-6)


def test_a_closed_path_adds_noise():
    """`[t, T, t]` is a climb and a return; the two climbs of `[t, T, t, T, t]` likewise. Only ending above encodes."""
    low, high = 0.5, 2.0
    kinds = lambda *path: [move.by is None for move in moves(torch.tensor(path), df.Euler())]
    assert kinds(low, high, low) == [True, False]
    assert kinds(low, high, low, high, low) == [True, False, True, False]
    assert kinds(low, high, 1.0) == [False, False]
    inner = [move.by for move in moves(torch.tensor([low, high, low]), df.Euler(), df.RK4())]
    assert inner == [None, df.RK4()]


def test_no_noise_is_left_at_time_0_or_the_path_does_not_end_there():
    process = df.VE()
    field = df.Reverse(process, df.Point(torch.zeros(2)))
    for solver in SOLVERS.values():
        with pytest.raises(ValueError, match=r"VE carries noise at time 0.*span\[0\]=1e-05"):
            df.sample(field, torch.zeros(1, 2), torch.tensor([1.0, 0.5, 0.0], dtype=F64), solver(), seeded(0))
    for process in (df.EDM(), df.VP(), df.SubVP(), df.Rectified(), df.PFGMPP(D=2.0), df.PFGM()):
        x = df.Reverse(process, df.Point(torch.full((2,), 3.0))).arrive(torch.zeros(1, 2), torch.tensor(0.1))
        assert torch.equal(x, torch.full((1, 2), 3.0))


def test_integrate_yields_every_point_and_lets_gradients_through():
    process = df.EDM()
    grid = df.karras(process, 5)
    x = normal(torch.empty(2, 3), seeded(0)).requires_grad_()
    seen = list(df.integrate(df.Reverse(process, df.Normal(process, 0.0, 1.0)), x, grid, df.Heun(), seeded(0)))
    assert [t.item() for t, _ in seen] == grid.tolist()
    (gradient,) = torch.autograd.grad(seen[-1][1].sum(), x)
    assert bool(gradient.isfinite().all())
    assert not df.sample(df.Reverse(process, df.Normal(process, 0.0, 1.0)), x, grid, df.Heun(), seeded(0)).requires_grad


def test_bad_paths_are_refused():
    field = df.Reverse(df.EDM(), df.Point(torch.zeros(2)))
    for path, message in (
        (torch.ones(1), "two times or more"),
        (torch.tensor([2.0, 1.0, 1.0]), "repeats a time"),
        (torch.tensor([2.0, 1.0, -1.0]), "finite times >= 0 and begins above 0, got 2, 1, -1"),
        (torch.tensor([2.0, math.nan, 0.0]), "finite times >= 0"),
        (torch.tensor([0.0, 1.0, 2.0]), "begins above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            df.sample(field, torch.zeros(1, 2), path, df.Heun(), seeded(0))


@pytest.mark.parametrize("points", [1, 2])
@pytest.mark.parametrize("D", [0.7, 2.0, 4.0, 128.0, math.inf])
def test_prior_flows_to_points_with_the_right_split(D, points):
    """One point: all of it. Two points, at +-1 with masses 1/4 and 3/4: a binomial count, within 4 deviations.

    The prior is that of one charge at 0, which at level 80 shifts a share by less than 0.0025. Its tail is heavy: a
    draw at radius R is still R low / 80 from the data at the level `low`, so at small D the path goes far down.
    """
    low, n = 1e-9 if D < 1 else 1e-5 if D < 100 else 0.002, 4000
    process = df.PFGMPP(D=D, span=(low, 80.0))
    data = torch.tensor([[0.5, 0.5]], dtype=F64)
    if points == 2:
        data = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]], dtype=F64)
    grid = df.geometric(process, 120) if D < 100 else df.karras(process, 40)
    told = {"solver": "heun", "grid": grid, "dtype": F64}
    drawn = df.generate(process, df.Empirical(process, data), (n, 2), seed=1, batch=n, **told)
    start = process.prior((n, 2), rows(1, 0, n), F64)
    settled = start.norm(dim=1) * low / 80 < 0.01
    assert settled.double().mean() > 0.998
    assert torch.cdist(drawn[settled], data).min(1).values.max() < 1e-3
    if points == 2:
        share = (drawn[:, 0] > 0).double().mean().item()
        assert abs(share - 0.25) < 4 * (0.25 * 0.75 / n) ** 0.5 + 0.0025
