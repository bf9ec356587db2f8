"""Processes that gain or lose mass, Helmholtz and the screened Poisson equation: kernels, draws, rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from driftfield.denoise.empirical import Empirical
from driftfield.process.helmholtz import Helmholtz, edge, growth, growth_slope
from driftfield.process.poisson import PFGM
from driftfield.process.screened import ScreenedPoisson, bessel_ratio
from driftfield.rng import rows, seeded

DOUBLE = torch.float64
BOTH = pytest.mark.parametrize("process", [Helmholtz(0.6, (1e-3, 1.0)), ScreenedPoisson(1.5)], ids=repr)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=DOUBLE)


def density(process: Helmholtz | ScreenedPoisson | PFGM, s: float, t: float, n: int) -> float:
    return math.exp(process.log_profile(number(s * s), number(t), n) + process.log_peak(number(t), n))


# --- the kernels -------------------------------------------------------------------------------------------------


def test_published_values() -> None:
    """The densities and rates at t = 0.7, s = 1.3, in 2, 3 and 4 dimensions."""
    wave, screened = Helmholtz(0.6, (1e-3, 1.0)), ScreenedPoisson(1.5)
    for n, helmholtz, yukawa, deaths in (
        (2, 0.0456436461, 0.0121488417, 2.17970315),
        (3, 0.0183588760, 0.00670938519, 1.82747578),
        (4, 0.00874235311, 0.00401414561, 1.54826880),
    ):
        assert math.isclose(density(wave, 1.3, 0.7, n), helmholtz, rel_tol=1e-8)
        assert math.isclose(density(screened, 1.3, 0.7, n), yukawa, rel_tol=1e-8)
        assert math.isclose(-screened.rate(number(1.69), number(0.7), n), deaths, rel_tol=1e-8)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 12, 33, 48, 49, 64, 257])
def test_growth_is_the_bessel_function(n: int) -> None:
    """Against SciPy's, over the whole ball; and the ball ends at the zero of `Y_((n - 1) / 2)`, or where `G` is 2."""
    u, mu = torch.linspace(0.05, 1, 9, dtype=DOUBLE) * edge(n), (n + 1) / 2
    y, below = (torch.from_numpy(special.yv(order, u.numpy())) for order in (mu, mu - 1))
    want = -math.pi * (mu * (u / 2).log() - math.lgamma(mu)).exp() * y
    torch.testing.assert_close(growth(n, u), want, rtol=1e-12, atol=0)
    torch.testing.assert_close(growth_slope(n, u), u * below / y * want, rtol=1e-11, atol=1e-12)
    if n < 4:
        assert math.isclose(edge(n), {1: 0.8935769662791675, 2: math.pi / 2, 3: 2.197141326031017}[n], rel_tol=1e-12)
    else:
        assert math.isclose(float(growth(n, number(edge(n)))), 2.0, rel_tol=1e-12)


def test_bessel_ratio_is_scipys() -> None:
    x = torch.tensor([0.01, 0.3, 1.7, 20.0, 300.0], dtype=DOUBLE)
    for nu in (0.0, 0.5, 1.0, 7.0, 29.5, 40.0):
        want = torch.from_numpy(special.kve(nu + 1, x.numpy()) / special.kve(nu, x.numpy()))
        torch.testing.assert_close(bessel_ratio(nu, x), want, rtol=1e-12, atol=0)


@pytest.mark.parametrize("n", [1, 2, 3, 64, 300])
def test_without_mass_or_waves_both_are_poisson(n: int) -> None:
    poisson = PFGM()
    d2, t = torch.logspace(-4, 1, 9, dtype=DOUBLE), number(0.7)
    for process in (Helmholtz(1e-6), ScreenedPoisson(1e-6)):
        drop = process.log_profile(d2, t, n) - poisson.log_profile(d2, t, n)
        torch.testing.assert_close(drop, torch.zeros_like(d2), rtol=0, atol=1e-8)
        torch.testing.assert_close(process.log_peak(t, n), poisson.log_peak(t, n), rtol=0, atol=2e-6)


