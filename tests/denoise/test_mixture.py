import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from driftfield.denoise.empirical import Empirical
from driftfield.denoise.mixture import Mixture, _exponent, _log_constant
from driftfield.process.gaussian import EDM, VE, VP, Rectified, SubVP
from driftfield.process.poisson import PFGM, PFGMPP
from driftfield.rng import normal, seeded

GAUSSIAN = [EDM(), VE(), VP(), SubVP(), Rectified()]
STUDENT = [PFGMPP(D=0.1), PFGM(), PFGMPP(D=7.5), PFGMPP(D=1e4)]
F64 = torch.float64


def line(process):
    """Two components on the line, means -1 and 1.5, variances 0.04 and 0.5, weights 0.3 and 0.7."""
    covariances = torch.tensor([0.04, 0.5], dtype=F64)[:, None, None]
    return Mixture(process, torch.tensor([0.3, 0.7], dtype=F64), torch.tensor([[-1.0], [1.5]], dtype=F64), covariances)


def plane(process, k=3, n=2, seed=1):
    """`k` components with full covariances."""
    rng = seeded(seed)
    root = 0.4 * normal(torch.empty(k, n, n, dtype=F64), rng)
    weights = torch.arange(1, k + 1, dtype=F64)
    means = normal(torch.empty(k, n, dtype=F64), rng)
    return Mixture(process, weights / weights.sum(), means, root @ root.mT + 0.02 * torch.eye(n, dtype=F64))


def at(t):
    return torch.tensor(t, dtype=F64)


@pytest.mark.parametrize("D", [0.5, 1.0, 3.0, 128.0])
@pytest.mark.parametrize("t", [0.01, 0.4, 80.0])
@pytest.mark.parametrize("x", [0.2, 6.0])
def test_student_noise_by_quadrature_over_the_data(D, t, x):
    """An integral over `x_0` against Student's density: it shares nothing with the one over the noise's variance."""
    parts = [(0.3, stats.norm(-1, 0.2).pdf), (0.7, stats.norm(1.5, math.sqrt(0.5)).pdf)]
    spikes = {x + s * c * t for s in (-1, 1) for c in (0, 1, 5, 25, 125)} | {-1 + 0.4 * k for k in range(-4, 5)}
    inside = [-12.0, *sorted(p for p in spikes | {1.5 + k for k in range(-6, 7)} if -12 < p < 12), 12.0]

    def mean_of(f):
        def integrand(y):
            return f(y) * sum(w * pdf(y) for w, pdf in parts) * stats.t(D).pdf((x - y) / t) / t

        return sum(integrate.quad(integrand, a, b, epsabs=1e-15, epsrel=1e-12)[0] for a, b in pairwise(inside))

    density, moment = mean_of(lambda y: 1.0), mean_of(lambda y: y)
    mixture = line(PFGMPP(D=D))
    assert mixture.log_prob(at([[x]]), at(t)).item() == pytest.approx(math.log(density), rel=1e-10, abs=1e-10)
    assert mixture(at([[x]]), at(t)).item() == pytest.approx(moment / density, rel=1e-10)


@pytest.mark.parametrize(
    ("D", "t", "x", "log_prob", "mean"),
    [
        (0.3, 0.3, 1000.0, -11.595518301438378, None),
        (3.0, 0.002, 7.0, -24.36140197576327, None),
        (128.0, 0.002, 1000.0, -1374.4246110982294, 0.9601163541644542),
        (128.0, 80.0, 1000.0, -56.7051952899896, 0.8670717635929646),
        (1e4, 0.3, 1000.0, -35033.49260286782, 6.528778673864753),
        (1e6, 80.0, 1000.0, -83.28298882711114, 1.0022858284585647),
    ],
)
def test_far_states(D, t, x, log_prob, mean):
    """Where the variance that explains `x` is far in the tail, or close to two maxima: values by mpmath, 20 digits."""
    mixture = line(PFGMPP(D=D))
    assert mixture.log_prob(at([[x]]), at(t)).item() == pytest.approx(log_prob, rel=1e-12)
    if mean is not None:
        assert mixture(at([[x]]), at(t)).item() == pytest.approx(mean, rel=1e-11)


@pytest.mark.parametrize(
    ("D", "t", "x"), [(50.0, 0.01, 24.0995), (500.0, 0.1, 56.24582), (2000.0, 0.1, 112.464607), (1e6, 0.1, 2514.5835)]
)
def test_two_explanations_of_equal_weight(D, t, x):
    """Usual noise on an extreme datum, or extreme noise on a usual one: both maxima count, however narrow.

    The states are those where the two maxima are equal; the reference is a dense sum over a range that holds both.
    """
    w = np.linspace(-2, 16, 9_000_001)
    total = 1 + t**2 * np.exp(w)
    log = -D / 2 * (w + np.expm1(-w)) - (x**2 / total + np.log(2 * np.pi * total)) / 2
    want = log.max() + math.log(np.exp(log - log.max()).sum() * 2e-6) + _log_constant(D)
    mixture = Mixture(PFGMPP(D=D), torch.ones(1), torch.zeros(1, 1, dtype=F64), torch.ones(1, 1, 1, dtype=F64))
    assert mixture.log_prob(at([[x]]), at(t)).item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("D", [0.5, 6.0, 200.0])
