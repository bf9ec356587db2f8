"""Restart: the published costs, one Gaussian in closed form, marginals that stay, and what a wrong model does to it.

The numbers are those of the notes on Xu et al. 2023, which were found independently of this code.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats

import driftfield as df
from driftfield.process.poisson import PublishedJump
from driftfield.rng import integers, normal, rows, seeded
from driftfield.solve.base import cost
from driftfield.solve.named import SOLVERS, adaptive

F64 = torch.float64
FIXED = sorted(name for name in SOLVERS if not adaptive(name))
IMAGENET = [(19.35, 40.79), (1.09, 1.92), (0.59, 1.09), (0.30, 0.59), (0.06, 0.30)]


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=F64)


def descent(points: int, low: float, high: float) -> torch.Tensor:
    """The inner grid of a restart: so many points from `high` to `low`, both included."""
    return df.karras(df.EDM(), points, high=high, low=low)[:-1]


def imagenet(*loops: tuple[int, int]) -> list[tuple[int, int, float, float]]:
    return [(n, k, *level) for (n, k), level in zip(loops, IMAGENET, strict=True)]


def unit_gaussian(shift: float = 0.0):
    """The posterior mean of N(0, 1) data, or a model that is wrong by `shift` everywhere."""
    exact = df.Normal(df.EDM(), 0.0, 1.0)
    return lambda x, t, cond=None: exact(x, t) + shift


def mean_after(denoiser, path, start: float, solver) -> float:
    """Where the mean goes: the flow of one Gaussian is affine, so climbs without noise carry it exactly."""
    field = df.Reverse(df.EDM(), denoiser, s_noise=0.0)
    return df.sample(field, torch.full((1, 1), start, dtype=F64), path, solver, seeded(0)).item()


# Costs


@pytest.mark.parametrize(
    ("steps", "levels", "nfe"),
    [
        (20, [(9, 30, 0.06, 0.20)], 519),
        *((18, [(3, k, 0.06, 0.30)], nfe) for k, nfe in ((20, 115), (10, 75), (5, 55), (2, 43))),
        (18, [(3, 2, 0.14, 0.30)], 43),
        (36, imagenet((10, 3), (10, 3), (7, 6), (7, 6), (7, 25)), 623),
        (36, imagenet((6, 1), (6, 1), (7, 6), (7, 6), (7, 25)), 535),
        (36, imagenet((3, 1), (6, 1), (6, 5), (6, 5), (6, 20)), 385),
        (36, imagenet((4, 1), (4, 1), (4, 5), (4, 5), (6, 6)), 203),
        (18, imagenet((3, 1), (4, 1), (4, 5), (4, 5), (4, 10)), 165),
        (18, imagenet((3, 1), (4, 1), (4, 4), (4, 1), (4, 4)), 99),
        (18, [(5, 1, 19.35, 40.79), (5, 1, 1.09, 1.92), (5, 1, 0.59, 1.09), (5, 1, 0.06, 0.30)], 67),
        (14, [(3, 1, 19.35, 40.79), (3, 1, 1.09, 1.92), (3, 1, 0.06, 0.30)], 39),
    ],
)
def test_published_costs_with_heun(steps, levels, nfe):
    assert cost(df.restart(df.karras(df.EDM(), steps), levels), df.Heun()) == nfe


@pytest.mark.parametrize(("steps", "high", "published"), [(8, 0.30, 27), (7, 1.0, 24), (6, 1.0, 21), (5, 1.0, 18)])
def test_published_costs_with_dpm_solver(steps, high, published):
    """Theirs lowers the last step but one to order 2; ours does not, and so costs one evaluation more."""
    level = lambda t: math.sqrt(math.expm1(19.9 * t**2 / 2 + 0.1 * t))
    grid = df.karras(df.EDM(), steps, high=level(1.0), low=level(1e-3))
    assert (level(1.0), level(1e-3)) == pytest.approx((152.167, 0.0104860), rel=1e-5)
    path = df.restart(grid, [(3, 1, 0.06, high)])
    assert path[(path.diff() > 0).nonzero()[0]].item() == pytest.approx(level(1e-3))  # far from the 0.06 asked for
    assert cost(path, df.DPMSolver(3)) == published + 1


@pytest.mark.parametrize(
    ("levels", "steps"), [([(5, 2, 1, 9), (5, 2, 5, 10)], 62), ([(10, 2, 0.1, 3)], 66), ([(10, 2, 0.1, 2)], 66)]
)
def test_published_costs_with_another_solver_in_the_climb(levels, steps):
    """30 steps of DDIM and Heun inside the restarts, as for text to image (its table prints 66 for the first)."""
    assert cost(df.restart(df.karras(df.EDM(), 30), levels), df.DDIM(), df.Heun()) == steps


@pytest.mark.parametrize("process", [df.EDM(), df.VP(), df.PFGMPP(D=128)], ids=str)
@pytest.mark.parametrize("solver", FIXED)
def test_a_plan_never_spends_more_than_it_may(process, solver):
    spent = [df.plan_restart(process, nfe, solver=solver).nfe for nfe in range(4, 121)]
    assert all(used <= nfe for nfe, used in enumerate(spent, 4))
    assert all(b >= a for a, b in pairwise(spent))
    two = cost(df.karras(df.EDM(), 4)[:3], SOLVERS[solver]())  # at most a loop of two steps is left over
    assert all(nfe - used <= two for nfe, used in enumerate(spent, 4))


@pytest.mark.parametrize("solver", FIXED)
def test_a_small_plan_fits_or_says_what_it_would_cost(solver):
    for nfe in (1, 2, 3):
        least = cost(df.restarted(df.EDM(), 1), SOLVERS[solver]())
        if nfe < least:
            with pytest.raises(ValueError, match=f"costs {least} evaluations, more than nfe={nfe}"):
                df.plan_restart(df.EDM(), nfe, solver=solver)
        else:
            assert df.plan_restart(df.EDM(), nfe, solver=solver).nfe <= nfe


@pytest.mark.parametrize("again", [None, df.DDIM()], ids=["same", "ddim"])
def test_what_a_plan_says_is_what_is_spent(again):
    calls = 0

    def counted(x, t, cond=None):
        nonlocal calls
        calls += 1
        return 0 * x

    for nfe in (22, 43, 44, 77, 120):
        for solver in ("heun", "deis", "gddim-pc", "dpm3"):
            route, calls = df.plan_restart(df.EDM(), nfe, solver=solver, again=again), 0
            df.generate(df.EDM(), counted, (2, 1), solver=solver, grid=route.path, again=again, nfe=nfe)
            assert calls == route.nfe <= nfe
            assert sum(s > t for t, s in pairwise(route.path.tolist())) >= 1


def test_the_published_path_is_planned():
    expected = df.restart(df.karras(df.EDM(), 18), [(3, 2, 0.14, 0.30)])
    assert torch.equal(df.plan_restart(df.EDM(), 43).path, expected)


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ((3, 1, 100.0, 200.0), "low=100.0 meets an end of the grid"),
        ((3, 1, 1e-4, 0.3), "low=0.0001 meets an end of the grid"),
        ((3, 1, 0.3, 100.0), "high=100.0 is above 80, where the grid begins"),
        ((3, 1, 0.3, 0.296), "to a higher level, got 0.296"),
        ((3, 1, 0.3, math.nan), "to a higher level, got nan"),
    ],
)
def test_an_interval_outside_the_grid_is_refused(level, message):
    with pytest.raises(ValueError, match=message):
        df.restart(df.karras(df.EDM(), 18), [level])
    on_vp = df.restart(df.karras(df.VP(), 18), [(3, 1, 0.3, df.VP().level(number(1.0)).item())], process=df.VP())
    assert on_vp.max().item() == pytest.approx(1, rel=1e-12)  # the very top is inside


# Walks


@pytest.mark.parametrize("solver", [df.Heun(), df.DEIS(), df.UniPC()], ids=lambda s: str(s)[:40])
@pytest.mark.parametrize("levels", [[], [(3, 0, 0.14, 0.30)]], ids=["none", "K=0"])
def test_no_restarts_are_the_plain_walk_bit_for_bit(levels, solver):
    process, grid = df.EDM(), df.karras(df.EDM(), 12)
    field = df.Reverse(process, df.Empirical(process, normal(torch.empty(30, 2, dtype=F64), seeded(0))))
    x = process.prior((5, 2), rows(1, 0, 5), F64)
    walk = lambda path: df.sample(field, x, path, solver, rows(2, 0, 5))
    assert torch.equal(walk(df.restart(grid, levels)), walk(grid))


@pytest.mark.parametrize("inside", [df.Heun(), df.DEIS(), df.IPNDM()], ids=lambda s: type(s).__name__)
def test_another_solver_inside_the_climb_is_that_solver_alone(inside):
    """Cut at its ends, a restart is a walk of `again` by itself; the rest is the main solver, which begins afresh."""
    process = df.EDM()
    field = df.Reverse(process, df.Empirical(process, normal(torch.empty(30, 2, dtype=F64), seeded(3))))
    path = df.restart(df.karras(process, 8), [(4, 2, 0.3, 3.0)])
    up = (path.diff() > 0).nonzero()[:, 0].tolist()
    assert len(up) == 2
    x = process.prior((5, 2), rows(4, 0, 5), F64)
    states = [s for _, s in df.integrate(field, x, path, df.DPMSolverPP(), rows(5, 0, 5), inside)]
    for first, last, solver in (
        (0, up[0], df.DPMSolverPP()),
        (up[0] + 1, up[1], inside),
        (up[1] + 1, up[1] + 4, inside),
        (up[1] + 4, len(path) - 1, df.DPMSolverPP()),
    ):
        alone = df.sample(field, states[first], path[first : last + 1], solver, seeded(0))
        assert torch.equal(states[last], alone)


# One Gaussian: the flow is x <- c x


@pytest.mark.parametrize(("points", "gain"), [(3, 0.9598768), (5, 0.9596497), (9, 0.9595759), (20, 0.9595538)])
def test_gain_of_a_restart(points, gain):
    """`gain^(K + 1)` after K restarts, exactly: Heun's step is linear and noise has mean 0."""
    inner = descent(points, 0.06, 0.30)
    for times in (0, 1, 5):
        after = mean_after(unit_gaussian(), inner.repeat(times + 1), 1.0, df.Heun())
        assert after == pytest.approx(gain ** (times + 1), rel=1e-7 * (times + 1))