@BOTH
@pytest.mark.parametrize("n", [1, 2, 3])
def test_density_flows_and_is_born(process: Helmholtz | ScreenedPoisson, n: int) -> None:
    """`dp/dt + div(p v) = rate p` on three data, with `v = (x - E[x_0 | x]) / t`, by differences of second order."""
    data = torch.zeros(3, n, dtype=DOUBLE)
    data[:, 0] = torch.tensor([-0.2, 0.1, 0.15], dtype=DOUBLE)
    exact = Empirical(process, data)
    x = 0.25 * torch.randn(12, n, generator=seeded(1), dtype=DOUBLE)
    t, h = 0.6, 2e-5

    def p(x: Tensor, t: float) -> Tensor:
        return exact.log_prob(x, number(t)).exp()

    def flux(x: Tensor, t: float) -> Tensor:
        return p(x, t)[:, None] * process.velocity(x, number(t), exact(x, number(t)))

    change = (p(x, t + h) - p(x, t - h)) / (2 * h)
    for i in range(n):
        step = torch.zeros(n, dtype=DOUBLE)
        step[i] = h
        change = change + (flux(x + step, t) - flux(x - step, t))[:, i] / (2 * h)
    born = exact.rate(x, number(t)) * p(x, t)
    torch.testing.assert_close(change, born, rtol=0, atol=2e-7 * float(p(x, t).max()) / t)
    assert bool((born > 0).all()) == isinstance(process, Helmholtz)


@BOTH
@pytest.mark.parametrize("n", [2, 3, 64])
def test_score_of_the_density(process: Helmholtz | ScreenedPoisson, n: int) -> None:
    """By the kernel in two dimensions more, inside the ball."""
    data = 0.1 * torch.randn(5, n, generator=seeded(2), dtype=DOUBLE)
    exact, t, h = Empirical(process, data), number(0.5), 1e-5
    x = 0.3 * torch.randn(4, n, generator=seeded(3), dtype=DOUBLE) / math.sqrt(n)
    step = torch.zeros(n, dtype=DOUBLE)
    step[1] = h
    slope = (exact.log_prob(x + step, t) - exact.log_prob(x - step, t)) / (2 * h)
    torch.testing.assert_close(exact.score(x, t)[:, 1], slope, rtol=0, atol=1e-6 * n)


# --- draws -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 16, 64])
@pytest.mark.parametrize("t", [0.01, 0.5, 5.0])
def test_draws_of_helmholtz_invert_the_radial_law(n: int, t: float) -> None:
    """Against the radial density integrated on a fine grid, to 1e-6; in the plane against its closed form."""
    process = Helmholtz(0.03)
    u = (torch.arange(400, dtype=DOUBLE) + 0.5) / 400
    distance = process._distance(torch.full_like(u, t), u, n)
    reach = process.reach(n)
    assert distance.max() < reach
    b = torch.linspace(1e-9, math.asinh(reach / t) - 1e-12, 40001, dtype=DOUBLE)  # ends within the ball
    s = t * b.sinh()
    radial = (process.log_profile(s.square(), number(t), n) + (n - 1) * (s / t).log()).exp() * b.cosh()
    cdf = torch.cat((b.new_zeros(1), torch.cumulative_trapezoid(radial, b)))
    got = np.interp(distance.numpy(), s.numpy(), (cdf / cdf[-1]).numpy())
    assert np.abs(got - u.numpy()).max() < 2e-6
    if n == 2:
        k, rho, out = 0.03, torch.hypot(number(t), distance), math.hypot(t, reach)
        below = (math.cos(k * t) - t / rho * (k * rho).cos()) / (math.cos(k * t) - t / out * math.cos(k * out))
        torch.testing.assert_close(below, u, rtol=0, atol=1e-7)
        mass = math.cos(k * t) - t / out * math.cos(k * out)
        assert math.isclose(process.log_mass(number(t), 2).exp(), mass, rel_tol=1e-7)


def test_draws_of_helmholtz_are_even_in_direction_and_bounded() -> None:
    process = Helmholtz(0.05)
    x = process.perturb(torch.ones(4000, 3), torch.full((4000,), 2.0), seeded(4)) - 1
    assert x.dtype == torch.float32
    assert x.norm(dim=1).max() < process.reach(3) * 1.0001
    cosine = x[:, 0] / x.norm(dim=1)  # uniform on [-1, 1] in three dimensions
    assert stats.kstest((cosine.double() / 2 + 0.5).numpy(), "uniform").pvalue > 1e-5
    assert process.noise(torch.zeros(5, 2), seeded(0)).shape == (5, 2)
    top = torch.full((3,), 50.0)  # a law of times may draw above the span
    assert process.perturb(torch.zeros(3, 2), top, seeded(5)).isfinite().all()


