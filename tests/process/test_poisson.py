"""Poisson flow: its kernel is Student's t, its flow is that of the charges, its upward move is exact."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from driftfield.process.gaussian import EDM
from driftfield.process.poisson import PFGM, PFGMPP, _jump
from driftfield.rng import chi_square, rows, seeded
from driftfield.special import log_bessel_k

DOUBLE = torch.float64
INF = math.inf
# Kolmogorov-Smirnov tests have fixed seeds. Each asks for p > 1e-5: with fewer than 100 of them in this file, a right
# implementation would fail any with probability below 1e-3 were the seeds drawn afresh (Bonferroni).
LEVEL = 1e-5


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=DOUBLE)


def ks(values: Tensor) -> float:
    """The p-value that `values` are uniform on [0, 1]."""
    return float(stats.kstest(values.numpy(), "uniform").pvalue)


def radius_law(r2: Tensor, t: float, n: int, D: float) -> Tensor:
    """The probability that the noise at `t` is longer than it is: `R^2 / (D t^2)` is BetaPrime(n / 2, D / 2)."""
    if D == INF:
        return torch.from_numpy(stats.chi2(n).sf((r2 / t**2).numpy()))
    return torch.from_numpy(special.betainc(D / 2, n / 2, (1 / (1 + r2.double() / (D * t**2))).numpy()))


def squared(x: Tensor) -> Tensor:
    return x.double().flatten(1).square().sum(1)


def posterior_mean(process: PFGMPP, x: Tensor, t: Tensor, data: Tensor) -> Tensor:
    return torch.softmax(process.log_kernel(x, t, data), 1) @ data


# --- the noise ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 64, 3072])
@pytest.mark.parametrize("D", [0.5, 1.0, 4.0, 128.0, 2048.0])
def test_radius_of_the_noise_is_beta_prime(n: int, D: float) -> None:
    """In float32, where nothing is clipped and nothing overflows."""
    x = PFGMPP(D).prior((2000, n), seeded(1, n, int(2 * D)))
    assert x.dtype == torch.float32
    assert x.isfinite().all()
    assert ks(radius_law(squared(x), 80.0, n, D)) > LEVEL


@pytest.mark.parametrize(("D", "quantile", "probability"), [(2.0, 1.0, 0.5), (1.0, 3**0.5, 0.5), (4.0, 1.0, 0.75)])
def test_radius_in_the_plane_is_elementary(D: float, quantile: float, probability: float) -> None:
    """`P(R <= rho) = 1 - (1 + rho^2 / r^2)^(-D/2)`: the bound is five standard deviations of a binomial fraction."""
    x = PFGMPP(D).perturb(torch.zeros(40000, 2, dtype=DOUBLE), number(0.7), seeded(2))
    fraction = (squared(x).sqrt() <= quantile * 0.7 * D**0.5).double().mean()
    assert abs(float(fraction) - probability) < 5 * (probability * (1 - probability) / 40000) ** 0.5
    assert ks((1 + squared(x) / (0.49 * D)) ** (-D / 2)) > LEVEL


def test_second_moment_of_the_noise() -> None:
    """`E R^2 = t^2 N D / (D - 2)` and the moments of `R1 = R^2 / (R^2 + r^2)`; five standard errors each."""
    n, D, count = 8, 64.0, 20000
    r2 = squared(PFGMPP(D).perturb(torch.zeros(count, n, dtype=DOUBLE), number(2.0), seeded(3)))
    known = 4 * n * D / (D - 2)
    spread = known * math.sqrt(2 * (n + D - 2) / (n * (D - 4)))  # of the F law of R^2 / (n t^2)
    assert abs(float(r2.mean()) - known) < 5 * spread / count**0.5
    r1 = r2 / (r2 + 4 * D)
    variance = 2 * n * D / ((n + D) ** 2 * (n + D + 2))
    assert abs(float(r1.mean()) - n / (n + D)) < 5 * (variance / count) ** 0.5
    assert float(r1.var()) == pytest.approx(variance, rel=5 * (2.5 / count) ** 0.5)


def test_rows_share_one_chi_square_over_their_coordinates() -> None:
    """The kernel is spherical: given the same normal draws, every coordinate of a row is stretched alike."""
    shape, t = (5, 3, 4), number(1.3)
    noise = PFGMPP(3.0).noise(torch.zeros(shape, dtype=DOUBLE), seeded(4))
    ratio = noise / PFGMPP(INF).noise(torch.zeros(shape, dtype=DOUBLE), seeded(4))
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand(shape))
    assert ratio[:, 0, 0].unique().numel() == 5
    x0 = torch.randn(shape, generator=seeded(5), dtype=DOUBLE)
    torch.testing.assert_close(PFGMPP(3.0).perturb(x0, t, seeded(4)), x0 + t * noise)


def test_prior_of_pfgm_is_the_projected_hemisphere() -> None:
    """Cauchy: `P(R <= rho) = 1 - z / sqrt(rho^2 + z^2)` in the plane, and density 1 / (2 pi) at 0 for z = 1."""
    process = PFGM(span=(1e-3, 1.0))
    x = process.prior((4000, 2), seeded(6), DOUBLE)
    assert ks(1 / (squared(x) + 1).sqrt()) > LEVEL
    at = process.prior_log_prob(torch.zeros(1, 2, dtype=DOUBLE))
    torch.testing.assert_close(at.exp(), torch.tensor([1 / (2 * math.pi)], dtype=DOUBLE))


# --- the kernel --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("D", [0.5, 1.0, 4.0, 37.5, 2048.0, 1e7])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_log_density_is_multivariate_student(D: float, n: int) -> None:
    x = 3 * torch.randn(20, n, generator=seeded(7), dtype=DOUBLE)
    process, t = PFGMPP(D), number(1.7)
    got = process.log_profile(squared(x), t, n) + process.log_peak(t, n)
    known = stats.multivariate_t(np.zeros(n), 1.7**2 * np.eye(n), df=D).logpdf(x.numpy())
    torch.testing.assert_close(got, torch.from_numpy(known), rtol=1e-9, atol=1e-7 if D > 1e5 else 1e-11)


def test_log_density_has_the_printed_values() -> None:
    process = PFGMPP(4.0)  # r = 2, so t = 1
    got = process.log_profile(number(1.0), number(1.0), 2) + process.log_peak(number(1.0), 2)
    assert float(got) == pytest.approx(math.log(2 * 16 / (math.pi * 125)), abs=1e-14)
    assert float(got) == pytest.approx(-2.5073077, abs=5e-8)
    assert float(PFGM().log_peak(number(1.0), 1)) == pytest.approx(-math.log(math.pi), abs=1e-14)


@pytest.mark.parametrize("D", [1.0, 128.0, 1e12])
def test_peak_is_accurate_in_many_dimensions(D: float) -> None:
    """For even N the ratio of gamma functions is a product: `ln Gamma(D/2 + N/2) / Gamma(D/2)`, N = 3072."""
    known = math.fsum(math.log((D / 2 + j) / (math.pi * D)) for j in range(1536)) - 3072 * math.log(0.3)
    assert float(PFGMPP(D).log_peak(number(0.3), 3072)) == pytest.approx(known, abs=1e-9)


@pytest.mark.parametrize("n", [2, 64])
def test_log_kernel_approaches_the_gaussian_with_its_first_correction(n: int) -> None:
    """`-d^2/2 - N d^2 / 2D + d^4 / 4D + O(1/D^2)`; the next term, `N d^4 / 4 - d^6 / 6`, is asserted as well."""
    d2, t = number(1.1 * n), number(1.0)
    gauss = EDM().log_profile(d2, t, n)
    for D in (1e4, 1e5):
        rest = PFGMPP(D).log_profile(d2, t, n) - gauss - (d2**2 / 4 - n * d2 / 2) / D
        assert float(rest) * D**2 == pytest.approx(float(n * d2**2 / 4 - d2**3 / 6), rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_weights_at_huge_D_are_those_of_the_gaussian(dtype: torch.dtype) -> None:
    data = torch.randn(200, 12, generator=seeded(8), dtype=DOUBLE).to(dtype)
    x = torch.randn(5, 12, generator=seeded(9), dtype=DOUBLE).to(dtype)
    big, limit = (torch.softmax(PFGMPP(D).log_kernel(x, number(1.5), data), 1) for D in (1e9, INF))
    assert float((big - limit).abs().sum(1).max()) / 2 < 1e-6


def test_huge_D_draws_gaussian_noise() -> None:
    noise = PFGMPP(1e9).noise(torch.zeros(20000, 5, dtype=DOUBLE), seeded(10))
    assert ks(radius_law(squared(noise), 1.0, 5, INF)) > LEVEL


@pytest.mark.parametrize(("D", "k", "known"), [(3.0, 1.0, 0.6268), (7.5, 2.5, 0.4423), (1.0, 2.0, math.exp(-2.6))])
def test_characteristic_function_is_matern(D: float, k: float, known: float) -> None:
    """`2^(1-D/2) / Gamma(D/2) (rk)^(D/2) K_{D/2}(rk)` at r = 1.3; the exponential of a Cauchy law at D = 1."""
    r, nu = 1.3, D / 2
    log = (1 - nu) * math.log(2) - math.lgamma(nu) + nu * math.log(r * k) + log_bessel_k(nu, number(r * k))
    assert float(log.exp()) == pytest.approx(known, abs=1e-4)
    x = PFGMPP(D).perturb(torch.zeros(40000, 1, dtype=DOUBLE), number(r / D**0.5), seeded(11, int(D)))
    wave = (k * x).cos()
    assert abs(float(wave.mean() - log.exp())) < 5 * float(wave.std()) / 200


@pytest.mark.parametrize("shape", [(4, 1), (4, 5), (4, 3, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_infinite_D_is_edm_bit_for_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    ours, edm = PFGMPP(D=INF), EDM()
    x0 = torch.randn(shape, generator=seeded(12), dtype=dtype)
    for t in (number(1.9), torch.tensor([0.1, 1.0, 3.0, 80.0], dtype=dtype), torch.full((4,), 0.3, dtype=DOUBLE)):
        x, y = ours.perturb(x0, t, seeded(13)), x0 / 2
        for got, known in (
            (x, edm.perturb(x0, t, seeded(13))),
            (ours.log_kernel(x, t, x0), edm.log_kernel(x, t, x0)),
            (ours.velocity(x, t, y), edm.velocity(x, t, y)),
            (ours.score(x, t, y), edm.score(x, t, y)),
            (ours.diffuse(x, t / 2, t, seeded(14)), edm.diffuse(x, t / 2, t, seeded(14))),
            (ours.diffuse_published(x, t / 2, t, seeded(14)), edm.diffuse(x, t / 2, t, seeded(14))),
            (ours.log_peak(t, 7), edm.log_peak(t, 7)),
        ):
            assert got.dtype == known.dtype
            assert torch.equal(got, known)
    assert torch.equal(ours.prior((3, 2), seeded(15)), edm.prior((3, 2), seeded(15)))
    assert torch.equal(ours.noise(x0, seeded(15)), edm.noise(x0, seeded(15)))
    assert torch.equal(ours.prior_log_prob(x0), edm.prior_log_prob(x0))


# --- the flow ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("D", [0.5, 1.0, 64.0])
def test_one_datum_is_recovered_by_euler_exactly(D: float) -> None:
    process, y = PFGMPP(D), torch.randn(3, 4, generator=seeded(16), dtype=DOUBLE)
    start = x = process.perturb(y, number(80.0), seeded(17))
    grid = torch.tensor([80.0, 13.0, 2.0, 0.002, 0.0], dtype=DOUBLE)
    for t, s in pairwise(grid):
        x = x + (s - t) * process.velocity(x, t, y)
        torch.testing.assert_close(x, y + (start - y) * s / 80, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("D", "end", "below"),
    [
        (1.0, 0.5548124, 0.6045800),
        (3.0, 0.5743800, 0.6233079),
        (50.0, 0.5929343, 0.6346128),
        (INF, 0.5929984, 0.6353837),
    ],
)
def test_flow_of_three_charges_is_a_quantile_map(D: float, end: float, below: float) -> None:
    """From x = 2 at t = 5 to t = 0.3 by fourth-order Runge-Kutta in ln t: 400 steps, an error of 1e-10. The
    printed digits are 7 after the point, and the last may be off by one."""
    process, data = PFGMPP(D), torch.tensor([[-1.0], [0.2], [1.5]], dtype=DOUBLE)
    law = stats.norm if D == INF else stats.t(D)

    def mass(x: Tensor, t: float) -> float:
        return float(np.mean(law.cdf((x - data).numpy() / t)))

    def rate(x: Tensor, log_t: Tensor) -> Tensor:
        t = log_t.exp()
        return t * process.velocity(x, t, posterior_mean(process, x, t, data))

    x = torch.tensor([[2.0]], dtype=DOUBLE)
    assert mass(x, 5.0) == pytest.approx(below, abs=1e-7)
    grid = torch.linspace(math.log(5), math.log(0.3), 401, dtype=DOUBLE)
    h = grid[1] - grid[0]
    for t in grid[:-1]:
        a = rate(x, t)
        b = rate(x + h / 2 * a, t + h / 2)
        c = rate(x + h / 2 * b, t + h / 2)
        x = x + h / 6 * (a + 2 * b + 2 * c + rate(x + h * c, t + h))
    assert float(x) == pytest.approx(end, abs=1e-7)
    assert mass(x, 0.3) == pytest.approx(below, abs=1e-7)


def test_at_D_1_the_field_is_that_of_charges_on_a_plane() -> None:
    """PFGM's field in `N + 1` dimensions, written out: `E ~ sum (x - y, z) / rho^(N+1)`, and `dx/dz = E_x / E_z`."""
    data = torch.randn(30, 3, generator=seeded(18), dtype=DOUBLE)
    x, z = 2 * torch.randn(6, 3, generator=seeded(19), dtype=DOUBLE), number(0.8)
    gap = torch.cat((x[:, None] - data, z.expand(6, 30, 1)), 2)
    field = (gap / gap.norm(dim=2, keepdim=True) ** 4).sum(1)
    process = PFGM()
    got = process.velocity(x, z, posterior_mean(process, x, z, data))
    torch.testing.assert_close(got, field[:, :3] / field[:, 3:], rtol=1e-11, atol=1e-11)