def test_stationary_variance_of_the_chain():
    """`V <- gain^2 (V + t_max^2 - t_min^2)`: 1.0123250 with three points of Heun, 1 + t_min^2 with the exact flow."""
    added = df.EDM().gain(number(0.30), number(0.06)).a.item() ** 2
    assert added == pytest.approx(0.09 - 0.0036, rel=1e-14)
    gain = mean_after(unit_gaussian(), descent(3, 0.06, 0.30), 1.0, df.Heun())
    assert gain**2 * added / (1 - gain**2) == pytest.approx(1.0123250, rel=1e-6)
    exact = mean_after(unit_gaussian(), descent(30, 0.06, 0.30), 1.0, df.RK4())
    assert exact**2 * added / (1 - exact**2) == pytest.approx(1.0036, rel=1e-7)


def test_noise_of_the_published_climb():
    """From the rounded 0.0599473 up to 0.30 the deviation is 0.293949."""
    path = df.restart(df.karras(df.EDM(), 18), [(3, 1, 0.06, 0.30)])
    at = int((path.diff() > 0).nonzero()[0])
    assert df.EDM().gain(path[at + 1], path[at]).a.item() == pytest.approx(0.293949, rel=1e-5)
    drawn = df.EDM().diffuse(torch.zeros(40_000, 1, dtype=F64), path[at], path[at + 1], seeded(6))
    assert drawn.std().item() == pytest.approx(0.293949, rel=4 / math.sqrt(2 * 40_000))


