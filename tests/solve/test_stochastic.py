"""Solvers that add noise: closed forms, laws that stay, and what they reduce to."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats

import driftfield as df
from driftfield.process.heat import Blur
from driftfield.process.langevin import CLD
from driftfield.rng import normal, rows, seeded
from driftfield.solve.renoise import noisy_step

from .test_rk import mixture

F64 = torch.float64
number = lambda v: torch.tensor(v, dtype=F64)
ISOTROPIC = [df.VP(), df.EDM(), df.VE(), df.PFGMPP(D=4.0)]


def test_published_covariances():
    """spec/gddim.md 8.7 and 8.8: CLD from 0.5 to 0.2."""
    process = CLD()
    for lam, expected in (
        (1.0, [[0.53963911, 0.05947592], [0.05947592, 0.19736586]]),
        (0.5, [[0.48324689, 0.0541228], [0.0541228, 0.13379883]]),
        (0.0, [[0.0, 0.0], [0.0, 0.0]]),
    ):
        keep, fresh = noisy_step(process, lam, 0.5, 0.2)
        drawn = (fresh @ fresh.T).m
        torch.testing.assert_close(drawn, torch.tensor(expected, dtype=F64), rtol=0, atol=6e-9)
        kept = (keep @ process.covariance(number(0.5)) @ keep.T).m
        torch.testing.assert_close(kept + drawn, process.covariance(number(0.2)).m, rtol=0, atol=1e-12)
    keep, _ = noisy_step(process, 1.0, 0.5, 0.2)
    t, s = number(0.5), number(0.2)
    expected = process.covariance(s) @ process.transition(t, s).T @ process.covariance(t).inv
    torch.testing.assert_close(keep.m, expected.m, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", ["R", "L"])
def test_the_root_of_the_covariance_does_not_matter_to_what_is_drawn(factor):
    keep, fresh = noisy_step(CLD(factor=factor), 0.7, 0.5, 0.2)
    other, noise = noisy_step(CLD(), 0.7, 0.5, 0.2)
    torch.testing.assert_close(keep.m, other.m, rtol=0, atol=1e-12)
    torch.testing.assert_close((fresh @ fresh.T).m, (noise @ noise.T).m, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lam", [0.3, 1.0, 2.0])
def test_the_covariance_of_the_noise_is_kept_on_any_grid_of_pixels(lam):
    process, t, s = Blur(), number(0.6), number(0.3)
    keep, fresh = noisy_step(process, lam, 0.6, 0.3)
    x = normal(torch.empty(2, 3, 6, 9, dtype=F64), rows(0, 0, 2))
    after = keep(process.covariance(t)(keep.T(x))) + fresh(fresh.T(x))
    torch.testing.assert_close(after, process.covariance(s)(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("process", [df.VP(), df.EDM(), df.VE(), df.SubVP()], ids=str)
def test_scalar_step_is_stochastic_ddim(process, lam):
    """spec/deis.md 2.9: mean `alpha y + sigma r^(lam^2 / 2) eps`, variance `sigma^2 (1 - r^(lam^2))`."""
    t, s = (process.time(number(v)) for v in (3.0, 0.7))
    n = 40_000
    field = df.Reverse(process, df.Point(number([0.2])))
    eps = number([[1.3]])
    x = (process.alpha(t) * number([[0.2]]) + process.sigma(t) * eps).expand(n, 1)
    got, _ = df.ReverseSDE(lam).step(field, x, t, s, None, seeded(int(10 * lam)))
    r = (0.7 / 3.0) ** 2
    sigma = process.sigma(s).item()
    mean = process.alpha(s).item() * 0.2 + sigma * r ** (lam**2 / 2) * 1.3
    spread = sigma * math.sqrt(1 - r ** (lam**2))
    if lam == 0:
        torch.testing.assert_close(got, torch.full_like(got, mean), rtol=0, atol=1e-12)
    else:  # five standard errors, of a mean and of a deviation
        assert got.mean().item() == pytest.approx(mean, abs=5 * spread / n**0.5)
        assert got.std().item() == pytest.approx(spread, abs=5 * spread / (2 * n) ** 0.5)


def test_ancestral_is_the_posterior_of_ddpm_and_ddim():
    """`eta = 1` is `lam = 1`, hence DDPM's posterior; `eta = 0` is DDIM."""
    process = df.VP()
    field = df.Reverse(process, mixture(process))
    grid = df.karras(process, 6)
    x = process.perturb(torch.zeros(4, 2, dtype=F64), grid[0], rows(1, 0, 4))
    run = lambda solver: df.sample(field, x, grid, solver, rows(2, 0, 4))
    torch.testing.assert_close(run(df.Ancestral(1.0)), run(df.ReverseSDE(1.0)), rtol=0, atol=1e-12)
    torch.testing.assert_close(run(df.Ancestral(0.0)), run(df.DDIM()), rtol=0, atol=1e-12)
    torch.testing.assert_close(run(df.ReverseSDE(0.0)), run(df.DDIM()), rtol=0, atol=1e-12)
    t, s, n = grid[1], grid[2], 40_000
    eta, y = 0.6, number([[0.3, -0.1]])
    held = df.Reverse(process, df.Point(y[0]))
    begin = x[:1].expand(n, 2)
    got, _ = df.Ancestral(eta).step(held, begin, t, s, None, seeded(3))
    a, b = process.alpha(t).square(), process.alpha(s).square()
    spread = eta * ((1 - b) / (1 - a)).sqrt() * (1 - a / b).sqrt()  # Song et al. 2021, Eq. 16
    assert got.std(0) == pytest.approx(spread.expand(2), rel=5 / (2 * n) ** 0.5)