def test_cauchy_data_flow_as_one_charge_below_the_plane() -> None:
    """D = 1, data of scale s: `dx/dt = x / (t + s)`. The mean over the data is a midpoint rule in their angle.

    The integrand is smooth and periodic in the angle, so the rule converges geometrically.
    """
    s, t = 0.5, number(0.9)
    angle = (torch.arange(800, dtype=DOUBLE) + 0.5) / 800 * math.pi - math.pi / 2
    x = torch.tensor([[0.3], [-1.0], [4.0]], dtype=DOUBLE)
    process = PFGM()
    got = process.velocity(x, t, posterior_mean(process, x, t, s * angle.tan()[:, None]))
    torch.testing.assert_close(got, x / (t + s), rtol=1e-10, atol=1e-10)


def test_gaussian_data_at_infinite_D() -> None:
    """The denoiser `x s^2 / (s^2 + t^2)` gives `x(t) ~ sqrt(s^2 + t^2)`: its logarithmic slope is t / (s^2 + t^2)."""
    s, t, x = 0.7, number(1.1), torch.randn(4, 2, generator=seeded(20), dtype=DOUBLE)
    got = PFGMPP(INF).velocity(x, t, x * s**2 / (s**2 + t**2))
    torch.testing.assert_close(got, x * t / (s**2 + t**2))