@pytest.mark.parametrize(("low", "high", "c"), [(0.06, 0.30, 0.9595488), (1.0, 1.5, 0.7844645)])
def test_three_samplers_forget_a_wrong_start_at_their_rates(low, high, c):
    """The flow keeps `c` of a wrong mean, the reverse process `c^2`, K restarts `c^(K + 1)`."""
    fine = descent(40, low, high)
    assert c == pytest.approx(math.sqrt((1 + low**2) / (1 + high**2)), rel=1e-6)
    assert mean_after(unit_gaussian(), fine, 1.0, df.RK4()) == pytest.approx(c, rel=1e-7)
    assert mean_after(unit_gaussian(), fine.repeat(8), 1.0, df.RK4()) == pytest.approx(c**8, rel=1e-6)
    coarse, finer = (mean_after(unit_gaussian(), descent(n, low, high), 1.0, df.ReverseSDE(1.0)) for n in (201, 401))
    assert 2 * finer - coarse == pytest.approx(c**2, rel=1e-5)  # of first order: extrapolated


def test_too_many_restarts_of_a_wrong_model_are_worse():
    """A model wrong by `b`: each pass is `x <- c x + delta`, so the best number of restarts is finite, and known."""
    low, high, b, start = 0.06, 0.30, 0.02, -1.0
    c = math.sqrt((1 + low**2) / (1 + high**2))
    delta = b * math.sqrt(1 + low**2) * (math.asinh(1 / low) - math.asinh(1 / high))
    assert delta / b == pytest.approx(1.5914171, rel=1e-6)
    fixed = delta / (1 - c)
    assert fixed / b == pytest.approx(39.34, rel=1e-3)
    field = df.Reverse(df.EDM(), unit_gaussian(b), s_noise=0.0)
    inner, most = descent(24, low, high), 60
    x = torch.full((1, 1), start, dtype=F64)
    walk = df.integrate(field, x, inner.repeat(most + 1), df.RK4(), seeded(0))
    means = [s.item() for t, s in walk if t == inner[-1]]
    closed = [c ** (k + 1) * (start - fixed) + fixed for k in range(most + 1)]
    assert means == pytest.approx(closed, abs=1e-6)
    best = min(range(most + 1), key=lambda k: abs(means[k]))
    zero = math.log(fixed / (fixed - start)) / math.log(c) - 1  # where the two errors cancel
    assert abs(best - zero) <= 0.5 + 1e-6
    assert 0 < best < most
    assert abs(means[-1]) > 10 * abs(means[best])


