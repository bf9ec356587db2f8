"""Massive Poisson flow: the law of the noise, its flow, its limits and its upward moves."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import special, stats

import driftfield as df
from driftfield.process.base import check_end
from driftfield.process.gig import lag, lag_of_one, log_integral_gain, quantile
from driftfield.rng import rows, seeded
from driftfield.special import log_bessel_k

F64 = torch.float64
LEVEL = 1e-4  # of a test on random numbers: the seeds are fixed, so none fails by chance


def number(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=F64)


def log_density(process, s, t: float, n: int) -> torch.Tensor:
    at = number(t)
    return process.log_profile(torch.as_tensor(s, dtype=F64) ** 2, at, n) + process.log_peak(at, n)


def pace(process, s, t: float, n: int) -> torch.Tensor:
    """The velocity of one datum over the displacement."""
    at = number(t)
    d2 = torch.as_tensor(s, dtype=F64) ** 2
    pull = process.pull(d2, at, n)
    rate = process.slopes(at)[1] / process.sigma(at)
    return rate * (torch.ones_like(d2) if pull is None else pull)


def radii(process, t: float, n: int, count: int, *keys: int) -> np.ndarray:
    return process.perturb(torch.zeros(count, n, dtype=F64), number(t), seeded(*keys)).norm(dim=1).numpy()


def mass_within(process, s: float, t: float, n: int) -> float:
    """The kernel's mass in a ball, by quadrature over the density: Gauss-Legendre on panels, even in `ln s`."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    scale = float(process.sigma(number(t)))
    edges = np.concatenate(([0.0], np.geomspace(1e-6 * min(scale, s), s, 200)))
    half = np.diff(edges)[:, None] / 2
    q, w = edges[:-1, None] + half * (1 + nodes), half * weights
    area = math.log(2) + n / 2 * math.log(math.pi) - math.lgamma(n / 2)
    log = log_density(process, q, t, n).numpy() + area + (n - 1) * np.log(q)
    return float((w * np.exp(log)).sum())


# --- the kernel --------------------------------------------------------------------------------------------------


def test_density_at_the_values_of_the_specification():
    """Spec genphys 8.3: Yukawa's own density is `exp(-mt)` of ours; the mixed model is of unit mass."""
    known = {2: 0.0121488417, 3: 0.00670938519, 4: 0.00401414561}
    for n, p in known.items():
        got = (log_density(df.Yukawa(1.5), 1.3, 0.7, n) - 1.5 * 0.7).exp()
        assert float(got) == pytest.approx(p, rel=1e-8)
    for n, p in {2: 0.0433077905, 3: 0.0212326974, 4: 0.0115297294}.items():
        assert float(log_density(df.MixedDiffusionPoisson(0.8, 1.7), 1.3, 0.7, n).exp()) == pytest.approx(p, rel=1e-8)


