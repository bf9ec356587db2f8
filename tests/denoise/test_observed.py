"""Exact denoisers under critically damped Langevin and blurring diffusion, against brute force in dense matrices."""

from __future__ import annotations

import math

import pytest
import torch

from driftfield.denoise.empirical import Empirical
from driftfield.denoise.mixture import Mixture
from driftfield.denoise.observed import ObservedData, ObservedMixture
from driftfield.process.gaussian import EDM, VP
from driftfield.process.heat import Blur
from driftfield.process.langevin import CLD
from driftfield.rng import normal, seeded

F64 = torch.float64
SHAPE = (1, 3, 2)
N = 6
each = pytest.mark.parametrize("process", [CLD(), Blur(), CLD(factor="L"), Blur(sigma_blur_max=3.0)], ids=repr)
TIMES = torch.tensor([0.01, 0.15, 0.4, 0.9], dtype=F64)


def dense(linear, process) -> torch.Tensor:
    like = process.lift(torch.zeros(1, *SHAPE, dtype=F64))
    basis = torch.eye(like.numel(), dtype=F64).reshape(-1, *like.shape[1:])
    return linear(basis).flatten(1).mT


def lifted(process) -> torch.Tensor:
    """The matrix of `lift`."""
    return process.lift(torch.eye(N, dtype=F64).reshape(N, *SHAPE)).flatten(1).mT


def gaussian(x, mean, covariance) -> torch.Tensor:
    covariance = (covariance + covariance.mT) / 2
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)


def setup(process, count=7):
    rng = seeded(4)
    data = normal(torch.empty(count, *SHAPE, dtype=F64), rng)
    return data, normal(process.lift(data[:4]), rng)


@each
def test_finite_data(process):
    """The mean, the density and the score, with and without labels, in tiles, at shared times and one per row."""
    data, z = setup(process)
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 2])
    exact = Empirical(process, data, labels, tile=3)
    cond = torch.tensor([-1, 0, 1, 2])
    for t in TIMES:
        x = (process.signal(t)(process.lift(data[:4])) + process.root(t)(z)).requires_grad_()
        means = process.signal(t)(process.lift(data)).flatten(1)
        log = gaussian(x.flatten(1)[:, None], means[None], dense(process.covariance(t), process))
        for chosen, allowed in ((None, torch.ones(4, 7)), (cond, (cond[:, None] < 0) | (cond[:, None] == labels))):
            masked = log.where(allowed.bool(), -math.inf)
            log_prob = masked.logsumexp(1) - allowed.double().sum(1).log()
            wanted = (masked.softmax(1) @ data.flatten(1)).reshape(4, *SHAPE)
            (score,) = torch.autograd.grad(log_prob.sum(), x, retain_graph=True)
            state = x.detach()
            torch.testing.assert_close(exact(state, t, chosen), wanted.detach(), rtol=1e-8, atol=1e-9)
            torch.testing.assert_close(exact.log_prob(state, t, chosen), log_prob.detach(), rtol=1e-9, atol=1e-7)
            torch.testing.assert_close(exact.score(state, t, chosen), score, rtol=1e-6, atol=1e-6)
            rowwise = exact(state, t.expand(4), chosen)
            torch.testing.assert_close(rowwise, exact(state, t, chosen), rtol=1e-9, atol=1e-10)
            assert exact(state.float(), t, chosen).dtype == torch.float32