def test_the_published_grid_has_an_error_of_its_own():
    """18 steps of Heun from 80 on N(0, 1): deviation 1.044729, where the exact flow has 0.999922."""
    assert mean_after(unit_gaussian(), df.karras(df.EDM(), 18), 80.0, df.Heun()) == pytest.approx(1.044729, rel=1e-6)
    assert 80 / math.sqrt(1 + 80**2) == pytest.approx(0.999922, rel=1e-6)


@pytest.mark.parametrize(
    ("B", "low", "high", "overlap"), [(2, 1.0, 1.5, 0.371093), (2, 0.06, 0.30, 6.688e-4), (10, 1.0, 1.5, 7.744e-6)]
)
def test_climbs_from_two_points_overlap_as_the_theorem_says(B, low, high, overlap):
    """`2 Q(B / (2 deviation))`: the share of the two laws, at a distance `B`, that one climb makes the same."""
    deviation = df.EDM().gain(number(high), number(low)).a.item()
    assert 2 * stats.norm.sf(B / (2 * deviation)) == pytest.approx(overlap, rel=1e-3)
    n = 40_000
    ends = [
        df.EDM().diffuse(torch.full((n, 1), x, dtype=F64), number(low), number(high), seeded(7, k))
        for k, x in enumerate((-B / 2, B / 2))
    ]
    wrong = sum(int((sign * end > 0).sum()) for sign, end in zip((1, -1), ends, strict=True)) / n
    assert abs(wrong - overlap) < 4 * math.sqrt(overlap / n) + 4 / n  # a count of Poisson's kind


# The jump


@pytest.mark.parametrize("process", [df.VP(), df.SubVP(), df.Rectified()], ids=lambda p: type(p).__name__)
def test_climbs_in_other_coordinates_are_the_additive_one(process):
    """`x / alpha` moves as on EDM with the same draws; on VP it is the formula in cumulative products."""
    x = normal(torch.empty(50, 3, dtype=F64), seeded(8))
    for s, t in ((0.1, 0.5), (0.02, 0.9), (0.6, 0.61)):
        s, t = number(s), number(t)
        here = process.diffuse(x, s, t, seeded(9))
        there = df.EDM().diffuse(x / process.alpha(s), process.level(s), process.level(t), seeded(9))
        torch.testing.assert_close(here / process.alpha(t), there, rtol=1e-12, atol=1e-12)
        if isinstance(process, df.VP):
            ratio = process.alpha(t) ** 2 / process.alpha(s) ** 2
            by_hand = ratio.sqrt() * x + (1 - ratio).sqrt() * normal(x, seeded(9))
            torch.testing.assert_close(here, by_hand, rtol=1e-12, atol=1e-12)


