"""The dissipative wave: the telegraph process, its fronts, its flow, and its way to diffusion."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from driftfield.process.wave import DissipativeWave
from driftfield.rng import normal, rows, seeded

DOUBLE = torch.float64
WAVE = DissipativeWave(1.0)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=DOUBLE)


def mass(wave: DissipativeWave, t: float, points: int = 20001) -> Tensor:
    """By the trapezoidal rule in the angle of `gap = t sin(angle)`, which has no edge."""
    angle = torch.linspace(-math.pi / 2, math.pi / 2, points, dtype=DOUBLE)
    return torch.trapezoid(wave.density(t * angle.sin(), number(t)) * t * angle.cos(), angle)


def test_known_values() -> None:
    """At damping 1 and t = 2: the mass between the fronts, on them, and the density at the source."""
    torch.testing.assert_close(mass(WAVE, 2.0), number(0.8646647167633873), rtol=0, atol=1e-8)
    torch.testing.assert_close(1 - mass(WAVE, 2.0), number(0.1353352832366127), rtol=0, atol=1e-8)
    torch.testing.assert_close(WAVE.density(number(0.0), number(2.0)), number(0.26188881), rtol=0, atol=5e-9)


@pytest.mark.parametrize("damping", [0.5, 1.0, 10.0, 1000.0])
def test_level_is_the_standard_deviation(damping: float) -> None:
    """Interior and fronts together, at times on both sides of the crossover; and `time` inverts it to rounding."""
    wave = DissipativeWave(damping)
    for scaled in (1e-3, 0.3, 2.0, 30.0):
        t = scaled / damping
        angle = torch.linspace(-math.pi / 2, math.pi / 2, 20001, dtype=DOUBLE)
        gap = t * angle.sin()
        inside = torch.trapezoid(gap.square() * wave.density(gap, number(t)) * t * angle.cos(), angle)
        variance = inside + t**2 * math.exp(-scaled)
        torch.testing.assert_close(wave.sigma(number(t)).square(), variance, rtol=1e-6, atol=0)
    level = torch.logspace(-6, 4, 41, dtype=DOUBLE)
    torch.testing.assert_close(wave.sigma(wave.time(level)), level, rtol=1e-11, atol=0)
    assert wave.time(number(0.0)) == 0
    assert wave.sigma(number(0.0)) == 0
    step = 1e-6 * wave.time(level)
    slope = (wave.sigma(wave.time(level) + step) - wave.sigma(wave.time(level) - step)) / (2 * step)
    torch.testing.assert_close(wave.slopes(wave.time(level))[1], slope, rtol=1e-6, atol=0)


def test_density_moves_with_the_mean_direction() -> None:
    """`dp/dt + d(p v)/dx = 0` between the fronts, by differences of second order."""
    h, t = 1e-4, 1.3
    x = torch.linspace(-1.2, 1.2, 49, dtype=DOUBLE)

    def flux(x: Tensor) -> Tensor:
        return WAVE.density(x, number(t)) * WAVE.direction(x, number(t))

    rise = (WAVE.density(x, number(t + h)) - WAVE.density(x, number(t - h))) / (2 * h)
    out = (flux(x + h) - flux(x - h)) / (2 * h)
    torch.testing.assert_close(rise + out, torch.zeros_like(x), rtol=0, atol=1e-7)


def test_draws_follow_the_law() -> None:
    """Fronts, interior and directions of 40,000 draws; five standard errors, or p > 1e-5 (Kolmogorov-Smirnov)."""
    t, count = 2.0, 40000
    gap, direction = WAVE.telegraph(torch.zeros(count, dtype=DOUBLE), number(t), seeded(1))
    assert set(direction.tolist()) == {-1.0, 1.0}
    front = gap.abs() == t
    share = math.exp(-t)
    assert abs(float(front.double().mean()) - share) < 5 * math.sqrt(share * (1 - share) / count)
    assert torch.equal(direction[front], gap[front].sign())
    grid = t * torch.linspace(-math.pi / 2, math.pi / 2, 4001, dtype=DOUBLE).sin()
    cdf = torch.cumulative_trapezoid(WAVE.density(grid, number(t)), grid)
    cdf = torch.cat((cdf.new_zeros(1), cdf)) / cdf[-1]
    between = np.interp(gap[~front].numpy(), grid.numpy(), cdf.numpy())
    assert stats.kstest(between, "uniform").pvalue > 1e-5
    # E[direction | x]: the residual is uncorrelated with any function of x.
    residual = direction - WAVE.direction(gap, number(t))
    for test in (gap.sign(), gap, gap**3):
        assert abs(float((residual * test).mean())) < 5 * float((residual * test).std()) / math.sqrt(count)


def test_mass_left_of_a_trajectory_stays() -> None:
    """For data uniform on [-1, 1], whose density has no atoms: along the flow the distribution function is constant.

    The law at `t` mixes that of each datum, so its distribution function and flux are integrals over the data, taken
    by the midpoint rule for what is between the fronts; what is on them is known. Heun's steps and the rule leave 1e-4.
    """
    data = (torch.arange(4000, dtype=DOUBLE) + 0.5) / 2000 - 1
    grid = torch.linspace(-math.pi / 2, math.pi / 2, 3001, dtype=DOUBLE)

    def cdf_of_uniform(x: Tensor) -> Tensor:
        return ((x + 1) / 2).clamp(0, 1)

    def below(x: Tensor, t: float) -> Tensor:
        gap = t * grid.sin()
        weight = WAVE.density(gap, number(t)) * t * grid.cos() * (grid[1] - grid[0])
        inside = (cdf_of_uniform(x[:, None] - gap) * weight).sum(1)
        return inside + math.exp(-t) / 2 * (cdf_of_uniform(x - t) + cdf_of_uniform(x + t))

    def velocity(x: Tensor, t: float) -> Tensor:
        gap = x[:, None] - data
        p = WAVE.density(gap, number(t))
        flux = torch.where(gap.abs() < t, p * WAVE.direction(gap, number(t)), 0).mean(1)
        ahead, behind = ((x - t).abs() <= 1).double() / 2, ((x + t).abs() <= 1).double() / 2
        front = math.exp(-t) / 2
        return (flux + front * (ahead - behind)) / (p.mean(1) + front * (ahead + behind))

    x, times = torch.tensor([-0.7, -0.2, 0.05, 0.4], dtype=DOUBLE), torch.linspace(0.5, 0.05, 91).tolist()
    start = below(x, times[0])
    for t, s in pairwise(times):
        v = velocity(x, t)
        x = x + (s - t) / 2 * (v + velocity(x + (s - t) * v, s))
    torch.testing.assert_close(below(x, times[-1]), start, rtol=0, atol=3e-4)


def test_large_damping_is_diffusion() -> None:
    """As `damping t` grows the flow of one datum is `x / 2t`, its density Gaussian of variance `t / damping`."""
    for damping, tolerance in ((1e2, 2e-2), (1e4, 2e-4)):
        wave, t = DissipativeWave(damping), number(1.0)
        gap = torch.linspace(-2, 2, 17, dtype=DOUBLE) / math.sqrt(damping)
        torch.testing.assert_close(wave.direction(gap, t), gap / 2, rtol=2 * tolerance, atol=0)
        gaussian = (-gap.square() * damping / 2).exp() * math.sqrt(damping / 2 / math.pi)
        torch.testing.assert_close(wave.density(gap, t), gaussian, rtol=2 * tolerance, atol=0)
        # The target is then the datum.
        x0 = torch.zeros(17, 1, dtype=DOUBLE)
        assert wave.target(gap[:, None], t, x0).abs().max() < 3 * tolerance / math.sqrt(damping)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flow_by_the_target_is_the_mean_direction(dtype: torch.dtype) -> None:
    """In any number of dimensions, in float32 too, on the fronts and between them."""
    wave, x0 = DissipativeWave(3.0), normal(torch.empty(4000, 2, 3, dtype=dtype), seeded(2))
    t = wave.time(torch.logspace(-2, 1, 4000, dtype=DOUBLE))
    x = wave.perturb(x0, t, seeded(3))
    v = wave.velocity(x, t, wave.target(x, t, x0)).double()
    gap, time = x.double() - x0.double(), t[:, None, None]
    front = (gap.abs() - time).abs() < 1e-5 * (1 + time)
    assert front[:500].all(2).all(1).double().mean() > 0.5
    want = torch.where(front, gap.sign(), wave.direction(gap, time))
    torch.testing.assert_close(v, want, rtol=0, atol=2e-3 if dtype == torch.float32 else 1e-9)


def test_target_is_unbiased_for_the_direction() -> None:
    """The mean of `x - pace direction` given the state is that of the target: their difference has mean 0."""
    wave, t, count = DissipativeWave(2.0), number(0.8), 40000
    gap, direction = wave.telegraph(torch.zeros(count, dtype=DOUBLE), t, seeded(4))
    target = wave.target(gap[:, None], t, torch.zeros(count, 1, dtype=DOUBLE))[:, 0]
    noisy = gap - wave.sigma(t) / wave.slopes(t)[1] * direction
    for test in (torch.ones_like(gap), gap, gap.square()):
        off = (noisy - target) * test
        assert abs(float(off.mean())) < 5 * float(off.std()) / math.sqrt(count)


def test_kernel_knows_the_fronts() -> None:
    """A datum that made a front outweighs all others; away from fronts the kernel is the product of densities."""
    wave, x0 = DissipativeWave(1.0), normal(torch.empty(6, 2), seeded(5))
    x = x0 + torch.tensor([0.5, -0.5])
    log = wave.log_kernel(x, number(0.5), x0)
    assert log.shape == (6, 6)
    assert torch.equal(log.argmax(1), torch.arange(6))
    far = wave.log_kernel(x.double(), number(9.0), x0.double())
    gap = x.double()[:, None] - x0.double()
    torch.testing.assert_close(far, wave.density(gap, number(9.0)).log().sum(2))
    prior = wave.prior((5, 2), rows(0, 0, 5))
    top = number(wave.span[1])
    torch.testing.assert_close(wave.prior_log_prob(prior), wave.density(prior.double(), top).log().sum(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("top", [3.11, 3.3, 3.5])
def test_the_prior_has_a_density_at_its_own_draws(top: float, dtype: torch.dtype) -> None:
    """Entry by entry: on a front, where one of 22,000 is, its mass over the rounding of the state; else the density."""
    wave = DissipativeWave(1.0, (0.01, top))
    x, t = wave.prior((400, 784), seeded(0), dtype), wave.span[1]
    front = x.abs() == number(t).to(dtype)
    share = math.exp(-t)
    assert abs(float(front.double().mean()) - share) < 5 * math.sqrt(share / x.numel())
    assert front.any()
    width = 8 * torch.finfo(dtype).eps * (x.abs().double() + t)
    behind = wave.density(x.double(), number(t))
    at = torch.where(front, behind + share / (4 * width), behind)
    log = wave.prior_log_prob(x)
    assert log.dtype == torch.float64
    torch.testing.assert_close(log, at.log().sum(1), rtol=1e-10, atol=1e-5)


def test_each_row_draws_alone() -> None:
    x0, t = torch.zeros(7, 3), torch.full((7,), 0.6)
    whole = WAVE.perturb(x0, t, rows(0, 0, 7))
    assert torch.equal(whole[4:], WAVE.perturb(x0[4:], t[4:], rows(0, 4, 7)))
    with pytest.raises(ValueError, match="generators"):
        WAVE.perturb(x0, t, rows(0, 0, 3))
    assert WAVE.noise(x0, seeded(0)).shape == x0.shape


def test_bad_input_is_refused() -> None:
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="damping"):
            DissipativeWave(bad)
    with pytest.raises(ValueError, match=r"raise the damping to 1\.03"):
        DissipativeWave(0.5, (0.01, 3.0))
    with pytest.raises(ValueError, match="above 0"):
        DissipativeWave(1.0, (0.0, 3.0))
    for call in (WAVE.log_profile, WAVE.pull, WAVE.log_drop):
        with pytest.raises(TypeError, match="same in all directions"):
            call(*[number(1.0)] * (3 if call == WAVE.log_drop else 2), 2)
    with pytest.raises(TypeError, match="same in all directions"):
        WAVE.log_peak(number(1.0), 2)
