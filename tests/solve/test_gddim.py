"""gDDIM: the exponential integrator on processes whose coefficients are matrices (spec/gddim.md)."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import pytest
import torch

import driftfield as df
from driftfield.process.heat import Blur
from driftfield.process.langevin import CLD
from driftfield.rng import normal, rows, seeded
from driftfield.solve.coefficients import coefficients

F64 = torch.float64
number = lambda v: torch.tensor(v, dtype=F64)


def test_published_matrices():
    """spec/gddim.md 8.6: the grid 1, 0.5, 0.1 with two evaluations remembered, for both roots."""
    a, (c,) = coefficients(CLD(), "noise", "t", (1.0,), 1.0, 0.5)
    close = lambda map_, m: torch.testing.assert_close(map_.m, torch.tensor(m, dtype=F64), rtol=1e-8, atol=1e-7)
    close(a, [[-163.7944500994, -436.7852002652], [109.1963000663, 272.9907501657]])
    close(c, [[180.5803556, 205.0172591], [-120.4353256, -127.3622633]])
    _, (c0, c1) = coefficients(CLD(), "noise", "t", (0.5, 1.0), 0.5, 0.1)
    close(c0, [[-107.5627669, 4.2869166], [73.5813101, -8.1707467]])
    close(c1, [[12.4324273, -6.6931601], [-8.4099074, 6.1924751]])
    close(c0 + c1, [[-95.1303397, -2.4062435], [65.1714027, -1.9782715]])
    _, (c,) = coefficients(CLD(factor="L"), "noise", "t", (1.0,), 1.0, 0.5)
    close(c, [[0.0, 329.6057147], [0.0, -218.4077021]])


EXACT = [df.DDIM(), df.GDDIM(2), df.GDDIM(4), df.Exponential(3, "data"), df.IPNDM(), df.GDDIM(2, corrector=True)]


@pytest.mark.parametrize("solver", [*EXACT, df.ReverseSDE(0.0)], ids=str)
@pytest.mark.parametrize("steps", [1, 3])
def test_one_gaussian_is_exact_in_any_number_of_steps(solver, steps):
    """Data at one point, the velocity's variance in the noise: the noise stays fixed along the flow."""
    for process, datum in (
        (CLD(), number([[0.3, -0.1]])),
        (Blur(), normal(torch.empty(1, 1, 4, 4, dtype=F64), seeded(0))),
    ):
        field = df.Reverse(process, lambda x, t, cond=None, datum=datum: datum)
        grid = torch.linspace(process.span[1], 0.01, steps + 1, dtype=F64)
        state = process.lift(datum)
        eps = normal(state, seeded(1))
        at = lambda t, p=process, s=state, e=eps: p.signal(t)(s) + p.root(t)(e)
        got = df.sample(field, at(grid[0]), grid, solver, seeded(0))
        torch.testing.assert_close(got, at(grid[-1]), rtol=0, atol=1e-9)


def mixture(process):
    """Three Gaussians in the plane, or two images of four pixels."""
    if isinstance(process, CLD):
        means = number([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])
        covariances = 0.04 * torch.eye(2, dtype=F64).expand(3, 2, 2)
        return df.Mixture(process, torch.full((3,), 1 / 3, dtype=F64), means, covariances)
    return df.Empirical(process, number([[0.5, 0.6, 0.4, 0.7], [-0.6, -0.2, -0.5, 0.1]]).reshape(2, 1, 2, 2))


DENSE = 3200


@lru_cache
def truth(process):
    """The path in even steps of `t^(1/2)` from 0.8 to 0.05 of 3200 steps, and the states along it by RK4."""
    field = df.Reverse(process, mixture(process))
    x0 = torch.zeros((3, 2) if isinstance(process, CLD) else (3, 1, 2, 2), dtype=F64)
    grid = torch.linspace(0.8**0.5, 0.05**0.5, DENSE + 1, dtype=F64).square()
    x = process.perturb(x0, grid[0], rows(0, 0, 3))
    with torch.no_grad():
        return field, grid, [state for _, state in df.integrate(field, x, grid, df.RK4(), seeded(0))]


