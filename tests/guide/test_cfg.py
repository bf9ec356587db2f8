"""Classifier-free guidance: linear in its scale, in line with guided noise, and counted."""

from __future__ import annotations

import pytest
import torch

import driftfield as df
from driftfield.denoise.base import evaluations

F64 = torch.float64


class Asked:
    """Normal data around the condition, or around 0, with the calls counted."""

    def __init__(self, process):
        self.process, self.calls = process, 0

    def __call__(self, x, t, cond=None):
        self.calls += 1
        mean = torch.zeros(len(x), 1, dtype=x.dtype) if cond is None else cond[:, None].to(x)
        a, s = self.process.alpha(t), self.process.sigma(t)
        return mean + a / (a**2 + s**2) * (x - a * mean)


@pytest.mark.parametrize("process", [df.VP(), df.EDM(), df.Rectified()], ids=lambda p: type(p).__name__)
def test_guided_data_are_guided_noise(process, rng):
    """The noise of the guided estimate is the guided noise of the two estimates."""
    denoiser, cond = Asked(process), torch.tensor([1.0, -2.0, 3.0])
    x, t = torch.randn(3, 4, generator=rng, dtype=F64), process.time(torch.tensor(0.6, dtype=F64))
    eps = lambda y: process.eps(x, t, y)
    for scale in (-1.0, 0.0, 1.0, 2.5, 7.5):
        null, told = eps(denoiser(x, t)), eps(denoiser(x, t, cond))
        guided = df.CFG(denoiser, scale)(x, t, cond)
        torch.testing.assert_close(eps(guided), null + scale * (told - null), rtol=1e-12, atol=1e-12)


def test_guided_normals_are_normal():
    """Conditional N(c, 1), unconditional N(0, 1): the guided flow is that of N(w c, 1), whatever the process."""
    for process in (df.EDM(), df.VP()):
        guided = df.CFG(Asked(process), 2.0)
        n = 4000
        drawn = df.generate(
            process, guided, (n, 1), cond=torch.full((n,), 1.5), nfe=200, solver="heun", dtype=F64, seed=3
        )
        # mean of n normals: 4 standard errors of 1/sqrt(n); the 50-step error of Heun is below 0.01
        assert abs(drawn.mean().item() - 3.0) < 4 / n**0.5 + 0.01
        assert abs(drawn.std().item() - 1.0) < 4 / (2 * n) ** 0.5 + 0.01


@pytest.mark.parametrize(("scale", "cost"), [(0.0, 1), (1.0, 1), (3.0, 2)])
@pytest.mark.parametrize("nfe", [9, 20])
def test_the_budget_counts_calls_of_the_model(scale, cost, nfe):
    inner = Asked(df.EDM())
    guided = df.CFG(inner, scale)
    assert evaluations(guided) == cost
    assert evaluations(df.CFG(guided, scale)) == cost**2
    drawn = df.generate(df.EDM(), guided, (5, 1), cond=torch.ones(5), nfe=nfe, solver="euler")
    assert drawn.nfe == inner.calls <= nfe
    assert drawn.nfe > nfe - cost


def test_too_small_a_budget_is_refused():
    guided = df.CFG(Asked(df.EDM()), 3.0)
    with pytest.raises(ValueError, match="at least 2, got 1; one estimate of this denoiser costs 2"):
        df.generate(df.EDM(), guided, (5, 1), nfe=1)
    with pytest.raises(ValueError, match="costs 20 evaluations but nfe=12"):
        df.generate(df.EDM(), guided, (5, 1), nfe=12, solver="euler", grid=df.karras(df.EDM(), 10))