def overlap_bound(n: int, tests: int) -> float:
    """What the distance of two empirical distributions of `n` exceeds in fewer than one of 10,000 runs of `tests`."""
    return math.sqrt(math.log(2 * tests / 1e-4) / 2) * math.sqrt(2 / n)


def restarted_marginal(process, times: int, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact draws at the level 0.3 after so many restarts to 0.4 with the exact denoiser, and fresh ones."""
    data = torch.tensor([[-1.0, 0.2], [-0.7, -0.5], [0.4, 0.9], [1.1, 0.0], [0.9, -0.8]], dtype=F64)
    low, inner = number(0.3), df.geometric(process, 5, high=0.4, low=0.3)[:-1]

    def fresh(k: int) -> torch.Tensor:
        x0 = data[integers(torch.empty(n), len(data), seeded(seed, k))]
        return process.perturb(x0, low, seeded(seed, k + 1))

    path = torch.cat((low[None], inner.repeat(times)))
    field = df.Reverse(process, df.Empirical(process, data))
    return df.sample(field, fresh(0), path, df.Heun(), seeded(seed, 9)), fresh(2)


def distances(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """Of Kolmogorov and Smirnov, for the two coordinates, their sum, and the length."""
    views = (lambda x: x[:, 0], lambda x: x[:, 1], lambda x: x.sum(1), lambda x: x.norm(dim=1))
    return [stats.ks_2samp(view(a).numpy(), view(b).numpy()).statistic for view in views]


@pytest.mark.parametrize("process", [df.EDM(), df.PFGMPP(D=4.0)], ids=["EDM", "PFGM++"])
def test_twenty_restarts_leave_the_marginal_of_a_data_set(process):
    n = 4000
    assert max(distances(*restarted_marginal(process, 20, n, 11))) < overlap_bound(n, 4)


def test_twenty_published_jumps_do_not():
    """At D = 4 they move the law by more than the bound that the exact jump keeps."""
    n = 4000
    assert max(distances(*restarted_marginal(PublishedJump(4.0), 20, n, 11))) > 1.5 * overlap_bound(n, 4)


# A model that is wrong somewhere


def wrong_weights(low: float, times: list[int], high: float, n: int = 8000) -> list[float]:
    """Total variation between the modes of what is drawn and the truth, eight equal modes on a circle.

    The model is exact up to the level 2; above it, the weights of the modes are wrong by `exp(1.5 cos angle)`.
    """
    process, angle = df.EDM(), torch.arange(8, dtype=F64) * math.pi / 4
    means = 3 * torch.stack((angle.cos(), angle.sin()), 1)
    covariances = 0.04 * torch.eye(2, dtype=F64).expand(8, 2, 2)
    weights = (1.5 * angle.cos()).exp()
    right = df.Mixture(process, torch.full((8,), 1 / 8, dtype=F64), means, covariances)
    wrong = df.Mixture(process, weights / weights.sum(), means, covariances)
    field = df.Reverse(process, lambda x, t, cond=None: (wrong if t > 2 else right)(x, t))
    found = []
    for k in times:
        path = df.restart(df.karras(process, 18), [(10, k, low, high)])
        x = process.prior((n, 2), seeded(13), F64)
        x = df.sample(field, x, path, df.Heun(), seeded(14))
        counts = torch.cdist(x, means).argmin(1).bincount(minlength=8) / n
        found.append((counts - 1 / 8).abs().sum().item() / 2)
    return found


@pytest.mark.slow
def test_restarts_mend_what_the_model_knows_and_spread_what_it_does_not():
    """Intervals in which the model is right wash out earlier error, the wider the faster; in others it wins."""
    mixing = wrong_weights(0.3, [0, 1, 2, 5, 10], 2.0)
    assert mixing == pytest.approx([0.227, 0.159, 0.123, 0.050, 0.016], abs=0.02)
    assert mixing[-1] < 0.03
    weak = wrong_weights(0.3, [0, 1, 2, 5, 10, 20], 1.0)
    assert all(b < a for a, b in pairwise(weak))
    assert weak[-1] > mixing[-1]
    assert min(wrong_weights(0.3, [0, 1, 5, 20], 5.0)) > 0.18
    assert min(wrong_weights(2.5, [0, 1, 5, 20], 5.0)) > 0.18