@BOTH
def test_prior_is_normalised(process: Helmholtz | ScreenedPoisson) -> None:
    """In the plane, by the trapezoidal rule in the logarithm of the radius."""
    s = torch.logspace(-6, math.log10(60), 20001, dtype=DOUBLE)
    log = process.prior_log_prob(torch.stack((s, torch.zeros_like(s)), 1))
    mass = torch.trapezoid(2 * math.pi * s.square() * log.exp(), s.log())
    torch.testing.assert_close(mass, number(1.0), rtol=0, atol=2e-3 if isinstance(process, Helmholtz) else 1e-6)


def test_draws_of_the_screened_kernel() -> None:
    """In the plane `P(|x - x0| <= s) = 1 - (t / rho) exp(-m (rho - t))`; and two moves up are one."""
    process, t = ScreenedPoisson(1.3), 0.8
    for x in (
        process.perturb(torch.zeros(20000, 2, dtype=DOUBLE), number(t), seeded(6)),
        process.diffuse(
            process.perturb(torch.zeros(20000, 2, dtype=DOUBLE), number(0.3), seeded(7)),
            number(0.3),
            number(t),
            seeded(8),
        ),
    ):
        rho = (x.square().sum(1) + t * t).sqrt()
        below = 1 - t / rho * (-1.3 * (rho - t)).exp()
        assert stats.kstest(below.numpy(), "uniform").pvalue > 1e-5


def test_each_row_draws_alone() -> None:
    for process in (Helmholtz(), ScreenedPoisson()):
        x0, t = torch.zeros(7, 3), torch.full((7,), 0.6)
        whole = process.perturb(x0, t, rows(0, 0, 7))
        torch.testing.assert_close(whole[4:], process.perturb(x0[4:], t[4:], rows(0, 4, 7)))


# --- rates and estimates -----------------------------------------------------------------------------------------


def test_births_along_a_ray() -> None:
    """Along `x = x_T t / T` the deaths sum to `ln(2^nu Gamma(nu + 1)) - ln(U^(nu + 1) K_(nu + 1)(U))`, U = m rho_T."""
    for n, want in ((2, 0.70674823), (3, 0.51909571), (6, 0.26884382)):
        process, top = ScreenedPoisson(1.0), 1.0
        s = math.sqrt(1.7**2 - top**2)
        t = (torch.arange(4000, dtype=DOUBLE) + 0.5) / 4000
        total = -process.rate((s * t).square(), t, n).mean()
        assert math.isclose(total, want, rel_tol=1e-6)


def test_rate_of_helmholtz_in_the_plane() -> None:
    process, t = Helmholtz(0.6, (1e-3, 1.0)), 0.7
    d2 = torch.tensor([0.0, 0.5, 1.69], dtype=DOUBLE)
    u = 0.6 * (d2 + t * t).sqrt()
    want = u.square() * u.cos() / (t * (u.cos() + u * u.sin()))
    torch.testing.assert_close(process.rate(d2, number(t), 2), want, rtol=1e-12, atol=0)
    assert process.rate(number(1e4), number(t), 2) == 0


def test_states_beyond_every_ball_have_an_estimate() -> None:
    """Where nothing is drawn the weights are Poisson's, so that a walk goes on; data within reach count alone."""
    process = Helmholtz(0.1)
    data = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    exact, reach = Empirical(process, data), process.reach(2)
    x = torch.tensor([[-2 * reach, 0.0], [-reach + 1.0, 0.0]])
    y = exact(x, torch.tensor(4.0))
    want = Empirical(PFGM(), data)(x[:1], torch.tensor(4.0))
    torch.testing.assert_close(y[:1], want, rtol=0, atol=1e-5)
    assert torch.equal(y[1], data[0])


def test_bad_input_is_refused() -> None:
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="wavenumber"):
            Helmholtz(bad)
        with pytest.raises(ValueError, match="mass"):
            ScreenedPoisson(bad)
    with pytest.raises(ValueError, match=r"largest wavenumber for this span is 0\.209"):
        Helmholtz(0.3).prior((3, 2), seeded(0))
    Helmholtz(0.209).prior((3, 2), seeded(0))
    with pytest.raises(TypeError, match="no kernel between"):
        Helmholtz().diffuse(torch.zeros(2, 2), number(0.1), number(0.2), seeded(0))
    with pytest.raises(ValueError, match="upward"):
        ScreenedPoisson().diffuse(torch.zeros(2, 2), number(0.3), number(0.2), seeded(0))
    with pytest.raises(TypeError, match="keeps its mass"):
        Empirical(PFGM(), torch.zeros(3, 2)).rate(torch.zeros(1, 2), torch.tensor(1.0))
