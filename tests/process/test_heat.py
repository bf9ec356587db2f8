"""Blurring diffusion against the numbers of spec/gddim.md 8.10, on any grid."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from driftfield.process.heat import Blur
from driftfield.rng import normal, seeded
from driftfield.spectral import frequencies

F64 = torch.float64
LAM = frequencies((32, 32), torch.device("cpu"))


def at(t: float) -> torch.Tensor:
    return torch.tensor(t, dtype=F64)


def test_numbers_of_the_spec():
    for t, width, first, eighth, power in (
        (0.25, 1.0723304703, 0.9897280819, 0.2670861391, 0.8513427254),
        (0.5, 12.5, 0.8866095892, None, 0.5),
    ):
        kept = Blur().kept(at(t), LAM)
        assert math.isclose(Blur().width(at(t)).item(), width, rel_tol=1e-10)
        assert math.isclose(kept[0, 1].item(), first, rel_tol=1e-9)
        assert eighth is None or math.isclose(kept[8, 8].item(), eighth, rel_tol=1e-9)
        assert math.isclose(Blur().power(at(t)).item(), power, rel_tol=1e-10)
        assert kept[0, 0] == 1
    assert math.isclose(Blur().power(at(0.0)).item(), 0.9999611462, rel_tol=1e-10)
    assert math.isclose(Blur().time(at(80.0)).item(), 0.9959790086, rel_tol=1e-10)


def test_diffusion_is_nowhere_negative_and_closes_the_variance():
    """`G^2 = d sigma^2/dt - 2 F sigma^2`, by differences: 8.10."""
    t = torch.linspace(1e-5, 0.996, 2000, dtype=F64)
    diffusion, h = Blur().diffusion(t).factors(LAM), 1e-6
    assert diffusion.min() > 0
    rise = (Blur().power(t - h) - Blur().power(t + h)) / (2 * h)
    wanted = rise[:, None, None] - 2 * Blur().drift(t).factors(LAM) * (1 - Blur().power(t))[:, None, None]
    torch.testing.assert_close(diffusion, wanted, rtol=1e-6, atol=1e-6)


def test_without_blur_it_is_cosine_diffusion():
    """Every frequency has the signal and noise of the mean colour."""
    x0, eps = (normal(torch.empty(3, 2, 5, 7, dtype=F64), seeded(k)) for k in range(2))
    t = at(0.37)
    phase = (t + 0.004) / 1.008 * math.pi / 2
    plain = Blur(sigma_blur_max=0.0)
    x = phase.cos() * x0 + phase.sin() * eps
    close = lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    close(plain.signal(t)(x0) + plain.root(t)(eps), x)
    close(plain.eps(x, t, x0), eps)
    pace = math.pi / 2 / 1.008
    close(plain.velocity(x, t, x0), pace * (phase.cos() * eps - phase.sin() * x0))
    s = at(0.2)
    before = (s + 0.004) / 1.008 * math.pi / 2
    close(plain.transition(t, s)(x0), phase.cos() / before.cos() * x0)


def test_one_closed_step_is_the_flow():
    """8.5 and 8.11: from the far end to `span[0]` with the noise of the datum fixed."""
    x0, eps = (normal(torch.empty(2, 1, 8, 8, dtype=F64), seeded(k)) for k in range(2))
    low, high = (at(t) for t in Blur().span)
    path = lambda t: Blur().signal(t)(x0) + Blur().root(t)(eps)
    eps_hat = Blur().eps(path(high), high, x0)
    step = Blur().transition(low, high)(path(high) - Blur().root(high)(eps_hat)) + Blur().root(low)(eps_hat)
    torch.testing.assert_close(step, path(low), rtol=0, atol=1e-8)  # rounding, times 1 / m_T = 1e5


@pytest.mark.parametrize("event", [(1, 6), (3, 4, 5), (2, 3, 4, 2)])
def test_any_grid_and_any_channels(event):
    x0 = normal(torch.empty(3, *event), seeded(0))
    t = torch.tensor([0.2, 0.5, 0.9])
    x = Blur().perturb(x0, t, seeded(1))
    assert x.shape == Blur().velocity(x, t, x0).shape == x0.shape
    close = lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    close(Blur().from_modes(Blur().modes(x0)), x0)
    close(Blur().modes(x0).square().sum(), x0.square().sum())
    same = normal(torch.empty(3, 1, *event[1:]), seeded(2)).expand(3, *event)
    faded = Blur().signal(t)(same)
    close(faded, faded[:, :1].expand(3, *event))  # channels share the blur


def test_upward_moves_have_the_marginal_law():
    """The noise of a datum blurred in two moves is white: KS on 20 frequencies of 2,000 draws, 40,000 numbers."""
    x0 = normal(torch.empty(1, 1, 4, 5, dtype=F64), seeded(0)).expand(2000, 1, 4, 5)
    s, t = at(0.1), at(0.45)
    x = Blur().diffuse(Blur().perturb(x0, s, seeded(1)), s, t, seeded(2))
    eps = Blur().modes(Blur().eps(x, t, x0)).flatten(1)
    assert stats.kstest(eps.flatten().numpy(), stats.norm.cdf).pvalue > 1e-4
    correlation = eps.mT @ eps / 2000 - torch.eye(20, dtype=F64)
    assert correlation.abs().max() < 5 * math.sqrt(2 / 2000)  # 210 numbers of deviation at most sqrt(2 / 2000)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"sigma_blur_max .* >= 0, got -1"):
        Blur(sigma_blur_max=-1.0)
    with pytest.raises(ValueError, match="d_min must be between 0 and 1"):
        Blur(d_min=0.0)
    with pytest.raises(ValueError, match=r"no signal is left at time 1\.004"):
        Blur(span=(0.1, 1.004))
    with pytest.raises(ValueError, match=r"\(B, C, \*grid\), got shape \(4, 3\)"):
        Blur().perturb(torch.zeros(4, 3), at(0.3), seeded(0))
