"""Laws of every Gaussian process, isotropic or not: its maps against each other, dense matrices and autograd."""

from __future__ import annotations

import math

import pytest
import torch

from driftfield.process.discrete import DiscreteVP
from driftfield.process.gaussian import EDM, VE, VP, GaussianProcess, Rectified, SubVP
from driftfield.process.heat import Blur
from driftfield.process.langevin import CLD
from driftfield.rng import normal, rows, seeded

CLDS = [CLD(), CLD(factor="L"), CLD(beta=2.0, mass=1.0, gamma=1.0, jitter=1e-3), CLD(gamma=0.0)]
BLURS = [Blur(), Blur(sigma_blur_max=0.0), Blur(sigma_blur_max=30.0, d_min=1e-5)]
PROCESSES = [*CLDS, *BLURS, VP(), SubVP(), VE(), EDM(), Rectified(), DiscreteVP("cosine", 50)]
SHAPE = (2, 3, 4)
each = pytest.mark.parametrize("process", PROCESSES, ids=repr)
structured = pytest.mark.parametrize("process", [*CLDS, *BLURS], ids=repr)


def times(process: GaussianProcess, count: int = 7) -> torch.Tensor:
    """Inside the span, even in log level, and between the whole numbers of a table."""
    low, high = process.level(torch.tensor(process.span, dtype=torch.float64)).clamp(max=100).log().tolist()
    t = process.time(torch.linspace(low, high, count + 2, dtype=torch.float64)[1:-1].exp())
    return (t.floor() + 0.5).unique() if isinstance(process, DiscreteVP) else t


