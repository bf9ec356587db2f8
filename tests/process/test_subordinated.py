"""Any Bernstein symbol as a process: draws, kernels, flows and sums, against closed forms and each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import special, stats

import driftfield as df
from driftfield.process.bernstein import check_bernstein, quantiles
from driftfield.process.law import law_of
from driftfield.process.symbols import Log, Mixed, Power, Relativistic, Sum, Symbol, Times
from driftfield.rng import open_uniform, positive_stable, rows, seeded

F64 = torch.float64
LEVEL = 1e-4


def number(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=F64)


def log_density(process, s, t, n):
    return process.log_profile(s**2, t, n) + process.log_peak(t, n)


@dataclass(frozen=True)
class Unnamed(Symbol):
    """Yukawa's symbol without what is known of it."""

    mass: float = 1.0

    def __call__(self, lam):
        return lam / ((lam + self.mass**2) ** 0.5 + self.mass)


@dataclass(frozen=True)
class Formula(Symbol):
    """A formula that may be no Bernstein function."""

    name: str = ""

    def __call__(self, lam):
        return {
            "power 1.2": lambda: lam**1.2,
            "bounded": lambda: lam / (1 + lam),
            "wave": lambda: lam + 0.9 * lam.sin() if not lam.is_complex() else lam + 0.9 * torch.sin(lam),
            "offset": lambda: lam**0.5 + 1,
            "minus": lambda: -(lam**0.5),
            "unit jumps": lambda: -0.2 * torch.expm1(-lam) + lam**0.5,
            "rare unit jumps": lambda: -0.001 * torch.expm1(-lam) + lam**0.5,
            "gamma": lambda: torch.log1p(lam),
            "slow": lambda: torch.log1p(lam**0.5),
            "jumps and drift": lambda: lam / (1 + lam) + lam,
        }[self.name]()


# --- draws -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.25, 0.5, 0.75, 0.95])
def test_positive_stable_draws(beta: float):
    """Spec 8.17: `E exp(-lam S) = exp(-lam^beta)`, 5 standard errors of 40,000; at 1/2 the law of Levy exactly."""
    draws = positive_stable(beta, torch.empty(40_000), seeded(1, int(100 * beta)))
    for lam in (0.3, 1.0, 4.0):
        wave = (-lam * draws).exp()
        assert abs(wave.mean().item() - math.exp(-(lam**beta))) < 5 * wave.std().item() / 200
    if beta == 0.5:
        assert stats.kstest(draws.numpy(), stats.levy(scale=0.5).cdf).pvalue > LEVEL


@pytest.mark.parametrize(
    "symbol",
    [Power(0.3), Relativistic(1.3), Mixed(0.7, 1.2), Log(0.8), Power(1.0) + 0.3 * Power(0.5), 2.0 * Log(1.0)],
    ids=repr,
)
def test_draws_have_the_symbols_transform(symbol: Symbol):
    """`E exp(-lam A_t) = exp(-t Omega(lam))`, for two times in one batch; 5 standard errors of 20,000."""
    for t in (0.4, 1.5):
        a = symbol.draw(torch.full((20_000,), t, dtype=F64), seeded(2))
        for lam in (0.3, 3.0):
            wave = (-lam * a).exp()
            known = math.exp(-t * float(symbol(number(lam))))
            assert abs(wave.mean().item() - known) < 5 * wave.std().item() / math.sqrt(20_000)


def test_draws_of_an_unnamed_symbol_are_quantiles():
    """By inversion, to 1e-8 in probability, against the inverse Gaussian law of scipy; rows have times of their own."""
    t = torch.tensor([0.1, 1.0, 30.0], dtype=F64).repeat(200)
    a = Unnamed(1.3).draw(t, seeded(3)).numpy()
    u = open_uniform(t, seeded(3)).numpy()
    mean, shape = t.numpy() / 1.3, t.numpy() ** 2
    below = stats.invgauss(mean / shape, scale=shape).cdf(2 * a)
    np.testing.assert_allclose(below, u, rtol=0, atol=1e-8)