def moments_after(process, solver, steps, data_std, n, dimension=1):
    """Samples of the solver on Gaussian data, whose state is begun exactly in law."""
    grid = df.geometric(process, steps + 1, high=5.0, low=0.3)[:-1]
    field = df.Reverse(process, df.Normal(process, 0.0, data_std))
    rng = rows(5, 0, n)
    x0 = data_std * normal(torch.empty(n, dimension, dtype=F64), rng)
    x = process.perturb(x0, grid[0], rng)
    return df.sample(field, x, grid, solver, rng), grid[-1]


@pytest.mark.parametrize("solver", [df.ReverseSDE(0.5), df.ReverseSDE(1.0), df.Ancestral(1.0)], ids=str)
def test_gaussian_moments_stay(solver):
    """The family keeps the variance `alpha^2 s^2 + sigma^2` as steps grow many: error of first order in the step."""
    n = 4000
    for process in (df.VP(), df.EDM()):
        x, t = moments_after(process, solver, 200, 0.5, n)
        expected = (process.alpha(t).square() * 0.25 + process.sigma(t).square()).item()
        bias = 0.02  # the discretisation's own at 200 steps, see the next test for how it falls
        assert x.square().mean().item() == pytest.approx(expected, rel=bias + 5 * (2 / n) ** 0.5)


def test_the_error_in_variance_is_of_first_order():
    """On Gaussian data every step is linear: the variance obeys a recursion, whose error halves with the step."""
    process, s0, lam = df.EDM(), 0.5, 1.0
    errors = []
    for steps in (100, 200, 400):
        v = 25.0 + s0**2
        levels = df.geometric(process, steps + 1, high=5.0, low=0.3)[:-1].tolist()
        for t, s in pairwise(levels):
            c = s0**2 / (s0**2 + t**2)  # y = c x
            low = s * (s / t) ** (lam**2)
            v = (c + low * (1 - c) / t) ** 2 * v + s**2 - low**2
        errors.append(abs(v - 0.3**2 - s0**2))
    assert math.log2(errors[1] / errors[2]) == pytest.approx(1, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("D", [1.0, 2.0, 4.0])
def test_students_t_keeps_its_law_and_gaussian_noise_does_not(D):
    """One datum: the state at level `s` is `s` times a Student t, whatever the steps and the noise on the way.

    Kolmogorov-Smirnov at 1e-3; the same moves with Gaussian noise of the same scale are told apart far beyond it.
    """
    process, n, s = df.PFGMPP(D=D), 20_000, 0.5
    field = df.Reverse(process, df.Point(torch.zeros(1, dtype=F64)))
    grid = torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=F64)
    rng = rows(7, 0, n)
    x = process.perturb(torch.zeros(n, 1, dtype=F64), grid[0], rng)
    for solver in (df.ReverseSDE(1.0), df.Ancestral(0.7)):
        got = df.sample(field, x, grid, solver, rng)[:, 0]
        assert stats.kstest(got.numpy() / s, stats.t(D).cdf).pvalue > 1e-3
    wrong = x
    for t, u in pairwise(grid):  # the same steps with Gaussian noise
        low = u * (u / t)
        down, _ = df.DDIM().step(field, wrong, t, low, df.DDIM().init(), rng)
        wrong = down + (u**2 - low**2).sqrt() * normal(down, rng)
    assert stats.kstest(wrong[:, 0].numpy() / s, stats.t(D).cdf).pvalue < 1e-6


@pytest.mark.parametrize("process", [CLD(), Blur()], ids=["CLD", "Blur"])
def test_one_datum_is_exact_in_law_on_structured_processes(process):
    """The state at `s` has the process's own mean and covariance, by one step from the top, for any `lam`."""
    shape = (20_000, 1) if isinstance(process, CLD) else (20_000, 1, 1, 2)
    datum = torch.full(shape[1:], 0.3, dtype=F64)
    field = df.Reverse(process, lambda x, t, cond=None: datum.expand(shape))
    t, s = number(process.span[1]), number(0.3)
    rng = rows(9, 0, shape[0])
    x = process.perturb(datum.expand(shape), t, rng)
    exact = process.perturb(datum.expand(shape), s, rows(10, 0, shape[0])).flatten(1)
    for lam in (0.5, 1.0):
        got, _ = df.ReverseSDE(lam).step(field, x, t, s, None, rng)
        a, b, n = got.flatten(1), exact, shape[0]
        spread = b.std(0)
        assert ((a.mean(0) - b.mean(0)).abs() < 5 * spread * (2 / n) ** 0.5).all()
        assert ((a.T.cov() - b.T.cov()).abs() < 5 * 2 / n**0.5 * spread[:, None] * spread).all()