def draws(process: GaussianProcess, n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Data and states."""
    rng = seeded(3)
    x0 = normal(torch.empty(n, *SHAPE, dtype=torch.float64), rng)
    return x0, normal(process.lift(x0), rng)


def dense(linear, process) -> torch.Tensor:
    """The matrix of a map on flattened states."""
    like = process.lift(torch.zeros(1, *SHAPE, dtype=torch.float64))
    basis = torch.eye(like.numel(), dtype=torch.float64).reshape(-1, *like.shape[1:])
    return linear(basis).flatten(1).mT


def slope(curve, t: torch.Tensor) -> torch.Tensor:
    """The derivative at `t` by differences of the sixth order."""
    h = 2e-3 * t
    c = (3 / 4, -3 / 20, 1 / 60)
    return sum(a * (curve(t + k * h) - curve(t - k * h)) for k, a in enumerate(c, 1)) / h


def close(a: torch.Tensor, b: torch.Tensor, tol: float = 1e-10) -> None:
    """To `tol` of the largest entry."""
    torch.testing.assert_close(a, b, rtol=0, atol=tol * max(1e-300, b.abs().max().item()))


@each
def test_root_is_a_root_of_the_covariance(process):
    for t in times(process):
        sigma, root = process.covariance(t), process.root(t)
        close(dense(root @ root.T, process), dense(sigma, process), 1e-12)
        close(dense(sigma, process), dense(sigma, process).mT, 1e-13)
        assert torch.linalg.eigvalsh(dense(sigma, process)).min() > 0


@each
def test_transitions_compose_and_carry_the_signal(process):
    a, b, c = times(process)[[1, 3, 5]]
    close(dense(process.transition(c, b) @ process.transition(b, a), process), dense(process.transition(c, a), process))
    close(
        dense(process.transition(a, c) @ process.transition(c, a), process),
        torch.eye(dense_size(process)).double(),
        1e-9,
    )
    close(dense(process.transition(c, a) @ process.signal(a), process), dense(process.signal(c), process))


def dense_size(process) -> int:
    return process.lift(torch.zeros(1, *SHAPE)).numel()


@each
def test_drift_and_diffusion_move_mean_and_covariance(process):
    """`dA/dt = F A` and `dSigma/dt = F Sigma + Sigma F^T + G G^T`, with `G G^T` positive semi-definite."""
    for t in times(process)[1:-1]:
        f, q, sigma = (dense(m(t), process) for m in (process.drift, process.diffusion, process.covariance))
        signal = lambda u: dense(process.signal(u), process)
        close(slope(signal, t), f @ signal(t), 1e-8)
        close(slope(lambda u: dense(process.covariance(u), process), t), f @ sigma + sigma @ f.mT + q, 1e-8)
        assert torch.linalg.eigvalsh((q + q.mT) / 2).min() > -1e-12 * q.abs().max()


@each
def test_the_flowing_root_solves_its_equation(process):
    """`dR/dt = F R + G G^T R^-T / 2`, which the Cholesky factor of CLD does not."""
    for t in times(process)[1:-1]:
        f, q, root = (dense(m(t), process) for m in (process.drift, process.diffusion, process.root))
        wanted = f @ root + q @ torch.linalg.inv(root).mT / 2
        moved = slope(lambda u: dense(process.root(u), process), t)
        if process.flowing:
            close(moved, wanted, 1e-7)
        else:
            assert (moved - wanted).abs().max() > 0.1 * wanted.abs().max()


@each
def test_velocity_is_the_slope_of_the_path_of_one_datum(process):
    """Along `A_t x_0 + R_t eps` with `eps` fixed, where the root flows; and `eps` is what `process.eps` recovers."""
    x0, noise = draws(process)
    for t in times(process)[1:-1]:
        path = lambda u: process.signal(u)(process.lift(x0)) + process.root(u)(noise)
        close(process.eps(path(t), t, x0), noise, 1e-9)
        close(process.data(process.lift(x0)), x0, 0)
        if process.flowing:
            close(process.velocity(path(t), t, x0), slope(path, t), 1e-7)


@each
def test_gain_is_the_noise_that_is_missing(process):
    """`Sigma_t = Psi Sigma_s Psi^T + gain gain^T`, whose small steps do not cancel: `gain gain^T -> G G^T (t - s)`."""
    t = times(process)
    for s, u in ((t[0], t[1]), (t[1], t[5]), (t[2], t[3])):
        psi, before = dense(process.transition(u, s), process), dense(process.covariance(s), process)
        gain = dense(process.gain(u, s), process)
        close(psi @ before @ psi.mT + gain @ gain.mT, dense(process.covariance(u), process), 1e-12)
    s = t[3]
    h = 1e-9 * s
    gain = dense(process.gain(s + h, s), process)
    close(gain @ gain.mT / ((s + h) - s), dense(process.diffusion(s), process), 1e-5)
    assert (dense(process.gain(s, s), process) == 0).all()


@each
def test_diffuse_fades_the_state_and_adds_the_gain(process):
    _, x = draws(process)
    s, t = times(process)[[1, 4]]
    wanted = process.transition(t, s)(x) + process.gain(t, s)(normal(x, seeded(9)))
    close(process.diffuse(x, s, t, seeded(9)), wanted, 1e-14)
    with pytest.raises(ValueError, match="0 <= s <= t"):
        process.diffuse(x, t, s, seeded(9))


@each
def test_densities_are_those_of_a_dense_normal(process):
    """`log_noise`, kernels, scores (by autograd) and observations against `N(A y, Sigma)` in all coordinates."""
    x0, x = draws(process)
    for t in times(process):
        sigma = dense(process.covariance(t), process)
        sigma = (sigma + sigma.mT) / 2
        mean = process.signal(t)(process.lift(x0)).flatten(1)

        root = torch.linalg.cholesky(sigma)

        def log_prob(state, mean, root=root):
            return torch.distributions.MultivariateNormal(mean, scale_tril=root).log_prob(state)

        x_t = (process.signal(t)(process.lift(x0.flip(0))) + process.root(t)(x)).requires_grad_()
        state = x_t.flatten(1)
        exact = log_prob(state[:, None], mean[None])
        if not hasattr(process, "log_profile"):
            close(process.log_noise(x_t, t).detach(), log_prob(state, torch.zeros_like(mean)).detach(), 1e-8)
            kernel = process.log_kernel(x_t, t, x0)
            close((kernel - kernel[:, :1]).detach(), (exact - exact[:, :1]).detach(), 1e-8)
        (score,) = torch.autograd.grad(exact.diagonal().sum(), x_t)
        close(process.score(x_t, t, x0).detach(), score, 1e-7)
        w, g = process.observe(x_t.detach(), t)
        seen = (g * process.modes(x0)).flatten(1)
        evidence = (w.flatten(1) * seen).sum(1) - seen.square().sum(1) / 2
        pure = log_prob(state, torch.zeros_like(mean))
        close(evidence, (exact.diagonal() - pure).detach(), 1e-7)


@each
def test_level_and_time_are_inverse(process):
    t = times(process, 40)
    close(process.time(process.level(t)), t, 1e-10)
    assert bool((process.level(t).diff() > 0).all())
    torch.testing.assert_close(process.log_snr(t), -2 * process.level(t).log())


@structured
def test_rows_with_times_of_their_own(process):
    x0, x = draws(process)
    t, s = times(process)[1:6], times(process)[:5]
    for call in (
        lambda v, y, t, s, k: process.velocity(v, t, y),
        lambda v, y, t, s, k: process.eps(v, t, y),
        lambda v, y, t, s, k: process.score(v, t, y),
        lambda v, y, t, s, k: process.log_kernel(v, t, x0),
        lambda v, y, t, s, k: process.observe(v, t)[0],
        lambda v, y, t, s, k: process.log_noise(v, t),
        lambda v, y, t, s, k: process.transition(t, s)(v),
        lambda v, y, t, s, k: process.perturb(y, t, rows(1, k, k + len(v))),
        lambda v, y, t, s, k: process.diffuse(v, s, t, rows(1, k, k + len(v))),
    ):
        whole = call(x, x0, t, s, 0)
        for k in range(5):
            close(call(x[k : k + 1], x0[k : k + 1], t[k], s[k], k), whole[k : k + 1], 1e-9)


@structured
def test_float32_states_stay_float32_and_agree(process):
    x0, x = draws(process)
    for t in (times(process)[3], times(process)[3].expand(5), times(process)[3].float(), times(process)[3:4].float()):
        for call in (
            lambda v, y, t=t: process.velocity(v, t, y),
            lambda v, y, t=t: process.observe(v, t)[0],
            lambda v, y, t=t: process.eps(v, t, y),
            lambda v, y, t=t: process.perturb(y, t, seeded(1)) - process.perturb(0 * y, t, seeded(1)),
        ):
            got = call(x.float(), x0.float())
            assert got.dtype == torch.float32
            close(got.double(), call(x, x0), 2e-5)
        assert process.level(t).dtype == process.time(process.level(t)).dtype == t.dtype
    for end in process.span:
        t = torch.tensor(end, dtype=torch.float64)
        state = process.perturb(x0.float(), t, seeded(2))
        assert bool(process.velocity(state, t, x0.float()).isfinite().all())


@structured
def test_prior_is_the_noise_of_the_far_end(process):
    end = torch.tensor(process.span[1], dtype=torch.float64)
    x = process.prior((3, *SHAPE), rows(4, 0, 3), torch.float64)
    assert x.shape == process.lift(torch.zeros(3, *SHAPE)).shape
    close(process.prior((1, *SHAPE), rows(4, 2, 3), torch.float64), x[2:], 1e-14)
    torch.testing.assert_close(process.prior_log_prob(x), process.log_noise(x, end))
    close(process.eps(x[:1], end, torch.zeros(1, *SHAPE, dtype=torch.float64)), normal(x[:1], rows(4, 0, 1)), 1e-12)
    assert process.prior((2, *SHAPE), rows(4, 0, 2)).dtype == torch.float32


def test_scalar_processes_have_the_numbers_of_their_curves():
    t = torch.tensor(0.4, dtype=torch.float64)
    beta = 0.1 + 0.4 * 19.9
    assert math.isclose(VP().drift(t).a.item(), -beta / 2, rel_tol=1e-12)
    assert math.isclose(VP().diffusion(t).a.item(), beta, rel_tol=1e-12)
    assert math.isclose(EDM().diffusion(t).a.item(), 0.8, rel_tol=1e-12)