def test_full_covariances_by_quadrature_over_chi_square(D):
    """Density, mean and score in the plane against an adaptive rule over the quantiles of chi-square."""
    process, t, x = PFGMPP(D=D), 0.6, np.array([1.1, -0.4])
    mixture = plane(process)
    laws = list(zip(mixture.weights.tolist(), mixture.means.numpy(), mixture.covariances.numpy(), strict=True))

    def integrand(u):
        noise = t**2 * D / stats.chi2(D).ppf(u)
        total = np.zeros(5)
        for w, m, c in laws:
            s = c + noise * np.eye(2)
            pull = np.linalg.solve(s, x - m)
            total += w * stats.multivariate_normal(m, s).pdf(x) * np.concatenate(([1.0], m + c @ pull, -pull))
        return total

    density, *rest = integrate.quad_vec(integrand, 0, 1, epsabs=1e-13, epsrel=1e-10, limit=400)[0]
    y, slope = np.array(rest[:2]) / density, np.array(rest[2:]) / density
    state = torch.from_numpy(x)[None]
    assert mixture.log_prob(state, at(t)).item() == pytest.approx(math.log(density), rel=1e-8)
    assert mixture(state, at(t))[0].tolist() == pytest.approx(y, rel=1e-7)
    assert mixture.score(state, at(t))[0].tolist() == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("process", GAUSSIAN + STUDENT, ids=repr)
