"""Noise that nobody was told of: exactly the published amount, at the published moment, and none at 0."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

import driftfield as df
from driftfield.field.base import Field
from driftfield.rng import normal, rows, seeded
from driftfield.solve.base import Solver, cost
from driftfield.solve.jolted import Jolted

from .test_rk import mixture

F64 = torch.float64
number = lambda v: torch.tensor(v, dtype=F64)
PROCESS, SPREAD, ALPHA = df.EDM(), 0.5, 0.3
GRID = df.karras(PROCESS, 18)  # 35 evaluations of Heun's method, as published


class Still(Solver):
    """Stays where it is."""

    order = 1

    def evaluations(self, t, s, fresh):
        return 0

    def step(self, field, x, t, s, state, rng):
        return x, state


def gains() -> list[float]:
    """On N(0, SPREAD^2) the flow is `dx/dt = f(t) x`, and each step of Heun's method multiplies by one of these."""
    f = lambda t: t / (SPREAD**2 + t**2)
    found = []
    for t, s in pairwise(GRID.tolist()):
        h = s - t
        found.append(SPREAD**2 / (SPREAD**2 + t**2) if s == 0 else 1 + h / 2 * (f(t) + f(s) * (1 + h * f(t))))
    return found


def walk(solver: Solver, n: int, dtype=F64) -> torch.Tensor:
    return df.generate(
        PROCESS, df.Normal(PROCESS, 0.0, SPREAD), (n, 3), solver=solver, grid=GRID, seed=7, batch=n, dtype=dtype
    )


@pytest.mark.parametrize("inner", [df.Heun(), df.DEIS(3), df.Langevin(df.DDIM())], ids=str)
@pytest.mark.parametrize("process", [PROCESS, df.VP()], ids=str)
def test_no_jolt_is_the_solver_bit_for_bit(inner, process):
    draw = lambda solver: df.generate(process, mixture(process), (5, 2), solver=solver, nfe=11, seed=3)
    assert torch.equal(draw(Jolted(inner, 0.0)), draw(inner))


def test_a_path_is_the_published_recursion():
    """`x <- x + alpha sigma_i eps` before every step, the last to 0 among them, then the step from the same sigma_i."""
    n, x = 5, []
    for i in range(n):
        rng = seeded(7, i)
        row = PROCESS.span[1] * normal(torch.empty(3, dtype=F64), rng)
        for t, gain in zip(GRID.tolist(), gains(), strict=False):
            row = gain * (row + ALPHA * t * normal(row, rng))
        x.append(row)
    torch.testing.assert_close(walk(Jolted(df.Heun(), ALPHA), n), torch.stack(x), rtol=1e-10, atol=1e-13)


def test_the_variance_is_that_of_the_recursion():
    """`V <- gain^2 (V + alpha^2 t^2)`: 3 n Gaussian numbers know it to `sqrt(2 / 3 n)`, five of which are allowed."""
    n, expected = 4000, PROCESS.span[1] ** 2
    for t, gain in zip(GRID.tolist(), gains(), strict=False):
        expected = gain**2 * (expected + ALPHA**2 * t**2)
    bound = 5 * (2 / (3 * n)) ** 0.5
    found = walk(Jolted(df.Heun(), ALPHA), n).square().mean().item()
    assert found == pytest.approx(expected, rel=bound)
    plain = walk(df.Heun(), n).square().mean().item()
    assert expected > (1 + 2 * bound) * plain, "the jolt is large enough to be seen"


@pytest.mark.parametrize("process", [df.VP(), df.PFGMPP(D=4.0), df.CLD()], ids=str)
def test_a_jolt_is_gaussian_and_shaped_like_the_noise_of_the_process(process):
    """Covariance `alpha^2 Sigma_t`: an entry of n Gaussian rows has deviation at most `sqrt(2 / n)` of the scales."""
    n, t = 20_000, number(0.4)
    field = df.Reverse(process, df.Point(torch.zeros(1, dtype=F64)))
    x = process.lift(torch.zeros(n, 1, dtype=F64))
    moved, _ = Jolted(Still(), ALPHA).step(field, x, t, number(0.3), None, rows(4, 0, n))
    unit = torch.eye(moved[0].numel(), dtype=F64).reshape(-1, *moved.shape[1:])
    root = process.root(t)(unit).flatten(1)
    expected = ALPHA**2 * root.T @ root
    scale = expected.diagonal().sqrt()
    error = (moved.flatten(1).T @ moved.flatten(1) / n - expected).abs()
    assert (error < 5 * (2 / n) ** 0.5 * scale[:, None] * scale).all()
    fourth = moved.flatten(1)[:, 0].pow(4).mean() / scale[0] ** 4
    assert abs(fourth - 3) < 5 * (96 / n) ** 0.5  # a Gaussian's, deviating by sqrt(96 / n); at D = 4 it is infinite


def test_rows_do_not_depend_on_the_batch_and_stay_in_their_precision():
    solver = Jolted(df.Heun(), 0.2)
    draw = lambda batch: df.generate(
        PROCESS, mixture(PROCESS), (6, 2), solver=solver, nfe=11, seed=1, batch=batch, dtype=F64
    )
    torch.testing.assert_close(draw(6), draw(2), rtol=0, atol=1e-10)
    x, _ = solver.step(
        df.Reverse(PROCESS, df.Point(torch.zeros(2))), torch.ones(3, 2), number(2.0), number(1.0), None, seeded(0)
    )
    assert x.dtype == torch.float32


def test_it_costs_and_remembers_what_its_solver_does():
    assert cost(GRID, Jolted(df.Heun(), 0.1)) == cost(GRID, df.Heun()) == 35
    solver = Jolted(df.DEIS(4), 0.1)
    assert (solver.order, solver.remembered, solver.noisy) == (4, 4, True)
    assert not Jolted(df.Heun(), 0.0).noisy


def test_refusals():
    for alpha in (-0.1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"alpha is a share of the noise .* got {alpha}"):
            Jolted(df.Heun(), alpha)
    with pytest.raises(ValueError, match="DormandPrince chooses its own steps, which cannot be jolted"):
        Jolted(df.DormandPrince(), 0.1)
    field = df.Reverse(PROCESS, df.Point(torch.zeros(2)))
    with pytest.raises(ValueError, match="Jolted adds noise on the way down and cannot go up"):
        Jolted(df.Heun()).step(field, torch.ones(1, 2), number(1.0), number(2.0), None, seeded(0))

    class Particles(Field):
        def velocity(self, x, t):
            return x

        def diffuse(self, x, s, t, rng):
            return x

    with pytest.raises(TypeError, match="needs a process and its denoiser, which Particles is not made of"):
        Jolted(df.Heun()).step(Particles(), torch.ones(1, 2), number(2.0), number(1.0), None, seeded(0))

    class Shapeless(Particles):
        process, s_noise = object(), 1.0

        def predict(self, x, t):
            return x

    with pytest.raises(TypeError, match="noise that is a linear map"):
        Jolted(df.Heun()).step(Shapeless(), torch.ones(1, 2), number(2.0), number(1.0), None, seeded(0))