@pytest.mark.parametrize("t", [0.14, 14.0, 1e4, 2e8])
def test_quantiles_of_narrow_and_of_wide_laws(t: float):
    """Of the gamma law of shape `t` by inversion, to 1e-4 of its relative width; scipy's own are good to 1e-8."""
    u = torch.tensor([0.001, 0.1, 0.5, 0.9, 0.999], dtype=F64)
    found = quantiles(Formula("gamma"), torch.full_like(u, t), u).numpy()
    np.testing.assert_allclose(found, stats.gamma.ppf(u.numpy(), t), rtol=max(1e-7, 1e-4 * t**-0.5), atol=0)


@pytest.mark.parametrize("name", ["slow", "jumps and drift"])
def test_draws_by_inversion_have_the_symbols_transform(name: str):
    """Where a law reaches down to 1e-70, and where it has an atom: 5 standard errors of 2,000."""
    symbol = Formula(name)
    for t in (0.05, 0.7, 20.0):
        a = symbol.draw(torch.full((2000,), t, dtype=F64), seeded(4))
        for lam in symbol.inverse(number(t).reciprocal() * torch.tensor([0.5, 2.0], dtype=F64)).tolist():
            wave = (-lam * a).exp()
            known = math.exp(-t * float(symbol(number(lam))))
            assert abs(wave.mean().item() - known) <= 5 * wave.std().item() / math.sqrt(2000)


@pytest.mark.parametrize("name", ["unit jumps", "rare unit jumps"])
def test_a_law_that_cannot_be_inverted_is_refused(name: str):
    """Bernstein functions all right, but jumps of one size defeat the path of the inversion integral."""
    with pytest.raises(ValueError, match=r"could not be inverted at the time .*; a symbol needs a `draw` of its own"):
        df.Subordinated(Formula(name))


@pytest.mark.parametrize(
    "process", [df.Fractional(0.35), df.Subordinated(Power(1.0) + 0.4 * Power(0.5)), df.Subordinated(Log())]
)
@pytest.mark.parametrize("k", [0.7, 2.0])
def test_characteristic_function_and_composition(process, k: float):
    """`exp(-t Omega(k^2))`, in one draw and after two moves upward from a draw; 5 standard errors of 20,000."""
    zero, s, t = torch.zeros(20_000, 1, dtype=F64), number(0.3), number(1.1)
    known = math.exp(-1.1 * float(process.symbol(number(k * k))))
    rng = seeded(4)
    moved = process.diffuse(process.diffuse(process.perturb(zero, s, rng), s, 2 * s, rng), 2 * s, t, rng)
    for x in (process.perturb(zero, t, rng), moved):
        wave = (k * x).cos()
        assert abs(wave.mean().item() - known) < 5 * wave.std().item() / math.sqrt(20_000)
    assert torch.equal(process.diffuse(zero, t, t, rng), zero)


