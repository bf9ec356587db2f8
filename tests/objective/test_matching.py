"""The objective: its value in closed form, its alignment across D, its weights and times."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

import driftfield as df
from driftfield.network.embed import Condition
from driftfield.objective.augment import Augment
from driftfield.objective.base import Batch
from driftfield.objective.laws import (
    Balanced,
    Even,
    LogNormal,
    LogUniform,
    NoiseMatching,
    UniformTime,
    VelocityMatching,
)
from driftfield.objective.matching import Matching
from driftfield.process.symbols import Power
from driftfield.rng import rows, seeded

F64 = torch.float64
PROCESSES = [df.EDM(), df.VP(), df.SubVP(), df.VE(), df.Rectified(), df.PFGMPP(D=4.0), df.PFGMPP(D=float("inf"))]
each = pytest.mark.parametrize("process", PROCESSES, ids=str)
SUM = df.Subordinated(Power(1.0) + 0.3 * Power(0.5))  # whose targets lie between a far state and the data


class Zero(torch.nn.Module):
    """An untrained network: its last layer begins at 0."""

    def forward(self, x, noise, cond=None):
        return 0 * x


@pytest.mark.parametrize("process", [p for p in PROCESSES if getattr(p, "D", math.inf) == math.inf], ids=str)
def test_an_empty_network_has_loss_one(process):
    """With a zero network `y = c_skip x` and the Balanced weight, Gaussian data of deviation sigma_data lose 1 a level.

    Finite D has no such identity (its noise has another variance). Mean of 60,000 chi-square(1) values:
    deviation sqrt(2 / 60,000) = 0.006.
    """
    s = 0.7
    x0 = s * torch.randn(30_000, 2, generator=seeded(1), dtype=F64)

    inner = df.Rectified(span=(1e-3, 0.99)) if isinstance(process, df.Rectified) else process  # "edm" needs a signal
    denoiser = df.Preconditioned(Zero(), inner, s, "edm")
    for level in (0.1, 1.0, 10.0):
        t = process.time(torch.full((30_000,), level, dtype=F64))
        losses = Matching(process, weight=Balanced(s)).at(denoiser, Batch(x0), t, seeded(2))
        assert losses.shape == (30_000,)
        assert losses.mean().item() == pytest.approx(1, abs=5 * 0.006)


@each
def test_balanced_is_one_over_c_out_squared(process):
    """spec/pfgmpp.md 2.5, on every process at equal level."""
    level = torch.logspace(-2, 1.5, 9, dtype=F64)
    t = process.time(level)
    expected = (level.square() + 0.25) / (0.5 * level).square()
    torch.testing.assert_close(Balanced(0.5)(process, t), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(NoiseMatching()(process, t), level**-2.0, rtol=1e-9, atol=0)
    assert torch.equal(Even()(process, t), torch.ones(9, dtype=F64))


@each
def test_velocity_matching_is_the_error_of_the_velocity(process, rng):
    x, y, x0 = (torch.randn(4, 3, generator=rng, dtype=F64) for _ in range(3))
    t = process.time(torch.tensor([0.1, 0.5, 2.0, 5.0], dtype=F64))
    of_velocity = (process.velocity(x, t, y) - process.velocity(x, t, x0)).square().mean(1)
    torch.testing.assert_close(VelocityMatching()(process, t) * (y - x0).square().mean(1), of_velocity)


def test_laws_draw_levels_and_are_aligned_across_D():
    like = torch.empty(20_000, 2, dtype=F64)
    for process in (df.EDM(), df.VP(), df.PFGMPP(D=2.0), df.Rectified()):
        levels = process.level(LogNormal()(process, like, seeded(3)))
        assert stats.kstest(levels.log().numpy(), stats.norm(-1.2, 1.2).cdf).pvalue > 1e-3
        even = process.level(LogUniform(0.1, 10.0)(process, like, seeded(4))).log().numpy()
        assert stats.kstest(even, stats.uniform(math.log(0.1), math.log(100.0)).cdf).pvalue > 1e-3
    times = UniformTime()(df.VP(), like, seeded(5))
    assert stats.kstest(times.numpy(), stats.uniform(1e-3, 0.999).cdf).pvalue > 1e-3


def test_the_loss_is_the_weighted_squared_error(rng):
    """Written out for PFGM++: same draws in the same order."""
    process = df.PFGMPP(D=8.0)
    x0 = torch.randn(5, 2, 3, generator=rng, dtype=F64)
    denoiser = df.Point(torch.zeros(2, 3, dtype=F64))
    objective = Matching(process, weight=Balanced(0.5), label_dropout=0.0)
    t = LogNormal()(process, x0, rows(1, 0, 5))
    expected = Balanced(0.5)(process, t) * x0.square().flatten(1).mean(1)
    torch.testing.assert_close(objective({"denoiser": denoiser}, Batch(x0), rows(1, 0, 5)), expected)


def test_the_exact_denoiser_is_the_minimiser():
    """Perturbing the exact denoiser of Gaussian data raises the loss, by just the squared perturbation."""
    process, s, n = df.EDM(), 0.6, 4000
    x0 = s * torch.randn(n, 2, generator=seeded(1), dtype=F64)
    exact = df.Normal(process, 0.0, s)
    t = torch.full((n,), 0.8, dtype=F64)
    objective = Matching(process, weight=Even())
    loss = lambda f: objective.at(f, Batch(x0), t, seeded(2))
    base = loss(exact)
    assert base.mean().item() == pytest.approx((0.8 * s) ** 2 / (0.8**2 + s**2), rel=5 * (1 / n) ** 0.5)
    shifted = loss(lambda x, t, c=None: exact(x, t) + 0.1)
    difference = shifted - base
    assert abs(difference.mean().item() - 0.01) < 5 * difference.std().item() / n**0.5


def test_labels_are_dropped_at_their_rate_and_augmentation_is_told():
    n, seen = 20_000, {}

    def denoiser(x, t, cond=None):
        seen["cond"] = cond
        return x

    label = torch.arange(n) % 10
    Matching(df.EDM(), weight=Even(), label_dropout=0.25)(
        {"denoiser": denoiser}, Batch(torch.zeros(n, 1), label), seeded(3)
    )
    kept = seen["cond"].label >= 0
    assert torch.equal(seen["cond"].label[kept], label[kept])
    assert abs((~kept).double().mean().item() - 0.25) < 4 * (0.25 * 0.75 / n) ** 0.5
    augment = Augment(probability=0.5)
    Matching(df.EDM(), weight=Even(), augment=augment)({"denoiser": denoiser}, Batch(torch.rand(8, 1, 8, 8)), seeded(3))
    assert isinstance(seen["cond"], Condition)
    assert seen["cond"].augment.shape == (8, augment.channels)
    Matching(df.EDM(), weight=Even())({"denoiser": denoiser}, Batch(torch.rand(8, 1, 8, 8)), seeded(3))
    assert seen["cond"] is None


@each
@pytest.mark.parametrize("weight", [Balanced(0.5), NoiseMatching(), VelocityMatching(), Even()], ids=str)
@pytest.mark.parametrize("event", [(), (3,), (2, 4)])
def test_losses_keep_the_dtype_of_the_data_in_any_shape(process, weight, event):
    """float64 times beside float32 data; scalar data `(b,)`; and no data at all."""
    objective = Matching(process, weight=weight, label_dropout=0.0)
    for count in (0, 4):
        x0 = torch.randn(count, *event, generator=seeded(12))
        t = process.time(torch.full((count,), 0.7, dtype=F64))
        losses = objective.at(lambda x, t, cond=None: 0 * x, Batch(x0), t, seeded(13))
        assert (losses.shape, losses.dtype) == ((count,), torch.float32)
        expected = weight.rows(process, t, process.perturb(x0, t, seeded(13))) * x0.double().reshape(
            count, math.prod(event)
        ).square().mean(1)
        torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "process",
    [df.PFGM(), df.Helmholtz(), df.PFGMPP(D=0.5), df.PFGMPP(D=3.0), df.Fractional(1 / 3), df.Fractional(0.9), SUM],
    ids=repr,
)
def test_losses_of_heavy_tailed_noise_stay_bounded(process):
    """At noise above the data even the longest of 100,000 draws weighs no more than a few, with an untrained network.

    Scaled by the level of the time alone, the largest of these losses is 1e5 to 1e20 times the smallest.
    """
    objective = Matching(process, weight=Balanced(0.5), label_dropout=0.0)
    x0 = 0.5 * torch.randn(100_000, 2, generator=seeded(14), dtype=F64)
    t = process.time(torch.full((len(x0),), 2.0, dtype=F64))
    denoiser = df.Preconditioned(Zero(), process, 0.5)
    losses = objective.at(denoiser, Batch(x0), t, seeded(15))
    # A gap whose square is (2 + 1.5)^2 times the mean one of a state that counts as usual, moved by a pull of up to 2,
    # is 49; a chi-square of two, the largest of so many, is 23 times its mean.
    assert float(losses.max()) < 100
    assert 0.5 < float(losses.mean()) < 2


@pytest.mark.parametrize("process", [df.EDM(), df.VP(), df.PFGMPP(D=128.0), df.Yukawa(), df.Fractional(1.0)], ids=repr)
def test_other_noise_is_weighed_by_its_time(process):
    x0 = torch.randn(500, 2, generator=seeded(14), dtype=F64)
    t = process.time(torch.full((len(x0),), 2.0, dtype=F64))
    x = process.perturb(x0, t, seeded(15))
    assert process.apparent(x, t, 0.5) is t
    weight = Balanced(0.5)
    assert torch.equal(weight.rows(process, t, x), weight(process, t))


def test_bad_objectives_are_refused():
    with pytest.raises(ValueError, match="probability"):
        Matching(df.EDM(), label_dropout=1.5)
    with pytest.raises(ValueError, match="sigma_data"):
        Balanced()(df.EDM(), torch.ones(1))
    with pytest.raises(ValueError, match="low < high"):
        LogUniform(2.0, 1.0)