@pytest.mark.parametrize("n", [1, 2, 5, 784, 3072])
@pytest.mark.parametrize("mass", [0.01, 1.0, 30.0])
def test_density_is_bessels(n: int, mass: float):
    """`2 t (2 pi)^-mu (m / rho)^mu K_mu(m rho) exp(mt)`, `mu = (n + 1) / 2`."""
    t, mu = 0.8, (n + 1) / 2
    s = torch.logspace(-3, 3, 50, dtype=F64)
    rho = (s**2 + t**2).sqrt()
    known = math.log(2 * t) - mu * math.log(2 * math.pi) + mu * (mass / rho).log() + log_bessel_k(mu, mass * rho)
    torch.testing.assert_close(log_density(df.Yukawa(mass), s, t, n), known + mass * t, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("nu", [0.3, 0.5, 1.0, 2.7, 33.0, 1536.5])
def test_integral_of_the_law_is_bessels(nu: float):
    z = torch.logspace(-8, 1, 60, dtype=F64) * nu
    for rise in (0.5, 10.0, 392.0, 1536.0):
        known = rise * z.log() + log_bessel_k(nu + rise, z) - log_bessel_k(nu, z)
        torch.testing.assert_close(log_integral_gain(nu, rise, z), known, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("mass", [1.0, 1e4, 1e6])
@pytest.mark.parametrize("level", [0.002, 1.0, 80.0])
def test_peak_in_the_plane_is_elementary(mass: float, level: float):
    """`(1 + m t) / (2 pi t^2)`, the closed form of spec genphys 2.3 at its centre, up to `m t = 6e15`."""
    for process, clock in (
        (df.Yukawa(mass), 1.0),
        (df.MixedDiffusionPoisson(0.25 / mass**2, 1.0), 0.5 / mass),  # b / (2 sqrt(a)) = mass
    ):
        t = process.time(number(level))
        r = t / clock
        known = (mass * r).log1p() - (2 * math.pi * r.square()).log()
        torch.testing.assert_close(process.log_peak(t, 2), known, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize(
    "process",
    [df.Yukawa(1.0), df.Hyperbolic(3.0, 1.0), df.MixedDiffusionPoisson(1.0, 1.0), df.MixedDiffusionPoisson(0.0, 1.0)],
    ids=repr,
)
def test_there_is_no_noise_at_time_0(process):
    x, zero = torch.ones(4, 2, dtype=F64), number(0.0)
    check_end(process)
    assert process.level(zero) == 0
    assert torch.equal(process.perturb(x, zero, seeded(9)), x)
    assert torch.equal(process.perturb(x, torch.zeros(4, dtype=F64), rows(9, 0, 4)), x)


@pytest.mark.parametrize("process", [df.Yukawa(1.3), df.Hyperbolic(3.0, 1.2), df.Hyperbolic(0.7, 2.0)], ids=repr)
@pytest.mark.parametrize("n", [1, 2, 6])
def test_mass_is_one(process, n: int):
    assert mass_within(process, 1e6 if process.D < 1 else 200.0, 0.8, n) == pytest.approx(1, abs=1e-7)


def test_mass_in_a_disc_and_radius_of_draws():
    """N = 2: `1 - (t / rho) exp(-m (rho - t))`, with the three values of spec genphys 8.6, and the law of draws."""
    m, t, process = 1.3, 0.8, df.Yukawa(1.3)

    def law(s):
        rho = np.hypot(s, t)
        return 1 - t / rho * np.exp(-m * (rho - t))

    for s, known in ((0.3, 0.12760), (1.0, 0.66556), (3.0, 0.98712)):
        assert law(s) == pytest.approx(known, abs=5e-6)
        assert mass_within(process, s, t, 2) == pytest.approx(law(s), abs=1e-9)
    assert stats.kstest(radii(process, t, 2, 40_000, 1), law).pvalue > LEVEL


@pytest.mark.parametrize("k", [0.5, 2.0])
def test_characteristic_function_and_variance(k: float):
    """`exp(t (m - sqrt(m^2 + k^2)))`; variance `t / m`. 40,000 draws, 5 standard errors."""
    m, t = 1.3, 0.8
    x = df.Yukawa(m).perturb(torch.zeros(40_000, 1, dtype=F64), number(t), seeded(2))[:, 0]
    wave = (k * x).cos()
    assert abs(wave.mean().item() - math.exp(t * (m - math.hypot(m, k)))) < 5 * wave.std().item() / 200
    assert abs(x.square().mean().item() - t / m) < 5 * x.square().std().item() / 200


@pytest.mark.parametrize(("D", "mass", "r"), [(3.0, 1.2, 0.9), (0.6, 2.0, 0.5), (7.0, 0.3, 4.0)])
def test_generalised_law_has_its_transform(D: float, mass: float, r: float):
    """Spec genphys 8.18: `(rk)^(D/2) K_(D/2)(rk)` over its value at k = 0, `k` the length of (k, mass)."""
    t, nu = r / math.sqrt(D), D / 2
    x = df.Hyperbolic(D, mass).perturb(torch.zeros(20_000, 1, dtype=F64), number(t), seeded(3, int(10 * D)))[:, 0]
    for k in (0.4, 1.5):
        a, b = r * math.hypot(k, mass), r * mass
        known = (a / b) ** nu * special.kv(nu, a) / special.kv(nu, b)
        wave = (k * x).cos()
        assert abs(wave.mean().item() - known) < 5 * wave.std().item() / math.sqrt(20_000)


@pytest.mark.parametrize(("nu", "z"), [(0.25, 1.0), (0.5, 7.0), (1.5, 0.3), (3.5, 1000.0), (64.0, 3.0), (2.0, 0.0)])
def test_quantiles_of_the_variance(nu: float, z: float):
    """Against adaptive quadrature of the density at 30 digits, to 1e-10 in probability."""
    p = torch.tensor([1e-9, 1e-3, 0.2, 0.5, 0.9, 0.999, 1 - 1e-9], dtype=F64)
    y = quantile(p, nu, torch.full_like(p, z))
    mpmath.mp.dps = 30
    mode = 1 / (nu + math.hypot(nu, z))
    width = 1 / math.sqrt(math.hypot(nu, z))
    top = -nu * math.log(mode) - (1 / mode + z * z * mode) / 2

    def density(w):
        return mpmath.exp(-nu * w - (mpmath.exp(-w) + z * z * mpmath.exp(w)) / 2 - top)

    cuts = [math.log(mode) + j * width for j in (-12, -6, -3, -1, 0, 1, 3, 6, 12, 40, 120)]
    total = mpmath.quad(density, cuts)
    for q, v in zip(p.tolist(), y.tolist(), strict=True):
        w = math.log(v)
        left = mpmath.quad(density, sorted({min(c, w) for c in [*cuts, w]})) if w > cuts[0] else 0
        assert float(left / total) == pytest.approx(q, rel=1e-7, abs=1e-10)


# --- the flow ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "t"), [(1.3, 0.8), (1e-3, 2.0), (20.0, 5.0), (1.0, 0.002)])
def test_flow_in_the_plane_is_elementary(m: float, t: float):
    """Spec genphys 2.6: `(1 + m t rho / (rho + t)) / (t (1 + m rho))`, for one time and for one for each row."""
    s = torch.logspace(-3, 4, 200, dtype=F64)
    rho = (s**2 + t**2).sqrt()
    known = (1 + m * t * rho / (rho + t)) / (t * (1 + m * rho))
    process = df.Yukawa(m)
    torch.testing.assert_close(pace(process, s, t, 2), known, rtol=2e-7, atol=0)
    at = torch.full((200,), t, dtype=F64)
    got = process.pull(s**2, at, 2) * process.slopes(at)[1] / process.sigma(at)
    torch.testing.assert_close(got, known, rtol=3e-6, atol=0)


@pytest.mark.parametrize("process", [df.Yukawa(1.3), df.Hyperbolic(3.0, 1.2), df.Hyperbolic(0.7, 2.0)], ids=repr)
@pytest.mark.parametrize("n", [1, 3, 6])
def test_flow_carries_the_mass(process, n: int):
    """`J = -s^(1-n) int_0^s q^(n-1) dp/dt dq` (spec 2.6): the slope in time of the mass in a ball, by differences."""
    t, h = 0.8, 4e-3
    area = 2 * math.pi ** (n / 2) / math.gamma(n / 2)
    for s in (0.2, 1.0, 4.0):
        at = {j: mass_within(process, s, t + j * h, n) for j in (-2, -1, 1, 2)}
        rate = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * h)  # of fourth order
        flux = area * s**n * float(pace(process, s, t, n)) * math.exp(float(log_density(process, s, t, n)))
        assert -rate == pytest.approx(flux, rel=3e-6, abs=1e-7)  # masses to 1e-10, over h


@pytest.mark.parametrize("z", [1e-6, 0.1, 1.0, 10.0, 1e3, 1e6])
def test_the_lag_at_one_dimension_is_mills_ratio(z: float):
    table = lag(0.5, z)
    w = torch.linspace(table.start, table.start + 79, 500, dtype=F64)
    torch.testing.assert_close(table(w), lag_of_one(number(z), w.exp()), rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "process", [df.Yukawa(1.0), df.Hyperbolic(4.0, 0.7), df.MixedDiffusionPoisson(0.5, 2.0)], ids=repr
)
def test_distribution_function_is_conserved_along_the_exact_flow(process):
    """N = 1 (spec 8.7): `mean_i F(x - x_i; t)` from t = 4 to 0.2 by Runge-Kutta, 60 steps in ln t."""
    data = torch.tensor([[-1.0], [0.2], [1.5]], dtype=F64)

    def velocity(x, t):
        gap = x - data.T
        at = t.expand(1)
        weight = (process.log_kernel(x, t, data)).softmax(1)
        pull = process.pull(gap**2, t, 1)
        mean = (weight * (x - pull * gap)).sum(1, keepdim=True)
        assert at.shape == (1,)
        return process.velocity(x, t, mean)

    def below(x, t):
        total = 0.0
        for gap in (x - data)[:, 0].tolist():
            total += 0.5 + math.copysign(0.5, gap) * mass_within(process, abs(gap), t, 1)
        return total / 3

    x = torch.tensor([[2.0]], dtype=F64)
    first = below(x, 4.0)
    grid = torch.linspace(math.log(4.0), math.log(0.2), 61, dtype=F64)
    h = grid[1] - grid[0]
    for u in grid[:-1]:
        f = lambda x, u: u.exp() * velocity(x, u.exp())
        a = f(x, u)
        b = f(x + h / 2 * a, u + h / 2)
        c = f(x + h / 2 * b, u + h / 2)
        x = x + h / 6 * (a + 2 * b + 2 * c + f(x + h * c, u + h))
    assert below(x, 0.2) == pytest.approx(first, abs=1e-6)


def test_one_datum_keeps_its_share_of_the_disc():
    """N = 2 (spec 8.8): `(t / rho) exp(-m (rho - t))` along the flow of one datum."""
    m, process, y = 1.3, df.Yukawa(1.3), torch.zeros(1, 2, dtype=F64)
    x = torch.tensor([[1.5, 2.0]], dtype=F64)

    def beyond(x, t):
        rho = math.hypot(float(x.norm()), t)
        return t / rho * math.exp(-m * (rho - t))

    first = beyond(x, 3.0)
    grid = torch.linspace(math.log(3.0), math.log(0.05), 401, dtype=F64)
    h = grid[1] - grid[0]
    f = lambda x, u: u.exp() * process.velocity(x, u.exp(), process.target(x, u.exp(), y))
    for u in grid[:-1]:
        half = x + h / 2 * f(x, u)
        x = x + h * f(half, u + h / 2)
    assert beyond(x, 0.05) == pytest.approx(first, abs=1e-5)  # second order: 400 steps


# --- limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 64])
def test_without_mass_it_is_poisson_flow(n: int):
    s = torch.logspace(-2, 3, 40, dtype=F64)
    for D in (1.0, 3.0, 128.0):
        poisson = df.PFGMPP(D)
        torch.testing.assert_close(
            log_density(df.Hyperbolic(D, 0.0), s, 0.7, n), log_density(poisson, s, 0.7, n), rtol=1e-10, atol=1e-8
        )
    assert df.Hyperbolic(2.0, 0.0).pull(s, number(1.0), n) is None
    light, poisson = df.Yukawa(1e-11), df.PFGM()
    near = s[s < 100]
    torch.testing.assert_close(log_density(light, near, 0.7, n), log_density(poisson, near, 0.7, n), rtol=0, atol=1e-8)
    torch.testing.assert_close(pace(light, near, 0.7, n), torch.full_like(near, 1 / 0.7), rtol=0, atol=1e-8)
    for t in (1e-3, 2.0, 50.0):
        assert float(light.sigma(number(t))) == pytest.approx(t, rel=1e-6)


@pytest.mark.parametrize("n", [1, 2, 64])
def test_with_a_large_mass_it_is_diffusion(n: int):
    """The variance varies relatively by `1 / (m t)`, 1e-6 here, and the log-kernel with the square of `s^2 m / t`."""
    t, m = 4.0, 2.5e5
    deviation = math.sqrt(t / m)
    s = deviation * torch.linspace(0, 3, 20, dtype=F64) * math.sqrt(n)
    process = df.Yukawa(m)
    gauss = -(s**2) * m / (2 * t) - n / 2 * math.log(2 * math.pi * t / m)
    torch.testing.assert_close(log_density(process, s, t, n), gauss, rtol=0, atol=1e-5 * (n**2 + 1))
    torch.testing.assert_close(pace(process, s, t, n), torch.full_like(s, 1 / (2 * t)), rtol=1e-5 * (n + 10), atol=0)
    assert float(process.sigma(number(t))) == pytest.approx(deviation, rel=1e-6)


def test_mixed_equation_between_its_limits():
    """a = 0 is diffusion of variance `2 t / b`, b = 0 the Cauchy law of scale `t / sqrt(a)`, in between Yukawa's."""
    t, s, at = 1.7, torch.linspace(0, 3, 20, dtype=F64), number(1.7)
    heat, poisson, mixed = (df.MixedDiffusionPoisson(a, b) for a, b in ((0.0, 3.0), (4.0, 0.0), (0.7, 1.2)))
    deviation = math.sqrt(2 * t / 3)
    torch.testing.assert_close(log_density(heat, s, t, 2), log_density(df.EDM(), s, deviation, 2))
    torch.testing.assert_close(log_density(poisson, s, t, 2), log_density(df.PFGM(), s, t / 2, 2), atol=1e-8, rtol=0)
    inner = df.Yukawa(1.2 / (2 * math.sqrt(0.7)))
    torch.testing.assert_close(log_density(mixed, s, t, 2), log_density(inner, s, t / math.sqrt(0.7), 2))
    assert (heat.freedom, poisson.freedom) == (math.inf, 1.0)
    assert float(heat.sigma(at)) == pytest.approx(deviation)
    assert float(poisson.sigma(at)) == pytest.approx(t / 2)
    for process, law in ((heat, stats.norm(scale=deviation)), (poisson, stats.cauchy(scale=t / 2))):
        x = process.perturb(torch.zeros(20_000, 1, dtype=F64), at, seeded(4))[:, 0]
        assert stats.kstest(x.numpy(), law.cdf).pvalue > LEVEL
    near_heat, near_poisson = df.MixedDiffusionPoisson(1e-9, 3.0), df.MixedDiffusionPoisson(4.0, 1e-9)
    torch.testing.assert_close(log_density(near_heat, s, t, 2), log_density(heat, s, t, 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(log_density(near_poisson, s, t, 2), log_density(poisson, s, t, 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(heat.score(s[:, None], at, 0 * s[:, None]), -s[:, None] / deviation**2)
    with pytest.raises(TypeError, match="does not follow"):
        mixed.score(s[:, None], at, s[:, None])


@pytest.mark.parametrize(
    "process", [df.Yukawa(2.0), df.Hyperbolic(5.0, 0.3), df.MixedDiffusionPoisson(0.3, 2.0)], ids=repr
)
def test_level_time_and_slope_agree(process):
    level = torch.logspace(-4, 4, 30, dtype=F64)
    t = process.time(level)
    torch.testing.assert_close(process.level(t), level, rtol=1e-12, atol=0)
    at = t.clone().requires_grad_()
    torch.testing.assert_close(process.slopes(t)[1], torch.autograd.grad(process.sigma(at).sum(), at)[0])
    torch.testing.assert_close(
        process.level(torch.tensor(process.span, dtype=F64)), torch.tensor(process.levels, dtype=F64)
    )
    assert float(process.level(number(0.0))) == 0


# --- moves and the house -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", [df.Yukawa(1.3), df.Hyperbolic(3.0, 1.2), df.Hyperbolic(0.8, 0.5)], ids=repr)
def test_upward_moves_are_exact_and_compose(process):
    """By Kolmogorov-Smirnov on 10,000 radii: from the data in two moves against one draw; and one move against two."""
    zero = torch.zeros(10_000, 2, dtype=F64)
    s, u, t = number(0.4), number(0.9), number(1.6)
    rng = seeded(5, int(10 * process.D))
    up = process.diffuse(process.perturb(zero, s, rng), s, t, rng).norm(dim=1)
    assert stats.ks_2samp(up.numpy(), radii(process, 1.6, 2, 10_000, 6)).pvalue > LEVEL
    two = process.diffuse(process.diffuse(zero, s, u, rng), u, t, rng).norm(dim=1)
    one = process.diffuse(zero, s, t, rng).norm(dim=1)
    assert stats.ks_2samp(two.numpy(), one.numpy()).pvalue > LEVEL
    assert torch.equal(process.diffuse(zero, t, t, rng), zero)


EACH = [df.Yukawa(1.0), df.Hyperbolic(3.0, 1.2), df.MixedDiffusionPoisson(0.5, 2.0), df.MixedDiffusionPoisson(0.0, 2.0)]


@pytest.mark.parametrize("process", EACH, ids=repr)
def test_rows_and_types(process):
    x, s, t = torch.randn(6, 2, 3, generator=seeded(7)), number(0.5), number(0.9)
    for move, times in ((process.perturb, (t,)), (process.diffuse, (s, t))):
        whole = move(x, *times, rows(3, 0, 6))
        parts = [move(x[i:j], *times, rows(3, i, j)) for i, j in ((0, 1), (1, 4), (4, 6))]
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-6, atol=0)
    for dtype in (torch.float32, F64):
        y = x.to(dtype)
        for at in (t, t.expand(6), t.expand(6).float()):
            for got in (
                process.perturb(y, at, seeded(8)),
                process.velocity(y, at, y),
                process.target(y, at, torch.zeros_like(y)),
                process.log_kernel(y, at, y[:2]),
            ):
                assert got.dtype == dtype
    torch.testing.assert_close(process.target(x, t.expand(6), 0 * x), process.target(x, t, 0 * x), rtol=1e-5, atol=1e-5)
    assert process.prior((3, 2), seeded(9)).dtype == torch.float32


def test_exact_field_has_gradients():
    """Through the tables of the pull: against central differences."""
    process = df.Yukawa(1.0)
    data = torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=F64)
    exact = df.Empirical(process, data)
    x = torch.tensor([[0.3, -0.2]], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: exact(x, number(0.7)), x, atol=1e-5)


def test_bad_parameters_are_refused():
    for make, words in (
        (lambda: df.Yukawa(-1.0), "mass is an inverse length"),
        (lambda: df.Yukawa(math.nan), "mass is an inverse length"),
        (lambda: df.Hyperbolic(0.0, 1.0), "D must be in"),
        (lambda: df.Hyperbolic(math.inf, 1.0), "EDM"),
        (lambda: df.MixedDiffusionPoisson(-1.0, 1.0), "finite and >= 0"),
        (lambda: df.MixedDiffusionPoisson(0.0, 0.0), "not both 0"),
        (lambda: df.MixedDiffusionPoisson(1e-14, 1.0), "take a=0"),
        (lambda: df.Yukawa(levels=(0.0, 1.0)), "above 0"),
        (lambda: df.Yukawa(levels=(2.0, 1.0)), "least < most"),
        (lambda: df.Yukawa().diffuse(torch.zeros(1, 1), number(2.0), number(1.0), seeded(0)), "s <= t"),
        (
            lambda: df.Hyperbolic(2.0).diffuse(torch.zeros(1, 1), number(1 - 1e-9), number(1.0), seeded(0)),
            "merge times",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            make()