def test_euler_maruyama_and_langevin_on_a_gaussian():
    """Both keep the variance to first order: Euler-Maruyama by its recursion, Langevin by detailed balance."""
    process, s0 = df.EDM(), 0.5
    n = 8000
    x, t = moments_after(process, df.EulerMaruyama(1.0), 400, s0, n)
    assert x.var().item() == pytest.approx(s0**2 + t.item() ** 2, rel=0.05 + 5 * (2 / n) ** 0.5)
    x, t = moments_after(process, df.Langevin(df.Heun(), steps=1, snr=0.05), 100, s0, n, dimension=16)
    assert x.var().item() == pytest.approx(s0**2 + t.item() ** 2, rel=0.05 + 5 * (2 / (16 * n)) ** 0.5)
    v, levels = 25.0 + s0**2, df.geometric(process, 401, high=5.0, low=0.3)[:-1].tolist()
    for t0, t1 in pairwise(levels):  # x + h ((1 + lam^2) t score) with variance 2 t |h|
        v = (1 - 2 * t0 * (t0 - t1) / (s0**2 + t0**2)) ** 2 * v + 2 * t0 * (t0 - t1)
    x, t = moments_after(process, df.EulerMaruyama(1.0), 400, s0, n)
    assert x.var().item() == pytest.approx(v, rel=5 * (2 / n) ** 0.5)


def test_refusals():
    student = df.Reverse(df.PFGMPP(D=8.0), df.Point(torch.zeros(2)))
    x, t, s = torch.ones(3, 2), number(2.0), number(1.0)
    for solver in (df.EulerMaruyama(), df.Langevin(df.DDIM())):
        with pytest.raises(TypeError, match="score of PFGMPP does not follow"):
            solver.step(student, x, t, s, solver.init(), seeded(0))
    with pytest.raises(TypeError, match="which CLD lacks"):
        df.Ancestral().step(df.Reverse(CLD(), df.Point(torch.zeros(2))), torch.ones(3, 2, 2), t, s, None, seeded(0))
    for make, said in (
        (lambda: df.ReverseSDE(-1.0), "lam is the strength"),
        (lambda: df.Ancestral(1.5), r"eta is a share of the noise in \[0, 1\]"),
        (lambda: df.Langevin(df.DDIM(), steps=0), "steps >= 1"),
    ):
        with pytest.raises(ValueError, match=said):
            make()


def test_noise_is_for_the_way_down():
    process = df.EDM()
    up = df.karras(process, 6).flip(0)[1:]
    for solver in (df.ReverseSDE(), df.Ancestral(), df.EulerMaruyama(), df.Langevin(df.DDIM())):
        with pytest.raises(ValueError, match=f"{type(solver).__name__} adds noise on the way down and cannot go up"):
            df.generate(process, df.Normal(process, 0.0, 1.0), (2, 2), solver=solver, grid=up, start=torch.zeros(2))
    with pytest.raises(ValueError, match="keeps no signal at time 1, where its noise grows"):
        df.generate(df.Rectified(), df.Normal(process, 0.0, 1.0), (2, 2), solver=df.EulerMaruyama(), nfe=5)


@pytest.mark.parametrize("inner", [df.UniPC(2), df.GDDIM(2, corrector=True), df.DPMSolverPP(2), df.Heun()], ids=str)
def test_langevin_leaves_what_its_inner_solver_remembers(inner):
    """Strong moves keep N(0, 1): a history from before them, or a corrector that undoes them, does not."""
    process, n = df.EDM(), 4000
    draw = df.generate(
        process,
        df.Normal(process, 0.0, 1.0),
        (n, 1),
        solver=df.Langevin(inner, steps=3, snr=0.4),
        grid=df.karras(process, 40),
        dtype=F64,
        batch=n,
    )
    assert draw.var().item() == pytest.approx(1, abs=0.05 + 5 * (2 / n) ** 0.5)


def test_next_to_no_noise_under_students_t():
    process = df.PFGMPP(D=128.0)
    denoiser = df.Point(torch.zeros(2))
    assert df.generate(process, denoiser, (3, 2), solver=df.ReverseSDE(0.0005), nfe=5).isfinite().all()


def test_rows_do_not_depend_on_the_batch():
    process = df.VP()
    for solver in (df.ReverseSDE(1.0), df.EulerMaruyama(), df.Langevin(df.DDIM())):
        draw = lambda batch, s=solver: df.generate(
            process, mixture(process), (6, 2), solver=s, nfe=12, seed=1, batch=batch, dtype=F64
        )
        torch.testing.assert_close(draw(6), draw(2), rtol=0, atol=1e-10)