@pytest.mark.parametrize("D", [0.5, 1.0, 3.7, 20.0, INF])
@pytest.mark.parametrize("n", [1, 2])
def test_density_and_flow_obey_continuity(D: float, n: int) -> None:
    """`dp/dt + div(p v) = 0` for a mixture of three charges, differentiated automatically: no step size."""
    process = PFGMPP(D)
    data = torch.tensor([[-1.0, 0.4], [0.2, -0.6], [1.5, 1.0]], dtype=DOUBLE)[:, :n]

    def density(x: Tensor, t: Tensor) -> Tensor:
        d2 = (x - data).square().sum(1)
        return (process.log_profile(d2, t, n) + process.log_peak(t, n)).exp().mean()

    def flux(x: Tensor, t: Tensor) -> Tensor:
        y = posterior_mean(process, x[None], t, data)
        return density(x, t) * process.velocity(x[None], t, y)[0]

    t = number(0.8)
    for x in torch.tensor([[0.1, 0.3], [-1.2, -0.5], [2.0, 0.9], [0.7, -1.4]], dtype=DOUBLE)[:, :n]:
        rate = torch.func.jacrev(density, 1)(x, t)
        divergence = torch.func.jacrev(flux, 0)(x, t).trace()
        assert abs(float(rate)) > 1e-3  # so that the two sides are not both nothing
        torch.testing.assert_close(rate, -divergence, rtol=1e-10, atol=1e-13)