@each
def test_mixtures(process):
    """Components of full covariance, one of them singular, by the joint normal law of datum and state."""
    data, z = setup(process, 3)
    factor = normal(torch.empty(3, N, N, dtype=F64), seeded(8)) / 2
    factor[1, :, 2:] = 0  # of rank 2
    covariances, weights = factor @ factor.mT, torch.tensor([0.2, 0.5, 0.3], dtype=F64)
    exact = Mixture(process, weights, data, covariances)
    x0 = exact.sample(4, seeded(1))
    assert x0.shape == (4, *SHAPE)
    for t in TIMES:
        a = dense(process.signal(t), process) @ lifted(process)
        x = (process.signal(t)(process.lift(x0)) + process.root(t)(z[:1])).requires_grad_()
        total = a @ covariances @ a.mT + dense(process.covariance(t), process)
        off = x.flatten(1)[:, None] - data.flatten(1) @ a.mT
        log = weights.log() + gaussian(off, torch.zeros(total.shape[-1], dtype=F64), total)
        gain = covariances @ a.mT @ torch.linalg.inv(total)
        parts = data.flatten(1) + torch.einsum("kij,bkj->bki", gain, off)
        wanted = (log.softmax(1)[..., None] * parts).sum(1).reshape(4, *SHAPE)
        (score,) = torch.autograd.grad(log.logsumexp(1).sum(), x)
        state = x.detach()
        torch.testing.assert_close(exact(state, t), wanted.detach(), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(exact.log_prob(state, t), log.logsumexp(1).detach(), rtol=1e-9, atol=1e-7)
        torch.testing.assert_close(exact.score(state, t), score, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(exact(state, t.expand(4)), exact(state, t), rtol=1e-9, atol=1e-10)


def test_a_mixture_of_vectors_under_langevin():
    """State `(B, 2, N)`, and the shrinkage of one Gaussian by the level alone."""
    process, s = CLD(), 0.7
    exact = Mixture(process, torch.ones(1), torch.zeros(1, 3), s**2 * torch.eye(3)[None])
    x = normal(torch.empty(5, 2, 3, dtype=F64), seeded(0))
    w, g = process.observe(x, TIMES[1])
    torch.testing.assert_close(exact(x, TIMES[1]), g * s**2 / (1 + (g * s) ** 2) * w, rtol=1e-6, atol=0)


@pytest.mark.parametrize("process", [VP(), EDM()], ids=repr)
def test_the_general_path_is_the_isotropic_one(process):
    """Two implementations of one formula, on scalar processes, where both apply."""
    data = normal(torch.empty(50, 4, dtype=F64), seeded(1)) + 3
    x, t = normal(torch.empty(6, 4, dtype=F64), seeded(2)), torch.linspace(0.3, 0.9, 6, dtype=F64)
    fast, general = Empirical(process, data), ObservedData(process, data, None, None, 16)
    torch.testing.assert_close(general.mean(x, t, None), fast(x, t), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(general.log_prob(x, t, None), fast.log_prob(x, t), rtol=1e-9, atol=1e-9)
    weights, c = torch.full((2,), 0.5, dtype=F64), torch.stack([torch.eye(4, dtype=F64), torch.ones(4, 4, dtype=F64)])
    blobs = Mixture(process, weights, data[:2], c)
    general_blobs = ObservedMixture(process, weights.log(), data[:2], c)
    torch.testing.assert_close(general_blobs.mean(x, t), blobs(x, t), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(general_blobs.log_prob(x, t), blobs.log_prob(x, t), rtol=1e-9, atol=1e-9)


def test_far_data_do_not_cancel():
    """Offsets of 1000 at the least noise: weights are of differences from the data's mean."""
    data = normal(torch.empty(20, *SHAPE, dtype=F64), seeded(1)) * 0.01
    for process in (CLD(), Blur()):
        t = torch.tensor(process.span[0], dtype=F64)
        x = process.perturb(data[:3], t, seeded(2))
        shift = process.signal(t)(process.lift(torch.full((3, *SHAPE), 1000.0, dtype=F64)))
        moved = Empirical(process, data + 1000)(x + shift, t)
        torch.testing.assert_close(moved - 1000, Empirical(process, data)(x, t), rtol=0, atol=1e-6)


def test_states_of_another_shape_are_refused():
    data = torch.zeros(2, *SHAPE)
    with pytest.raises(ValueError, match=r"x must be \(B, 2, 1, 3, 2\), got \(4, 1, 3, 2\)"):
        Empirical(CLD(), data)(torch.zeros(4, *SHAPE), TIMES[0])
    blobs = Mixture(CLD(), torch.ones(1), data[:1], torch.eye(6)[None])
    with pytest.raises(ValueError, match=r"x must be \(B, 2, 1, 3, 2\)"):
        blobs(torch.zeros(4, *SHAPE), TIMES[0])
    with pytest.raises(TypeError, match="isotropic or Gaussian"):
        Empirical(object(), data)