def test_zero_covariances_are_a_finite_data_set(process):
    """Then the mean, density and score are those of `Empirical`, at every law of the noise and one time per row."""
    data = normal(torch.empty(6, 3, dtype=F64), seeded(2))
    mixture = Mixture(process, torch.full((6,), 1 / 6, dtype=F64), data, torch.zeros(6, 3, 3, dtype=F64))
    exact = Empirical(process, data)
    low, high = process.span
    t = torch.linspace(math.log(10 * low), math.log(high), 8, dtype=F64).exp().repeat_interleave(6)
    x = process.perturb(data.repeat(8, 1), t, seeded(3))
    torch.testing.assert_close(mixture(x, t), exact(x, t), rtol=0, atol=1e-10)
    torch.testing.assert_close(mixture.log_prob(x, t), exact.log_prob(x, t), rtol=1e-10, atol=1e-8)
    torch.testing.assert_close(mixture.score(x, t), exact.score(x, t), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("process", GAUSSIAN + STUDENT, ids=repr)
def test_score_is_the_gradient_of_log_prob(process):
    mixture = plane(process)
    t = torch.linspace(0.2, 0.9, 8, dtype=F64) * process.span[1]
    x = (3 * normal(torch.empty(8, 2, dtype=F64), seeded(4))).requires_grad_()
    (slope,) = torch.autograd.grad(mixture.log_prob(x, t).sum(), x)
    torch.testing.assert_close(mixture.score(x.detach(), t), slope, rtol=1e-10, atol=1e-12)
    if process in GAUSSIAN:
        torch.testing.assert_close(process.score(x, t, mixture(x, t)), slope, rtol=1e-9, atol=1e-11)


def test_one_time_and_one_per_row_agree():
    for process in (VP(), PFGMPP(D=3.0)):
        mixture, x = plane(process), normal(torch.empty(5, 2, dtype=F64), seeded(5))
        torch.testing.assert_close(mixture(x, at(0.3)), mixture(x, torch.full((5,), 0.3, dtype=F64)))
        assert mixture(x.float(), at(0.3)).dtype == torch.float32


def test_one_time_on_the_host_serves_a_state_elsewhere():
    """A state without storage refuses to meet a tensor of the host that has axes, like an accelerator's would.

    Under Student's t the integrals look at values, so only what comes before and after the looking runs here.
    """
    x = torch.empty(5, 2, device="meta")
    for process in (VP(), PFGMPP(D=3.0)):
        mixture = plane(process)
        for name in ("weights", "means", "covariances", "_log_weights", "_values", "_axes"):
            object.__setattr__(mixture, name, getattr(mixture, name).to("meta"))
        _, modes, turned = mixture._split(x, at(0.3))
        assert {v.device.type for v in (*modes, turned)} == {"meta"}
        assert modes.noise.shape == (5, 1, 1)
        assert _exponent(3.0, modes, torch.empty(5, 3, 7, dtype=F64, device="meta"))[0].shape == (5, 3, 7)
    mixture = plane(VP())
    for name in ("weights", "means", "covariances", "_log_weights", "_values", "_axes"):
        object.__setattr__(mixture, name, getattr(mixture, name).to("meta"))
    for call in (mixture, mixture.log_prob, mixture.score):
        assert call(x, at(0.3)).device.type == "meta"


def test_without_noise_the_density_is_that_of_the_data():
    mixture = plane(EDM())
    x = normal(torch.empty(9, 2, dtype=F64), seeded(6))
    want = sum(
        w * torch.distributions.MultivariateNormal(m, c).log_prob(x).exp()
        for w, m, c in zip(mixture.weights, mixture.means, mixture.covariances, strict=True)
    )
    for process in (EDM(), PFGMPP(D=5.0)):
        torch.testing.assert_close(plane(process).log_prob(x, at(0.0)), want.log(), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(plane(process)(x, at(0.0)), x, rtol=1e-10, atol=1e-10)
    for call in (Mixture.__call__, Mixture.log_prob, Mixture.score):
        flat = Mixture(EDM(), torch.ones(1), torch.zeros(1, 2), torch.zeros(1, 2, 2))
        with pytest.raises(ValueError, match="singular"):
            call(flat, x, at(0.0))
    signal_lost = plane(Rectified())
    torch.testing.assert_close(signal_lost(x, at(1.0)), (signal_lost.weights @ signal_lost.means).expand(9, 2))


def test_many_degrees_of_freedom_are_the_gaussian():
    """`D = inf` equals EDM, and `D = 1e12` differs by the next term, of order `N^2 / D`."""
    x = normal(torch.empty(50, 2, dtype=F64), seeded(7))
    want = plane(EDM())
    assert torch.equal(plane(PFGMPP(D=math.inf))(x, at(0.5)), want(x, at(0.5)))
    near = plane(PFGMPP(D=1e12))
    torch.testing.assert_close(near(x, at(0.5)), want(x, at(0.5)), rtol=0, atol=1e-9)
    torch.testing.assert_close(near.log_prob(x, at(0.5)), want.log_prob(x, at(0.5)), rtol=0, atol=1e-8)


def test_the_law_of_the_variance_has_mass_one():
    """Where series and logarithm of gamma meet, and far beyond: `E[chi2 / D] = 1` is in it too."""
    assert _log_constant(40.0) == pytest.approx(20 * math.log(20) - 20 - math.lgamma(20), abs=1e-13)
    assert _log_constant(40.0 - 1e-9) == pytest.approx(_log_constant(40.0), abs=1e-9)
    for D in (0.2, 3.0, 60.0, 5e4):
        w = np.linspace(-8, 400, 1_000_001) if D < 1 else np.linspace(-8, 40, 1_000_001)
        mass = np.trapezoid(np.exp(_log_constant(D) - D / 2 * (w + np.exp(-w) - 1)), w)
        assert mass == pytest.approx(1, abs=1e-9)


def test_samples_have_the_law_of_the_mixture():
    """Mean and covariance within five standard errors: for 40,000 draws, those of `Var / n` and of fourth moments."""
    mixture, n = plane(EDM()), 40_000
    x = mixture.sample(n, seeded(8))
    mean = mixture.weights @ mixture.means
    second = torch.einsum("k,kij->ij", mixture.weights, mixture.covariances)
    offset = mixture.means - mean
    second = second + torch.einsum("k,ki,kj->ij", mixture.weights, offset, offset)
    error = (x - mean).T @ (x - mean) / n - second
    fourth = torch.einsum("bi,bj->bij", x - mean, x - mean).var(0)
    assert ((x.mean(0) - mean).abs() < 5 * (second.diagonal() / n).sqrt()).all()
    assert (error.abs() < 5 * (fourth / n).sqrt()).all()


def test_bad_input_is_refused():
    w, m, c = torch.tensor([0.5, 0.5]), torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3)
    Mixture(EDM(), w, m, c)
    for bad in ((w[:1], m, c), (w, m[0], c), (w, m, c[:, :2])):
        with pytest.raises(ValueError, match="must be"):
            Mixture(EDM(), *bad)
    for weights in (torch.tensor([0.5, 0.6]), torch.tensor([1.5, -0.5]), torch.tensor([1.0, 0.0])):
        with pytest.raises(ValueError, match="sum 1"):
            Mixture(EDM(), weights, m, c)
    with pytest.raises(ValueError, match="symmetric"):
        Mixture(EDM(), w, m, c + torch.triu(torch.ones(3, 3), 1))
    with pytest.raises(ValueError, match="semi-definite"):
        Mixture(EDM(), w, m, c - 1.1 * torch.ones(3, 3))
    with pytest.raises(TypeError, match="isotropic"):
        Mixture(object(), w, m, c)
    with pytest.raises(ValueError, match="x must be"):
        Mixture(EDM(), w, m, c)(torch.zeros(2, 4), torch.tensor(1.0))
    with pytest.raises(ValueError, match="no classes"):
        Mixture(EDM(), w, m, c)(torch.zeros(2, 3), torch.tensor(1.0), torch.zeros(2, dtype=torch.int64))
