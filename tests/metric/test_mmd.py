"""The Gaussian kernel's discrepancy: the double loop, the closed form of two normal laws, the bandwidth."""

import math

import pytest
import torch

from driftfield.metric import mmd as module
from driftfield.metric.mmd import discrepancy, median_distance, mmd, parts, radial, unbiased
from driftfield.rng import normal, seeded


def draw(*shape, seed=0):
    return normal(torch.empty(*shape, dtype=torch.float64), seeded(23, seed))


def double_loop(a, b, bandwidths):
    def k(x, y):
        d2 = float((x - y).square().sum())
        return sum(math.exp(-d2 / (2 * h**2)) for h in bandwidths) / len(bandwidths)

    m, n = len(a), len(b)
    aa = sum(k(a[i], a[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    bb = sum(k(b[i], b[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return aa + bb - 2 * sum(k(x, y) for x in a for y in b) / (m * n)


@pytest.mark.parametrize("bandwidths", [(1.5,), (0.5, 1.0, 4.0)])
@pytest.mark.parametrize("tile", [1, 40, 2**18])
def test_the_value_is_the_double_loop(tile, bandwidths, monkeypatch):
    monkeypatch.setattr(module, "_TILE", tile)
    a, b = draw(13, 5, seed=1) + 30, draw(9, 5, seed=2) + 30.5
    assert mmd(a, b, bandwidths)[0] == pytest.approx(double_loop(a, b, bandwidths), abs=1e-12)


@pytest.mark.parametrize("tile", [1, 40, 2**18])
def test_the_value_alone_is_the_value(tile, monkeypatch):
    monkeypatch.setattr(module, "_TILE", tile)
    a, b = draw(13, 5, seed=1), draw(9, 5, seed=2)
    kernel = radial((1.5,))
    assert unbiased(a, b, kernel) == pytest.approx(discrepancy(a, b, kernel)[0], rel=1e-12)


def closed_form(mean, left, right, h):
    """The squared discrepancy of `N(mean, diag left)` and `N(0, diag right)`: the kernel is a Gaussian too."""

    def moment(shift, spread):
        s = spread + h**2
        return float((h**2 / s).sqrt().prod() * (-(shift**2) / (2 * s)).sum().exp())

    zero = torch.zeros_like(mean)
    return moment(zero, 2 * left) + moment(zero, 2 * right) - 2 * moment(mean, left + right)


@pytest.mark.parametrize("h", [0.7, 3.0])
def test_two_normal_laws_against_the_closed_form(h):
    """Unbiased: the mean of R values is the truth within four of its errors; so is one large sample, within its own."""
    mean = torch.tensor([0.6, 0.0, -0.3], dtype=torch.float64)
    left, right = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, 2.0, 0.5], [1.0, 1.0, 1.5]))
    expected = closed_form(mean, left, right, h)
    value = torch.tensor(
        [
            mmd(mean + left.sqrt() * draw(40, 3, seed=2 * i), right.sqrt() * draw(50, 3, seed=2 * i + 1), (h,))[0]
            for i in range(400)
        ],
        dtype=torch.float64,
    )
    assert abs(float(value.mean()) - expected) < 4 * float(value.std()) / 20
    found, error = mmd(mean + left.sqrt() * draw(2000, 3, seed=1), right.sqrt() * draw(1500, 3, seed=2), (h,))
    assert abs(found - expected) < 4 * error < expected


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_the_error_is_the_spread_of_replicates(shift):
    """As for KID: the variance of R values against the mean of R estimates, within four of both errors together."""
    count, kernel = 500, radial((2.0,))
    rows = []
    for i in range(count):
        value, first, second = parts(draw(40, 4, seed=2 * i), draw(30, 4, seed=2 * i + 1) + shift, kernel)
        rows.append((value, sum(first) + second))
    value, estimate = torch.tensor(rows, dtype=torch.float64).T
    kurtosis = float(((value - value.mean()) / value.std()).pow(4).mean())
    bound = 4 * math.sqrt((kurtosis - 1) / count + float(estimate.std() / estimate.mean()) ** 2 / count)
    assert abs(float(estimate.mean() / value.var()) - 1) < bound


def test_points_far_apart_and_equal_ones():
    """Beyond the kernel's reach each sample is known by its own points alone: 2 on average for two single points."""
    x = torch.zeros(4, 2, dtype=torch.float64)
    assert mmd(x, x, (1.0,)) == (0.0, 0.0)
    assert mmd(x, x + 100, (1.0,)) == pytest.approx((2, 0), abs=1e-12)


def test_the_median_distance():
    x = torch.tensor([[0.0], [1.0], [3.0]])
    assert median_distance(x, seeded(0)) == 2.0
    far = draw(5000, 400)
    assert median_distance(far, seeded(1)) == pytest.approx(math.sqrt(800), rel=0.01)  # |x - y|^2 is 2 chi-square
    assert median_distance(far, seeded(1)) == median_distance(far, seeded(1))


def test_bad_input_is_named():
    x = draw(6, 3)
    with pytest.raises(ValueError, match=r"above 0, at least one; got \[0.0\]"):
        mmd(x, x, (0.0,))
    with pytest.raises(ValueError, match="at least one; got"):
        mmd(x, x, ())
    with pytest.raises(ValueError, match="n at least 4"):
        mmd(x[:3], x, (1.0,))
    with pytest.raises(ValueError, match="one and the same point"):
        median_distance(torch.ones(5, 2), seeded(0))