# --- the upward move ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [1.001, 1.4, 12.0, 1e4])
@pytest.mark.parametrize("D", [0.5, 1.0, 4.0, 6.0, 128.0, 2048.0])
def test_upward_move_has_the_exact_marginal(D: float, ratio: float) -> None:
    process, s = PFGMPP(D), number(0.6)
    x0 = torch.tensor([[3.0, -2.0, 0.5]], dtype=DOUBLE).expand(20000, 3)
    rng = seeded(22, int(2 * D), int(1000 * ratio))
    x = process.diffuse(process.perturb(x0, s, rng), s, ratio * s, rng)
    assert ks(radius_law(squared(x - x0), 0.6 * ratio, 3, D)) > LEVEL


@pytest.mark.parametrize("D", [0.5, 1.0, 6.0, 128.0])
def test_upward_moves_compose(D: float) -> None:
    """Two moves have the law of one. A two-sample Kolmogorov-Smirnov test of the length of the increment alone."""
    process, zero = PFGMPP(D), torch.zeros(20000, 2, dtype=DOUBLE)
    rng = seeded(23, int(2 * D))
    s, u, t = number(1.0), number(1.3), number(2.0)
    two = squared(process.diffuse(process.diffuse(zero, s, u, rng), u, t, rng))
    one = squared(process.diffuse(zero, s, t, rng))
    assert stats.ks_2samp(one.numpy(), two.numpy()).pvalue > LEVEL