def measured(process, solver, counts):
    errors = []
    field, grid, states = truth(process)
    for n in counts:
        path, exact = grid[:: DENSE // n], states[:: DENSE // n]
        x, state = exact[0], solver.init()
        with torch.no_grad():
            for k, (t, s) in enumerate(pairwise(path)):
                x = exact[k] if k < solver.order else x
                x, state = solver.step(field, x, t, s, state, None)
        errors.append((x - exact[-1]).norm().item())
    assert errors[-1] > 1e-11
    return [math.log2(a / b) for a, b in pairwise(errors)]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["noise", "data"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("process", [CLD(), Blur()], ids=["CLD", "Blur"])
def test_global_order(process, order, form):
    """The ratio of the finest errors. On CLD the error of order 4 in the data changes sign as steps shrink: its ratios
    are 4.29, 3.30, 3.70 on the way to 4, so that the last is given more room."""
    fine = order == 4 and isinstance(process, CLD)
    counts = (400, 800) if fine else (200, 400) if order > 2 else (50, 100, 200)
    found = measured(process, df.Exponential(order, form), counts)
    assert found[-1] == pytest.approx(order, abs=0.35 if fine and form == "data" else 0.15), found


@pytest.mark.slow
def test_the_published_toy():
    """spec/gddim.md 6: eight blobs of width 0.2 on the circle; R against L at 20 steps, and R as steps grow.

    The spec's draws are not ours: orders of magnitude are compared, not digits.
    """
    angles = torch.arange(8, dtype=F64) * math.pi / 4
    means = torch.stack((angles.cos(), angles.sin()), 1)
    error, fine = {}, torch.empty(0)
    for factor in ("R", "L"):
        process = CLD(factor=factor)
        weights = torch.full((8,), 1 / 8, dtype=F64)
        denoiser = df.Mixture(process, weights, means, 0.04 * torch.eye(2, dtype=F64).expand(8, 2, 2))
        field = df.Reverse(process, denoiser)
        x = process.prior((200, 2), rows(0, 0, 200), F64)
        path = lambda n: torch.linspace(1.0, 1e-3**0.5, n + 1, dtype=F64).square()
        fine = df.sample(field, x, path(1000), df.GDDIM(4), seeded(0)) if factor == "R" else fine
        for order, n in ((1, 20), (3, 20), (3, 50), (4, 100)):
            got = df.sample(field, x, path(n), df.GDDIM(order), seeded(0))
            error[factor, order, n] = (got - fine)[:, 0].square().mean().sqrt().item()
    published = {("R", 1, 20): 2.1e-1, ("R", 3, 20): 9.4e-2, ("R", 3, 50): 1.2e-2, ("R", 4, 100): 3.0e-4}
    published |= {("L", 1, 20): 2.1, ("L", 3, 20): 9.7e-1, ("L", 3, 50): 9.1e-2, ("L", 4, 100): 2.6e-2}
    for key, value in published.items():  # of L a few draws make the mean
        room = 3 if key[0] == "R" else 10
        assert value / room < error[key] < room * value, (key, error[key], value)
    assert all(error["L", *key] > 5 * error["R", *key] for key in ((1, 20), (3, 20), (4, 100)))


def test_levels_are_for_processes_that_have_one():
    field = df.Reverse(CLD(), lambda x, t, cond=None: x[:, 0])
    x, t, s = torch.zeros(2, 2, 3, dtype=F64), number(0.5), number(0.3)
    for solver in (df.DPMSolverPP(), df.DEIS(3, "rho"), df.UniPC()):
        x1, state = solver.step(field, x, t, s, solver.init(), None)
        with pytest.raises(ValueError, match="needs one noise level for all directions, which CLD lacks"):
            solver.step(field, x1, s, number(0.2), state, None)
    with pytest.raises(TypeError, match="which CLD has not one of"):
        df.RhoRK().step(field, x, t, s, None, None)
    field = df.Reverse(CLD(factor="L"), lambda x, t, cond=None: x[:, 0])
    with pytest.raises(ValueError, match="factor='R'"):
        df.sample(field, x, torch.tensor([0.8, 0.5, 0.3], dtype=F64), df.Exponential(2, "data"), seeded(0))
