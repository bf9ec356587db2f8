"""Special functions against closed forms, recurrences and laws that scipy knows."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import special, stats

from driftfield.special import gauss_legendre, invert_laplace, log_bessel_k, log_gamma_ratio, log_matern_ratio


@pytest.mark.parametrize("a", [1e-3, 0.25, 1.0, 7.5, 19.99, 20.0, 64.0, 1024.0, 1536000.0, 5e8, 1e12])
@pytest.mark.parametrize("n", [1, 3, 32, 1536])
def test_gamma_ratio_of_whole_steps_is_a_sum_of_logarithms(a: float, n: int) -> None:
    known = math.fsum(math.log(a + j) for j in range(n))
    assert log_gamma_ratio(a, n) == pytest.approx(known, rel=1e-13, abs=1e-13)


@pytest.mark.parametrize("a", [0.3, 2.0, 19.7, 30.0, 1e4, 1e9, 1e12])
def test_gamma_ratio_of_half_steps_compose(a: float) -> None:
    two = log_gamma_ratio(a, 0.5) + log_gamma_ratio(a + 0.5, 0.5)
    assert two == pytest.approx(math.log(a), rel=1e-13, abs=1e-13)
    # Wendel's bounds, which a difference of two logarithms of gamma functions misses at a = 1e9 already.
    assert 0.5 * math.log(a / (a + 0.5)) + 0.5 * math.log(a) - 1e-13 <= log_gamma_ratio(a, 0.5)
    assert log_gamma_ratio(a, 0.5) <= 0.5 * math.log(a) + 1e-13


@pytest.mark.parametrize(("a", "delta"), [(0.0, 1.0), (-1.0, 1.0), (1.0, -0.5), (math.inf, 1.0), (math.nan, 1.0)])
def test_gamma_ratio_refuses_what_is_outside_its_domain(a: float, delta: float) -> None:
    with pytest.raises(ValueError, match="a > 0 and delta >= 0"):
        log_gamma_ratio(a, delta)


def half_integer(n: int, x: float) -> float:
    """`ln K_{n + 1/2}(x)` by its finite sum, all of whose terms are positive."""
    terms = [
        math.lgamma(n + k + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - k * math.log(2 * x) for k in range(n + 1)
    ]
    return math.log(math.pi / (2 * x)) / 2 - x + float(special.logsumexp(terms))


@pytest.mark.parametrize("n", [0, 1, 5, 28, 29, 30, 60, 500])
def test_bessel_of_half_integer_order_is_a_finite_sum(n: int) -> None:
    x = torch.logspace(-8, 4, 40, dtype=torch.float64)
    known = torch.tensor([half_integer(n, v) for v in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(log_bessel_k(n + 0.5, x), known, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("nu", [1.0, 2.3, 28.6, 29.4, 30.2, 100.0, 1e4])
def test_bessel_obeys_its_recurrence(nu: float) -> None:
    """`K_{nu+1} = K_{nu-1} + 2 nu / x K_nu`, also across the order where the method changes."""
    x = torch.logspace(-3, 5, 60, dtype=torch.float64)
    low, mid, high = (log_bessel_k(nu + k, x) for k in (-1, 0, 1))
    torch.testing.assert_close(high, torch.logaddexp(low, mid + (2 * nu / x).log()), rtol=1e-12, atol=1e-12)


def test_bessel_is_finite_where_its_value_overflows() -> None:
    x = torch.tensor([1e-300, 1e-40], dtype=torch.float64)
    known = math.lgamma(20) + 20 * (2 / x).log() - math.log(2)
    torch.testing.assert_close(log_bessel_k(20.0, x), known, rtol=1e-14, atol=0)
    assert log_bessel_k(1e6, x).isfinite().all()
    far = torch.tensor([0.99e8, 1.01e8, 1e12], dtype=torch.float64)  # SciPy's own is NaN from 2^30 on
    with mpmath.workdps(40):
        known = [float(mpmath.log(mpmath.besselk(1.5, v))) for v in far.tolist()]
    torch.testing.assert_close(log_bessel_k(1.5, far), torch.tensor(known, dtype=torch.float64), rtol=1e-15, atol=0)
    assert log_bessel_k(0.0, x).isfinite().all()
    assert log_bessel_k(1.5, torch.ones(2, 3)).dtype == torch.float32
    with pytest.raises(ValueError, match="order"):
        log_bessel_k(-1.0, x)


def test_gauss_legendre_is_exact_for_polynomials() -> None:
    for n in (1, 2, 7, 40):
        nodes, weights = gauss_legendre(n)
        powers = torch.arange(2 * n, dtype=torch.float64)
        known = torch.where(powers % 2 == 0, 2 / (powers + 1), 0.0)
        torch.testing.assert_close((weights * nodes ** powers[:, None]).sum(1), known, rtol=1e-13, atol=1e-14)
    with pytest.raises(ValueError, match="at least one node"):
        gauss_legendre(0)


Z = np.geomspace(1e-4, 1e4, 60)[:, None] * np.exp(1j * np.array([-1.5, -0.7, 0.0, 0.3, 1.2, 1.55]))


@pytest.mark.parametrize("q", [0.0, 1e-6, 0.5, 0.999999])
def test_matern_of_half_integer_order_is_elementary(q: float) -> None:
    """`M_1/2 = exp(-z)`, `M_3/2 = (1 + z) exp(-z)`."""
    np.testing.assert_allclose(log_matern_ratio(0.5, Z, q), -(1 - q) * Z, rtol=1e-13, atol=1e-13)
    known = np.log1p(Z) - np.log1p(q * Z) - (1 - q) * Z
    np.testing.assert_allclose(log_matern_ratio(1.5, Z, q), known, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("q", [0.0, 0.3, 0.99])
def test_matern_of_large_order_is_continuous_with_that_of_small_order(q: float) -> None:
    """Across the change of method, at arguments 1 radian off the turning points `+- i nu` of the expansion."""
    z = Z[:, [1, 2, 3]]
    series, direct = log_matern_ratio(30.0, z, q), log_matern_ratio(30.0 - 1e-12, z, q)
    np.testing.assert_allclose(series, direct, rtol=2e-12, atol=2e-11)


def test_matern_of_huge_order_is_the_gaussian_without_cancellation() -> None:
    """`M_nu(z) -> exp(-z^2 / (4 nu))`; the next term is `z^4 / (32 nu^3)`, and at `nu = 1e12` neither is lost."""
    nu, q = 1e12, 0.5
    lam = np.array([1e-3, 1.0, 1e3, 1e3 * (1 + 1j)])
    known = -lam * (1 - q**2) + lam**2 * (1 - q**4) / (2 * nu)
    got = log_matern_ratio(nu, 2 * np.sqrt(nu * lam + 0j), q)
    np.testing.assert_allclose(got, known * (1 + 1 / nu), rtol=1e-11)


# A transform that is analytic off the negative axis, and the law it belongs to.
LAWS = {
    "gamma 0.3": (lambda lam: -0.3 * np.log1p(lam), stats.gamma(0.3), (0.02, 1e8)),
    "gamma 4": (lambda lam: -4 * np.log1p(lam), stats.gamma(4), (0.05, 20)),
    "gamma 1e5": (lambda lam: -1e5 * np.log1p(lam), stats.gamma(1e5), (6e-4, 2e-2)),
    "inverse gaussian": (lambda lam: (1 - np.sqrt(1 + 2 * 0.7**2 * lam)) / 0.7, stats.invgauss(0.7), (0.05, 100)),
    "stable 1/2": (lambda lam: -np.sqrt(2 * lam), stats.levy(), (1e-9, 100)),
}


@pytest.mark.parametrize("name", LAWS)
def test_inverse_transform_gives_the_law(name: str) -> None:
    transform, law, span = LAWS[name]
    y, below, density = invert_laplace(transform, np.geomspace(*span, 200))
    assert below.min() < 0.01
    assert below.max() > 0.99
    np.testing.assert_allclose(below, law.cdf(y), atol=1e-10)
    np.testing.assert_allclose(y * density, y * law.pdf(y), rtol=1e-8, atol=1e-9 * (y * density).max())