# --- kernels and flows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 64, 3072])
@pytest.mark.parametrize("t", [0.002, 0.5, 50.0])
def test_inverted_kernel_and_flow_are_yukawas(n: int, t: float):
    """Two ways to one law: inversion of the transform, and closed forms, from 1e-4 to 10 levels from the datum."""
    process, yukawa, at = df.Subordinated(Relativistic(1.0)), df.Yukawa(1.0), number(t)
    level = yukawa.sigma(at)
    torch.testing.assert_close(process.sigma(at), level, rtol=1e-12, atol=0)
    s = level * math.sqrt(n) * torch.logspace(-4, 1, 60, dtype=F64)
    torch.testing.assert_close(log_density(process, s, at, n), log_density(yukawa, s, at, n), rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(process.pull(s**2, at, n), yukawa.pull(s**2, at, n), rtol=2e-6, atol=0)


@pytest.mark.parametrize("n", [2, 64, 3072])
@pytest.mark.parametrize("mass", [10.0, 100.0, 1e3, 1e4])
@pytest.mark.parametrize("level", [0.01, 1.0, 80.0])
def test_inverted_kernel_and_flow_are_yukawas_where_the_law_is_narrow(n: int, mass: float, level: float):
    """The variance's relative width is `1 / sqrt(mass t)`, here from 3 to 1e-6; to 1e-6 of a log-kernel above -10^4."""
    process, yukawa = df.Subordinated(Relativistic(mass)), df.Yukawa(mass)
    t = yukawa.time(number(level))
    s = level * math.sqrt(n) * torch.logspace(-4, 1.5, 60, dtype=F64)
    known = log_density(yukawa, s, t, n)
    seen = known - known[0] > -1e4
    got = log_density(process, s, t, n)
    torch.testing.assert_close(got[seen], known[seen], rtol=1e-6, atol=2e-5)
    pull, known = process.pull(s**2, t, n), yukawa.pull(s**2, t, n)
    torch.testing.assert_close(pull[seen], known[seen], rtol=2e-6, atol=0)


@pytest.mark.parametrize("drift", [1.0, 0.01])
@pytest.mark.parametrize("t", [2e-6, 1e-3, 0.05, 5.0])
def test_kernel_of_diffusion_with_rare_jumps(drift: float, t: float):
    """One dimension: `int_0^inf cos(k s) exp(-t (ln(1 + k^2) + drift k^2)) dk / pi`, by quadrature over ln k."""
    process = df.Subordinated(Log() + drift * Power(1.0))
    log_k = np.linspace(-16, math.log(8 / math.sqrt(drift * t)), 200_001)
    k = np.exp(log_k)
    fade = k / math.pi * np.exp(-t * (np.log1p(k * k) + drift * k * k))
    for s in (0.0, 0.02, 0.3):
        known = np.trapezoid(fade * np.cos(k * s), log_k) + k[0] / math.pi
        assert float(log_density(process, number(s), number(t), 1).exp()) == pytest.approx(known, rel=2e-6)


@pytest.mark.parametrize(
    "symbol",
    [Log() + Power(1.0), Power(1.0) + 1e-300 * Power(0.5), Power(1.0) + Relativistic(30.0), Power(0.99), Log()],
    ids=repr,
)
@pytest.mark.parametrize("n", [1, 3072])
def test_law_of_the_variance_has_mass_one(symbol: Symbol, n: int):
    for level in (0.002, 1.0, 80.0) if symbol != Log() else (1.0, 80.0):  # before, the noise is mostly none at all
        assert np.exp(law_of(symbol, math.log(level), n).log_mass).sum() == pytest.approx(1, abs=2e-6)


@pytest.mark.parametrize("c", [0.01, 0.3])
@pytest.mark.parametrize("n", [2, 64, 784, 3072])
def test_kernel_around_the_shell_in_many_dimensions(c: float, n: int):
    """Diffusion with Poisson flow: the variance is `2 t + (c t / g)^2` with `g ~ N(0, 1)`, by quadrature over ln g."""
    process = df.Subordinated(Power(1.0) + c * Power(0.5))
    log_g = torch.linspace(-40, 2.3, 40_001, dtype=F64)
    weight = log_g - (2 * log_g).exp() / 2 + math.log(math.sqrt(2 / math.pi) * float(log_g[1] - log_g[0]))
    at = process.time(torch.tensor([0.9, 1.0], dtype=F64))
    s = process.sigma(at[1]) * math.sqrt(n) * torch.linspace(0.8, 1.5, 141, dtype=F64)

    def known(t: torch.Tensor) -> torch.Tensor:
        variance = 2 * t + (c * t / log_g.exp()).square()
        head = weight - n / 2 * (2 * math.pi * variance).log()
        return torch.stack([(head - d * d / (2 * variance)).logsumexp(0) for d in s])

    torch.testing.assert_close(log_density(process, s, at[1], n), known(at[1]), rtol=0, atol=3e-5)
    for t in at:  # and for times that differ from row to row, up to what all distances share; 0.2 without fine steps
        gap = log_density(process, s, t.expand(len(s)), n) - known(t)
        assert float(gap.max() - gap.min()) < 5e-3


@pytest.mark.parametrize("n", [1, 2, 64])
def test_fractional_at_one_half_is_poisson_flow(n: int):
    process, poisson, t = df.Fractional(0.5), df.PFGM(), number(2.0)
    s = torch.logspace(-4, 6, 50, dtype=F64)
    torch.testing.assert_close(log_density(process, s, t, n), log_density(poisson, s, t, n), rtol=1e-6, atol=1e-6)
    assert process.pull(s**2, t, n) is None
    x = s[:, None]
    torch.testing.assert_close(process.velocity(x, t, 0 * x), poisson.velocity(x, t, 0 * x))
    assert process.freedom == 1.0


def test_fractional_at_one_is_diffusion():
    process, t, x = df.Fractional(1.0), number(1.7), torch.linspace(-3, 3, 9, dtype=F64)[:, None]
    gauss = df.EDM()
    level = number(math.sqrt(2 * 1.7))
    torch.testing.assert_close(process.sigma(t), level)
    torch.testing.assert_close(log_density(process, x[:, 0], t, 3), log_density(gauss, x[:, 0], level, 3))
    torch.testing.assert_close(process.score(x, t, 0 * x), -x / 3.4)
    torch.testing.assert_close(process.velocity(x, t, 0 * x), x / (2 * t))
    assert process.freedom == math.inf
    torch.testing.assert_close(process.perturb(x, t, seeded(5)), gauss.perturb(x, level, seeded(5)))


@pytest.mark.parametrize("beta", [0.25, 1 / 3, 0.75, 0.9])
def test_fractional_density_is_scipys(beta: float):
    """N = 1: the symmetric stable law of index `2 beta` with `exp(-t |k|^(2 beta))`; the flow is `x / (2 beta t)`."""
    process, t = df.Fractional(beta), number(1.3)
    s = torch.tensor([0.01, 0.3, 1.0, 4.0], dtype=F64)
    known = stats.levy_stable.logpdf(s.numpy(), 2 * beta, 0, scale=1.3 ** (1 / (2 * beta)))
    np.testing.assert_allclose(log_density(process, s, t, 1).numpy(), known, atol=2e-5)
    x = s[:, None]
    torch.testing.assert_close(process.velocity(x, t, 0 * x), x / (2 * beta * t), rtol=1e-10, atol=0)


def test_variance_gamma_density_and_its_peak():
    """`Log()` at t = 1 in one dimension is Laplace's law, `exp(-|x|) / 2`; in three its kernel is infinite at 0."""
    process, t = df.Subordinated(Log()), number(1.0)
    s = torch.logspace(-5, 1.5, 30, dtype=F64)
    torch.testing.assert_close(log_density(process, s, t, 1), -s - math.log(2), rtol=2e-6, atol=2e-6)
    known = -s - (4 * math.pi * s).log()  # Yukawa's potential, the transform of 1 / (1 + k^2)
    torch.testing.assert_close(log_density(process, s, t, 3), known, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [0.05, 0.35, 0.7, 1.4, 1.75, 2.45, 2.8])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_variance_gamma_density_at_any_length(length: float, n: int):
    """Against Matern's function, as the gamma mixture of Gaussians is one; lengths whose squares round up and down.

    In three dimensions the kernel has the cusp `d^(2 t - n)` at its centre.
    """
    process, t = df.Subordinated(Log(length)), number(2.885)
    s = length * torch.tensor([0.003, 0.03, 0.1, 0.3, 1.0, 5.0], dtype=F64)
    z, nu = (s / length).numpy(), 2.885 - n / 2
    known = nu * np.log(z / 2) + np.log(special.kve(nu, z)) - z + math.log(2) - special.gammaln(2.885)
    known = known - n / 2 * math.log(4 * math.pi * length**2)
    np.testing.assert_allclose(log_density(process, s, t, n).numpy(), known, rtol=1e-5, atol=1e-5)
    (Log(length) + Power(1.0)).draw(t[None], seeded(1))
    assert process.log_profile(s.square(), process.time(number(80.0)), n).isfinite().all()


@pytest.mark.parametrize("beta", [0.1, 0.25, 0.45])
@pytest.mark.parametrize("n", [1, 3])
def test_far_tail_of_the_fractional_kernel(beta: float, n: int):
    """Its leading terms, to 3e-5, up to the largest distance that is promised: a billion levels."""
    process, t = df.Fractional(beta), number(1.0)
    s = float(process.sigma(t)) * torch.tensor([1e7, 1e8, 9e8], dtype=F64)
    known = torch.zeros(3, dtype=F64)
    for k in range(1, 40):
        power = 2 * beta * k
        part = (-1) ** (k + 1) * 2**power * math.gamma((n + power) / 2) * math.gamma(1 + power / 2)
        known += part * math.sin(math.pi * beta * k) / math.gamma(k + 1) * s**-power
    known = (known / math.pi).log() - n / 2 * math.log(math.pi) - n * s.log()
    torch.testing.assert_close(log_density(process, s, t, n), known, rtol=0, atol=3e-5)


@pytest.mark.parametrize(
    "symbol", [Power(1.0) + 0.4 * Power(0.5), Power(0.8) + 0.1 * Power(0.3), Log(), Unnamed(1.0)], ids=repr
)
def test_distribution_function_is_conserved_along_the_exact_flow(symbol):
    """N = 1 (spec 8.7), from t = 3 to 0.3 by Runge-Kutta, 24 steps in ln t. The distribution function of one datum is
    `1/2 + int_0^inf sin(k x) exp(-t Omega(k^2)) / (pi k) dk`, by quadrature over ln k: nothing of the process in it."""
    process = df.Subordinated(symbol)
    data = torch.tensor([[-1.0], [0.2], [1.5]], dtype=F64)
    nodes, weights = np.polynomial.legendre.leggauss(16)
    edges = np.concatenate((np.geomspace(1e-12, 1.0, 60), np.arange(1.5, 3000.0, 0.5)))
    half = np.diff(edges)[:, None] / 2
    k, w = (edges[:-1, None] + half * (1 + nodes)).ravel(), (half * weights).ravel()
    fade = symbol(torch.from_numpy(k * k)).numpy()

    def below(x, t):
        gaps = (x - data)[:, 0].numpy()
        return float(np.mean([0.5 + (w * np.sin(k * g) * np.exp(-t * fade) / (math.pi * k)).sum() for g in gaps]))

    def f(x, u):
        t, gap = u.exp(), x - data.T
        weight = process.log_kernel(x, t, data).softmax(1)
        mean = (weight * (x - process.pull(gap**2, t, 1) * gap)).sum(1, keepdim=True)
        return t * process.velocity(x, t, mean)

    low = 1.0 if isinstance(symbol, Log) else 0.3  # below t = 1/2 the kernel of Log is infinite at the data
    x = torch.tensor([[2.0]], dtype=F64)
    first = below(x, 3.0)
    grid = torch.linspace(math.log(3.0), math.log(low), 25, dtype=F64)
    h = grid[1] - grid[0]
    for u in grid[:-1]:
        a = f(x, u)
        b = f(x + h / 2 * a, u + h / 2)
        c = f(x + h / 2 * b, u + h / 2)
        x = x + h / 6 * (a + 2 * b + 2 * c + f(x + h * c, u + h))
    assert below(x, low) == pytest.approx(first, abs=2e-5)


@pytest.mark.parametrize("n", [2, 64])
def test_times_that_differ_from_row_to_row(n: int):
    process = df.Subordinated(Power(0.8) + 0.1 * Power(0.3))
    s, t = torch.logspace(-3, 3, 12, dtype=F64), torch.logspace(-2, 1.5, 12, dtype=F64)
    pulls, logs = process.pull(s**2, t, n), log_density(process, s, t, n)
    table = process.pull((s**2)[None].expand(12, 12), t[:, None], n)
    for i in range(12):
        assert float(pulls[i]) == pytest.approx(float(process.pull(s[i] ** 2, t[i], n)), rel=1e-3)
        assert float(table[i, 3]) == pytest.approx(float(process.pull(s[3] ** 2, t[i], n)), rel=1e-3)
        assert float(logs[i]) == pytest.approx(float(log_density(process, s[i], t[i], n)), rel=1e-4, abs=1e-3)


# --- symbols -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "symbol", [Power(0.3), Relativistic(2.0), Mixed(0.5, 3.0), Log(0.2), Unnamed(2.0), Power(1.0) + Log()], ids=repr
)
def test_inverse_steepness_and_level(symbol: Symbol):
    lam = torch.logspace(-6, 6, 30, dtype=F64)
    torch.testing.assert_close(symbol.inverse(symbol(lam)), lam, rtol=1e-8, atol=0)
    assert bool(((symbol.steepness(lam) > 0) & (symbol.steepness(lam) <= 1 + 1e-12)).all())
    process = df.Subordinated(symbol, levels=(0.05, 20.0))
    level = torch.logspace(-1, 1, 9, dtype=F64)
    t = process.time(level)
    torch.testing.assert_close(process.level(t), level, rtol=1e-9, atol=0)
    h = 1e-5 * t
    slope = (process.sigma(t + h) - process.sigma(t - h)) / (2 * h)
    torch.testing.assert_close(process.slopes(t)[1], slope, rtol=1e-6, atol=0)
    assert float(process.level(number(0.0))) == 0