def grid_of_probability() -> Tensor:
    logit = torch.linspace(-20, 20, 4001, dtype=DOUBLE)
    return torch.sigmoid(logit)


@pytest.mark.parametrize("q", [0.0, 1e-4, 0.5, 0.99, 0.999, 1 - 1e-6])
def test_table_at_D_1_is_the_cauchy_increment(q: float) -> None:
    """The variance of a Cauchy step of scale `1 - q` is `(1 - q)^2 / chi2_1`."""
    u = grid_of_probability()
    y = _jump(1.0, q, u.device).quantile(u)
    assert float((torch.erfc((1 - q) / (2 * y).sqrt()) - u).abs().max()) < 1e-8


@pytest.mark.parametrize("q", [1e-3, 0.5, 0.99, 0.999])
def test_table_at_D_3_is_elementary(q: float) -> None:
    """From `exp(-(1 - q) z) (1 + z) / (1 + q z)`, inverted by a table of transforms.

    Source: Abramowitz and Stegun 29.3.89. [abramowitz1964handbook]
    """
    u = grid_of_probability()
    y = _jump(3.0, q, u.device).quantile(u).numpy()
    k, a = (1 - q) * math.sqrt(6), 1 / (q * math.sqrt(6))
    c = k / (2 * np.sqrt(y))
    below = special.erfc(c) + (1 / q - 1) * np.exp(-(c**2)) * special.erfcx(a * np.sqrt(y) + c)
    assert float(np.abs(below - u.numpy()).max()) < 1e-8


def log_student_transform(D: float, lam: float) -> float:
    """`ln E exp(-lam D / chi2_D)` by quadrature over the logarithm of chi2_D: no Bessel function anywhere."""
    middle, width = special.gammaln(D / 2), math.sqrt(2 / D)
    w = np.linspace(math.log(D) - 20 * width * (1 + 4 / D), math.log(D) + 20 * width + 5 * (D < 50), 200001)
    log = (D / 2) * (w - math.log(2)) - np.exp(w) / 2 - middle - lam * D * np.exp(-w)
    return float(special.logsumexp(log) + math.log(w[1] - w[0]))


@pytest.mark.parametrize("q", [0.1, 0.7, 0.99])
@pytest.mark.parametrize("D", [0.5, 4.0, 6.0, 50.0, 128.0, 2048.0, 1e5])
def test_table_has_the_laplace_transform_of_the_jump(D: float, q: float) -> None:
    """The table, integrated by the trapezoidal rule in the logit of u, against a quadrature over chi-square."""
    logit = torch.linspace(-36, 36, 20001, dtype=DOUBLE)
    u = torch.sigmoid(logit)
    law = _jump(D, q, u.device)
    y, du = law.quantile(u), u * torch.sigmoid(-logit) * (logit[1] - logit[0])
    for p in (0.02, 0.5, 0.98):
        lam = 1 / float(law.quantile(number(p)))
        got = float((du * (-lam * y).exp()).sum())
        known = math.exp(log_student_transform(D, lam) - log_student_transform(D, lam * q**2))
        assert got == pytest.approx(known, abs=1e-7)


