"""Births and deaths along a flow: weights, populations, and what they keep on average."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from driftfield.denoise.empirical import Empirical
from driftfield.denoise.exact import Point
from driftfield.field.births import Births
from driftfield.grid import geometric
from driftfield.process.gaussian import EDM
from driftfield.process.helmholtz import Helmholtz
from driftfield.process.poisson import PFGM
from driftfield.process.screened import ScreenedPoisson
from driftfield.rng import integers, seeded
from driftfield.solve.branching import Weighted, branching, copied, systematic
from driftfield.solve.jolted import Jolted
from driftfield.solve.rk import RK4, Euler, Heun

DOUBLE = torch.float64


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=DOUBLE)


def walk(field, x, grid, seed=0, **options):
    states = list(branching(field, x, grid, rng=seeded(seed), **options))
    assert [float(t) for t, _ in states] == grid.tolist()
    return states[-1][1]


def three() -> Tensor:
    return torch.tensor([[-1.0, 0.0], [0.5, 0.3], [0.8, -0.9]], dtype=DOUBLE)


def spread(process, data, count, seed, top) -> Weighted:
    """Particles from Poisson's kernel at the time `top`, with the weights that make them the process's own density.

    Drawn from its own kernel, the weights at the end are like `exp(m rho)` of the start: their variance is infinite.
    """
    poisson, rng = PFGM(), seeded(seed)
    x = poisson.perturb(data[integers(torch.empty(count), len(data), rng)], number(top), rng)
    log_p, log_q = (Empirical(law, data).log_prob(x, number(top)) for law in (process, poisson))
    return Weighted(x, log_p - log_q)


@pytest.mark.parametrize(("n", "want"), [(2, 0.70674823), (3, 0.51909571), (6, 0.26884382)])
def test_births_on_the_way_to_one_datum(n, want):
    """`ln W = int_0^T gamma dt` in closed form, for `m rho_T = 1.7`; RK4 on 40 even steps leaves 1e-5."""
    process = ScreenedPoisson(1.0, (1e-6, 1.0))
    data = torch.zeros(1, n, dtype=DOUBLE)
    x = torch.zeros(1, n, dtype=DOUBLE)
    x[0, 0] = math.sqrt(1.7**2 - 1)
    grid = torch.linspace(1, 1e-6, 41, dtype=DOUBLE)
    last = walk(Births(process, Empirical(process, data)), x, grid, solver=RK4(), threshold=0.0)
    assert abs(float(last.log_w) - want) < 1e-5
    assert float(last.x.abs().max()) < 1e-5


def test_weights_keep_the_mass():
    """`E[W]` is 1, the mass of the data, and each datum has its share: 4000 particles, three standard errors."""
    process, count, data = ScreenedPoisson(0.5, (1e-3, 2.0)), 4000, three()
    begin = spread(process, data, count, 1, 2.0)
    grid = geometric(process, 20)[:-1]
    last = walk(Births(process, Empirical(process, data)), begin, grid, solver=RK4(), threshold=0.0)
    w = last.log_w.exp()
    exact = math.exp(-0.5 * 1e-3)
    assert abs(float(w.mean()) - exact) < 3 * float(w.std()) / math.sqrt(count)
    assert 0.95 * count < float(last.ess) < count
    near = torch.cdist(last.x, data).argmin(1)
    share = torch.zeros(3, dtype=DOUBLE).index_add(0, near, w) / count
    error = torch.stack([(w * (near == k)).std() for k in range(3)]) / math.sqrt(count)
    assert bool(((share - exact / 3).abs() < 3 * error).all())


@pytest.mark.parametrize("options", [{}, {"threshold": 0.5}, {"free": True}], ids=str)
def test_a_branching_population_keeps_the_mass(options):
    """From one set of 300 particles the exact mass is the sum of their weights, at the end of the same flow.

    The mean over 20 branching populations is that within three standard errors.
    """
    process, data, totals = ScreenedPoisson(1.0, (1e-2, 2.0)), three(), []
    field, grid = Births(process, Empirical(process, data)), geometric(process, 6)[:-1]
    begin = process.perturb(data[integers(torch.empty(300), 3, seeded(4))], number(2.0), seeded(5))
    exact = float(walk(field, begin, grid, threshold=0.0).log_total.exp())
    for seed in range(20):
        last = walk(field, begin, grid, seed, **options)
        totals.append(float(last.log_total.exp()))
        if options.get("free"):
            assert torch.equal(last.log_w, torch.zeros(len(last.x), dtype=DOUBLE))
        else:
            assert len(last.x) == 300
            assert float(last.ess) >= options.get("threshold", 1.0) * 300 * (1 - 1e-9)
    error = float(torch.tensor(totals).std()) / math.sqrt(20)
    assert abs(sum(totals) / 20 - exact) < 3 * error
    assert error < 0.07 * exact
    assert exact > 4 * 300  # much is born


def test_noise_parts_copies_and_keeps_the_mass():
    """A path that climbs: the screened kernel adds up, of which a share `exp(-m rise)` lives; so the mass stays 1."""
    process, data = ScreenedPoisson(0.5, (1e-2, 2.0)), three()
    field, begin = Births(process, Empirical(process, data)), spread(process, data, 3000, 5, 2.0)
    down = geometric(process, 12)[:-1]
    path = torch.cat((down[:8], down[6:]))
    apart, together = walk(field, begin, path), walk(field, begin, down)
    assert len(apart.x.unique(dim=0)) > 1.1 * len(together.x.unique(dim=0))
    w = walk(field, begin, path, solver=RK4(), threshold=0.0).log_w.exp()
    assert abs(float(w.mean()) - math.exp(-0.005)) < 3 * float(w.std()) / math.sqrt(3000)


def test_helmholtz_particles_die_on_the_way():
    """For one datum in the plane, in closed form: rays from the ball's edge at the top carry `1 - T / R` to the datum.

    There was `cos(k T) - (T / R) cos(k R)` of mass in the ball, so the mean weight is the quotient; three standard
    errors of 2000 particles, and 1e-4 for the steps.
    """
    process, data, top, count = Helmholtz(0.1), torch.zeros(1, 2, dtype=DOUBLE), 5.0, 2000
    begin = process.perturb(data.expand(count, 2), number(top), seeded(8))
    field = Births(process, Empirical(process, data))
    last = walk(field, begin, geometric(process, 30)[:-1], threshold=0.0)
    out = math.pi / 2 / 0.1
    exact = (1 - top / out) / (math.cos(0.1 * top) - top / out * math.cos(0.1 * out))
    w = last.log_w.exp()
    assert bool((last.log_w < 0).all())
    assert abs(float(w.mean()) - exact) < 3 * float(w.std()) / math.sqrt(count) + 1e-4
    assert float(w.std()) < 0.2


def test_orders_of_the_weight_are_those_of_the_solver():
    """Halving the step divides the error of the logarithm by 2, 4 and 16."""
    process = ScreenedPoisson(1.0, (0.1, 2.0))
    data = three()
    field = Births(process, Empirical(process, data))
    x = torch.tensor([[1.3, 0.4], [-2.0, 1.0]], dtype=DOUBLE)

    def weight(solver, steps):
        return walk(field, x, torch.linspace(2, 0.1, steps + 1, dtype=DOUBLE), solver=solver, threshold=0.0).log_w

    fine = weight(RK4(), 80)
    for solver, order in ((Euler(), 1), (Heun(), 2), (RK4(), 4)):
        coarse, half = ((weight(solver, steps) - fine).abs().max() for steps in (16, 32))
        assert abs(float((coarse / half).log2()) - order) < 0.5


def test_populations_are_unbiased():
    """Every particle is copied `w` times on average: 1500 resamplings, five standard errors of a fraction."""
    log_w = torch.tensor([0.3, -1.0, 0.0, 1.2, -4.0], dtype=DOUBLE)
    x = torch.arange(5.0)[:, None]
    counts = torch.zeros(2, 5, dtype=DOUBLE)
    for k in range(1500):
        for row, way in enumerate((systematic, copied)):
            made = way(Weighted(x, log_w), seeded(9, k))
            each = made.x[:, 0].long().bincount(minlength=5)
            counts[row] += each
            w = log_w.exp() if way is copied else 5 * log_w.softmax(0)
            assert bool(((each - w).abs() < 1).all())
    counts /= 1500
    torch.testing.assert_close(counts[0], 5 * log_w.softmax(0), rtol=0, atol=5 * 0.5 / math.sqrt(1500))
    torch.testing.assert_close(counts[1], log_w.exp(), rtol=0, atol=5 * 0.5 / math.sqrt(1500))
    made = systematic(Weighted(x, log_w), seeded(0))
    torch.testing.assert_close(made.log_total, log_w.logsumexp(0))
    even = Weighted(x, torch.zeros(5, dtype=DOUBLE))
    assert math.isclose(even.ess, 5)
    assert math.isclose(Weighted(x, torch.tensor([0.0, -800, -800, -800, -800], dtype=DOUBLE)).ess, 1)


def test_float32_states_keep_float64_weights():
    process = ScreenedPoisson(1.0, (0.01, 2.0))
    data = three()
    field = Births(process, Empirical(process, data.float()))
    last = walk(field, torch.randn(50, 2, generator=seeded(10)), geometric(process, 8), threshold=0.0)
    assert last.x.dtype == torch.float32
    assert last.log_w.dtype == torch.float64
    exact = Births(process, Empirical(process, data))
    double = walk(exact, torch.randn(50, 2, generator=seeded(10)).double(), geometric(process, 8), threshold=0.0)
    torch.testing.assert_close(last.log_w, double.log_w, rtol=0, atol=1e-4)


def test_bad_input_is_refused():
    process = ScreenedPoisson(1.0)
    with pytest.raises(TypeError, match="rates="):
        Births(process, Point(torch.zeros(2)))
    field = Births(process, Point(torch.zeros(2)), rates=lambda x, t, cond: x)
    x, grid = torch.zeros(4, 2), geometric(process, 4)
    with pytest.raises(ValueError, match="one number a particle"):
        list(branching(field, x, grid, rng=seeded(0)))
    with pytest.raises(ValueError, match="threshold"):
        branching(field, x, grid, rng=seeded(0), threshold=2.0)
    with pytest.raises(ValueError, match="free"):
        branching(field, x, grid, rng=seeded(0), threshold=0.5, free=True)
    dying = Births(process, Point(torch.zeros(2)), rates=lambda x, t, cond: torch.full((len(x),), 1e6))
    with pytest.raises(ValueError, match="died"):
        list(branching(dying, x + 1, grid, rng=seeded(0), free=True))
    still = Births(EDM(), Point(torch.zeros(2)), rates=lambda x, t, cond: x[:, 0])
    with pytest.raises(TypeError, match="grid that falls"):
        list(branching(still, x, torch.tensor([1.0, 0.5, 0.7, 0.1]), rng=seeded(0)))


def test_bad_weights_are_refused_at_once():
    process = ScreenedPoisson(1.0)
    field, x, grid = Births(process, Empirical(process, three())), three(), geometric(process, 4)

    def start(*log_w, **options):
        return branching(field, Weighted(x, torch.tensor(log_w, dtype=DOUBLE)), grid, rng=seeded(0), **options)

    for bad in ((0.0,) * 7, ()):
        with pytest.raises(ValueError, match=rf"one weight a particle, \(3,\), got \({len(bad)},?\)"):
            start(*bad)
    for bad, said in (
        ((0.0, math.nan, 0.0), "1 NaN, 0 inf and 0 -inf"),
        ((0.0, math.inf, -math.inf), "0 NaN, 1 inf and 1 -inf"),
        ((-math.inf,) * 3, "0 NaN, 0 inf and 3 -inf"),
    ):
        with pytest.raises(ValueError, match=said):
            start(*bad)
    assert len(list(start(0.0, -math.inf, -math.inf))) == len(grid)
    for log_w in (50.0, 1000.0):  # of which the second is infinite as a number
        with pytest.raises(ValueError, match="particles are to be made of 3, more than 10,000,000"):
            list(start(*[log_w] * 3, free=True))


def test_a_jolt_of_weights_is_refused():
    process = ScreenedPoisson(1.0)
    field = Births(process, Empirical(process, three()))
    grid = geometric(process, 4)
    with pytest.raises(TypeError, match="weights of particles cannot be jolted; use the inner solver of Jolted, Heun"):
        list(branching(field, three(), grid, Jolted(Heun(), 0.1), rng=seeded(0)))
    assert len(list(branching(field, three(), grid, Jolted(Heun(), 0.0), rng=seeded(0)))) == len(grid)