@pytest.mark.parametrize("symbol", [Relativistic(0.0), Mixed(1.0, 0.0)], ids=repr)
def test_no_mass_is_poisson_flow(symbol: Symbol):
    process, poisson = df.Subordinated(symbol), df.PFGM()
    s, t = torch.logspace(-2, 4, 20, dtype=F64), number(0.7)
    torch.testing.assert_close(log_density(process, s, t, 2), log_density(poisson, s, t, 2), rtol=0, atol=1e-6)
    assert process.pull(s**2, t, 2) is None
    assert process.freedom == 1


@pytest.mark.parametrize(
    "process", [df.Fractional(0.3), df.Subordinated(Log()), df.Subordinated(Unnamed(1.0))], ids=repr
)
def test_there_is_no_noise_at_time_0(process):
    x = torch.ones(4, 2, dtype=F64)
    assert torch.equal(process.perturb(x, number(0.0), seeded(9)), x)


def test_sums_and_factors():
    assert Power(0.5) + Power(0.5) == Sum(Power(0.5), Power(0.5))
    assert (Power(0.5) + 2.0 * Power(0.5)).index == 0.5
    assert (Power(0.5) + Log()).index is None
    assert (Power(1.0) + 3.0 * Power(1.0)).drift == 4
    t, s = number(0.7), torch.linspace(0.1, 3, 5, dtype=F64)
    whole = df.Subordinated(Power(0.5) + 2.0 * Power(0.5))
    torch.testing.assert_close(log_density(whole, s, t, 2), log_density(df.PFGM(), s, 3 * t, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("power 1.2", "not a Bernstein"),
        ("bounded", "bounded"),
        ("wave", "no Bernstein"),
        ("offset", "at 0"),
        ("minus", "Bernstein"),
    ],
)
def test_what_is_no_symbol_is_refused(name: str, words: str):
    with pytest.raises(ValueError, match=words):
        df.Subordinated(Formula(name))