@pytest.mark.parametrize("q", [0.0, 0.9, 0.999])
@pytest.mark.parametrize("D", [6.0, 128.0, 2048.0, 3072000.0, 1e12])
def test_table_has_the_mean_of_the_jump(D: float, q: float) -> None:
    """`E Y = D / (D - 2) (1 - q^2)`, and `Var Y = 2 D^2 / ((D - 2)^2 (D - 4)) (1 - q^4)` as far as it is known."""
    logit = torch.linspace(-36, 36, 20001, dtype=DOUBLE)
    u = torch.sigmoid(logit)
    y, du = _jump(D, q, u.device).quantile(u), u * torch.sigmoid(-logit) * (logit[1] - logit[0])
    mean, variance = D / (D - 2) * (1 - q**2), 2 * D**2 / ((D - 2) ** 2 * (D - 4)) * (1 - q**4)
    deviation = float((du * (y - mean)).sum())
    assert abs(deviation) < 2e-5 * mean if D < 10 else abs(deviation) < 1e-6 * variance**0.5
    if D > 10:
        assert float((du * (y - mean).square()).sum()) == pytest.approx(variance, rel=1e-5)


def test_table_does_not_jump_where_the_bessel_function_changes_method() -> None:
    """In probability: `d ln y` is `slope d logit(u)`, `du = u (1 - u) d logit(u)`, and the slope here is about 0.2."""
    u = grid_of_probability()
    for q in (0.0, 0.5, 0.999):
        direct, series = (_jump(D, q, u.device).quantile(u) for D in (60 - 1e-9, 60.0))
        assert float(((direct / series).log() * u * (1 - u)).abs().max()) < 2e-10


def test_table_is_increasing_over_all_of_its_domain() -> None:
    tails = torch.logspace(-15, -2, 500, dtype=DOUBLE)
    u = torch.cat((number(0.0)[None], tails, torch.linspace(0.01, 0.99, 9999, dtype=DOUBLE), (1 - tails).flip(0)))
    for D in (0.1, 0.5, 1.0, 50.0, 2048.0, 1e12, 1e16):
        for q in (0.0, 1e-12, 0.5, 0.999, 1 - 1e-6):
            y = _jump(D, q, u.device).quantile(u)
            assert y.isfinite().all()
            assert (y.diff() >= 0).all()


def test_upward_move_at_equal_times_changes_nothing() -> None:
    x = torch.randn(4, 3, generator=seeded(24), dtype=DOUBLE)
    for t in (number(0.0), number(1.0), torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=DOUBLE)):
        assert torch.equal(PFGMPP(4.0).diffuse(x, t, t, seeded(25)), x)


def test_upward_move_from_data_is_the_kernel() -> None:
    x = PFGMPP(4.0).diffuse(torch.zeros(20000, 2, dtype=DOUBLE), number(0.0), number(3.0), seeded(26))
    assert ks(radius_law(squared(x), 3.0, 2, 4.0)) > LEVEL


def test_upward_move_takes_a_time_for_each_row() -> None:
    process, x = PFGMPP(2.5), torch.randn(4, 3, generator=seeded(27), dtype=DOUBLE)
    s = torch.tensor([0.1, 0.5, 2.0, 0.0], dtype=DOUBLE)
    t = torch.tensor([0.2, 0.5, 9.0, 1.0], dtype=DOUBLE)
    got = process.diffuse(x, s, t, rows(7, 0, 4))
    for i in range(4):
        alone = process.diffuse(x[i : i + 1], s[i], t[i], rows(7, i, i + 1))
        torch.testing.assert_close(got[i : i + 1], alone, rtol=1e-14, atol=0)


def test_published_jump_from_data_is_the_kernel() -> None:
    for D in (1.0, 2.5, 4.0):
        x = PFGMPP(D).diffuse_published(torch.zeros(20000, 2, dtype=DOUBLE), number(1e-9), number(3.0), seeded(28))
        assert ks(radius_law(squared(x), 3.0, 2, D)) > LEVEL


def test_published_jump_tends_to_the_gaussian_one() -> None:
    x = PFGMPP(1e9).diffuse_published(torch.zeros(20000, 2, dtype=DOUBLE), number(1.2), number(2.0), seeded(29))
    assert ks(radius_law(squared(x), math.sqrt(4 - 1.44), 2, INF)) > LEVEL