def test_bad_parameters_are_refused():
    for make, words in (
        (lambda: df.Fractional(1.2), "negative values"),
        (lambda: df.Fractional(0.0), r"\(0, 1\]"),
        (lambda: Relativistic(-1.0), "mass"),
        (lambda: Mixed(0.0, 1.0), "take Power"),
        (lambda: Log(0.0), "length"),
        (lambda: -1.0 * Log(), "factor > 0"),
        (lambda: positive_stable(1.0, torch.empty(1), seeded(0)), "between 0 and 1"),
        (lambda: df.Fractional(0.5).diffuse(torch.zeros(1, 1), number(2.0), number(1.0), seeded(0)), "s <= t"),
    ):
        with pytest.raises(ValueError, match=words):
            make()
    for wrong in (
        lambda: check_bernstein(0.5),
        lambda: df.Subordinated(Power),
        lambda: Power(1.0) + 1,
        lambda: Power(1.0) + Log,
        lambda: Times(2.0, Log),
    ):
        with pytest.raises(TypeError, match="frozen value"):
            wrong()


@pytest.mark.parametrize("process", [df.Fractional(0.4), df.Subordinated(Power(1.0) + Power(0.5))], ids=repr)
def test_a_kernel_at_a_time_for_each_row(process):
    """It is that of each row by itself, for stable laws too, whose one table serves all times."""
    x, x0 = (torch.randn(m, 2, generator=seeded(m), dtype=F64) for m in (6, 5))
    t = torch.linspace(0.1, 0.9, 6, dtype=F64)
    together = process.log_kernel(x, t, x0)
    alone = torch.cat([process.log_kernel(x[i : i + 1], t[i : i + 1], x0) for i in range(6)])
    torch.testing.assert_close(together.diff(dim=1), alone.diff(dim=1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("process", [df.Fractional(0.4), df.Subordinated(Power(1.0) + Power(0.5))], ids=repr)
def test_rows_and_types(process):
    x, s, t = torch.randn(6, 2, 3, generator=seeded(7)), number(0.5), number(0.9)
    for move, times in ((process.perturb, (t,)), (process.diffuse, (s, t))):
        whole = move(x, *times, rows(3, 0, 6))
        parts = [move(x[i:j], *times, rows(3, i, j)) for i, j in ((0, 1), (1, 4), (4, 6))]
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-6, atol=0)
    for dtype in (torch.float32, F64):
        y = x.to(dtype)
        for at in (t, t.expand(6), t.expand(6).float()):
            for got in (process.perturb(y, at, seeded(8)), process.velocity(y, at, y), process.target(y, at, 0 * y)):
                assert got.dtype == dtype


# --- solvers -----------------------------------------------------------------------------------------------------


MIXED = df.Subordinated(Power(1.0) + 0.5 * Power(0.5))


@pytest.mark.parametrize(
    ("process", "solver", "order"),
    [
        (df.Yukawa(1.0), df.Heun(), 2),
        (df.Yukawa(1.0), df.DEIS(2, clock="rho"), 2),
        (df.Yukawa(1.0), df.DEIS(3, clock="rho"), 3),
        pytest.param(MIXED, df.Heun(), 2, marks=pytest.mark.slow),
    ],
)
def test_solvers_keep_their_order(process, solver, order: int):
    """On the exact field of three data, from level 4 to 0.5: the error falls by `2^order` as the steps double."""
    data = torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.2, -0.8]], dtype=F64)
    field = df.Reverse(process, df.Empirical(process, data))
    x = torch.tensor([[2.0, 1.0], [-1.5, 0.5], [0.3, -2.5]], dtype=F64)

    def end(steps, by):
        grid = process.time(torch.linspace(4.0, 0.5, steps + 1, dtype=F64))
        return df.sample(field, x, grid, by, seeded(0))

    best = end(64, df.RK4())
    coarse, fine = ((end(steps, solver) - best).norm().item() for steps in (16, 32))
    assert order - 0.4 < math.log2(coarse / fine) < order + 0.9