@pytest.mark.parametrize("D", [1.0, 2.0, 5.0])
def test_published_jump_follows_a_field_line_of_the_full_space(D: float) -> None:
    """For whole D, against the construction with vectors in `N + D` dimensions (two samples)."""
    n, k, s, t, count = 2, int(D), 1.0, 1.05, 40000
    low, high = s * D**0.5, t * D**0.5
    z = torch.randn(count, k, generator=seeded(30, k), dtype=DOUBLE)
    z = low * z / z.norm(dim=1, keepdim=True)
    u = torch.randn(count, n + k, generator=seeded(31, k), dtype=DOUBLE)
    u = u / u[:, n:].norm(dim=1, keepdim=True)
    dot = (z * u[:, n:]).sum(1)
    known = squared((-dot + (dot**2 + high**2 - low**2).sqrt())[:, None] * u[:, :n])
    zero = torch.zeros(count, n, dtype=DOUBLE)
    got = squared(PFGMPP(D).diffuse_published(zero, number(s), number(t), seeded(32, k)))
    assert stats.ks_2samp(got.numpy(), known.numpy()).pvalue > LEVEL


def test_published_jump_misses_the_marginal_that_the_exact_one_has() -> None:
    """At D = 4, N = 2, one level up by half: with 40,000 draws the miss is certain, the exact move passes."""
    process, zero, s, t = PFGMPP(4.0), torch.zeros(40000, 2, dtype=DOUBLE), number(1.0), number(1.5)
    x = process.perturb(zero, s, seeded(33))
    exact = process.diffuse(x, s, t, seeded(34))
    published = process.diffuse_published(x, s, t, seeded(34))
    assert ks(radius_law(squared(exact), 1.5, 2, 4.0)) > LEVEL
    assert ks(radius_law(squared(published), 1.5, 2, 4.0)) < 1e-12


# --- the house ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("D", [0.5, 1.0, 128.0, INF])
def test_a_row_does_not_depend_on_its_batch(D: float) -> None:
    process, s, t = PFGMPP(D), number(0.5), number(0.9)
    if D < 1:
        moves = (process.perturb, process.diffuse)
    else:
        moves = (process.perturb, process.diffuse, process.diffuse_published)
    x = torch.randn(6, 2, 3, generator=seeded(35))
    for move in moves:
        times = (t,) if move == process.perturb else (s, t)
        whole = move(x, *times, rows(3, 0, 6))
        parts = [move(x[i:j], *times, rows(3, i, j)) for i, j in ((0, 1), (1, 4), (4, 6))]
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_grid_times_never_promote_a_state(dtype: torch.dtype) -> None:
    process, x = PFGMPP(8.0), torch.zeros(3, 2, dtype=dtype)
    s, t = number(0.5), number(1.0)
    s3, t3 = s.expand(3), t.expand(3)
    for got in (
        process.perturb(x, t, seeded(36)),
        process.diffuse(x, s, t, seeded(36)),
        process.diffuse_published(x, s, t, seeded(36)),
        process.perturb(x, t3, seeded(36)),
        process.diffuse(x, s3, t3, seeded(36)),
        process.diffuse_published(x, s3, t3, seeded(36)),
        process.velocity(x, t, x),
        process.velocity(x, t3, x),
        process.log_kernel(x, t, x),
        process.log_kernel(x, t3, x),
        process.prior((3, 2), seeded(36), dtype),
        process.prior_log_prob(x),
    ):
        assert got.dtype == dtype


def test_equal_steps_of_a_grid_share_one_table() -> None:
    _jump.cache_clear()
    x = torch.zeros(2, 2)
    for t in torch.logspace(-2, 1, 12, dtype=DOUBLE):
        x = PFGMPP(9.0).diffuse(x, t, t * 1.37, seeded(37))
    assert _jump.cache_info().misses == 1


def test_noise_is_the_scale_times_the_normal_draw() -> None:
    """The chi-square is drawn after the normals: the order of the draws is a promise of the seeds."""
    rng, like = seeded(38), torch.zeros(5, 3, dtype=DOUBLE)
    g = torch.randn(5, 3, generator=rng, dtype=DOUBLE)
    c = chi_square(3.0, torch.ones(5, dtype=DOUBLE), rng)
    torch.testing.assert_close(PFGMPP(3.0).noise(like, seeded(38)), g * (3 / c).sqrt()[:, None])


def test_pfgm_is_pfgmpp_at_D_1() -> None:
    process = PFGM()
    assert (process.D, process.span) == (1.0, (1e-3, 40.0))
    assert isinstance(process, PFGMPP)
    assert process == PFGM(span=(1e-3, 40.0))
    assert repr(process).startswith("PFGM(D=1.0")
    assert PFGMPP(D=2) == PFGMPP(D=2.0)
    assert isinstance(PFGMPP(D=2).D, float)
    with pytest.raises(TypeError):
        PFGM(D=3.0)  # type: ignore[call-arg]


@pytest.mark.parametrize("D", [0.0, -1.0, -INF, math.nan, 1e17])
def test_a_wrong_D_is_refused(D: float) -> None:
    with pytest.raises(ValueError, match="D must be in"):
        PFGMPP(D)


def test_what_does_not_exist_is_refused() -> None:
    x, t = torch.zeros(2, 2), number(1.0)
    with pytest.raises(TypeError, match="score of PFGMPP does not follow"):
        PFGMPP(4.0).score(x, t, x)
    for process in (PFGMPP(4.0), PFGMPP(INF)):
        for move in (process.diffuse, process.diffuse_published):
            with pytest.raises(ValueError, match="0 <= s <= t"):
                move(x, t, t / 2, seeded(0))
    with pytest.raises(ValueError, match="merge levels closer"):
        PFGMPP(4.0).diffuse(x, t, t * (1 + 1e-8), seeded(0))
    with pytest.raises(ValueError, match="D >= 1"):
        PFGMPP(0.5).diffuse_published(x, t, 2 * t, seeded(0))
    with pytest.raises(ValueError, match="least < most"):
        PFGMPP(4.0, span=(1.0, 0.5))


# --- PFGM's prior ------------------------------------------------------------------------------------------------


def test_prior_density_of_pfgm() -> None:
    """In the plane at z_max = 1: `1 / (2 pi)` at the centre (spec/pfgm.md 8.6); with the area of the hemisphere."""
    x = torch.tensor([[0.0, 0.0], [3.0, -1.0]], dtype=DOUBLE)
    density = PFGM(span=(1e-3, 1.0)).prior_log_prob(x).exp()
    torch.testing.assert_close(density, 1 / (2 * math.pi * (x.square().sum(1) + 1) ** 1.5))
    log_area = math.log(2) + 3073 / 2 * math.log(math.pi) - math.lgamma(3073 / 2)
    assert log_area == pytest.approx(-7974.8834, abs=1e-3)
    top = PFGM().prior_log_prob(torch.zeros(1, 3072, dtype=DOUBLE)).item()
    assert top == pytest.approx(math.log(2) - log_area - 3072 * math.log(40), rel=1e-12)


@pytest.mark.parametrize("n", [2, 64])
def test_prior_of_pfgm_is_a_hemisphere_seen_from_the_centre(n: int) -> None:
    """The radius of uniform points of a hemisphere, projected onto the plane z_max, has the law of the prior's."""
    q = torch.randn(4000, n + 1, generator=seeded(7), dtype=DOUBLE)
    projected = 40 * q[:, :-1] / q[:, -1:].abs()
    x = PFGM().prior((4000, n), seeded(8), DOUBLE)
    assert stats.ks_2samp(x.norm(dim=1).numpy(), projected.norm(dim=1).numpy()).pvalue > LEVEL
    if n == 2:  # P(R <= rho) = 1 - z / sqrt(rho^2 + z^2): median sqrt(3) z
        assert abs((x.norm(dim=1) < 40 * 3**0.5).double().mean().item() - 0.5) < 5 * 0.5 / 4000**0.5


def test_clipping_the_prior_is_asked_for() -> None:
    """At 40 and 3000 in 3,072 dimensions 54 % of the draws are shortened; directions and shorter draws stay."""
    whole = PFGM().prior((4000, 3072), seeded(9))
    x = PFGM(clip=3000.0).prior((4000, 3072), seeded(9))
    long = whole.norm(dim=1) > 3000
    assert torch.equal(x[~long], whole[~long])
    torch.testing.assert_close(x[long].norm(dim=1), torch.full((int(long.sum()),), 3000.0))
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(x, whole), torch.ones(4000))
    assert abs(long.double().mean().item() - 0.54) < 0.005 + 5 * 0.5 / 4000**0.5
    with pytest.raises(ValueError, match="clip is the greatest length"):
        PFGM(clip=0.0)
