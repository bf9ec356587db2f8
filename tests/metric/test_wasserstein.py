"""The sliced Wasserstein distance: one dimension exactly, shifts and scales in closed form, the error it states."""

import math
import sys

import pytest
import scipy.optimize
import scipy.stats
import torch

from driftfield.metric import wasserstein as module
from driftfield.metric.frechet import frechet
from driftfield.metric.wasserstein import sliced_wasserstein, wasserstein
from driftfield.rng import normal, seeded


def draw(*shape, seed=0):
    return normal(torch.empty(*shape, dtype=torch.float64), seeded(13, seed))


@pytest.mark.parametrize(("n", "m"), [(7, 7), (6, 4), (5, 13), (1, 8), (12, 3)])
def test_one_dimension_is_exact_for_any_sizes(n, m):
    """Repeat each value until the sizes agree; then sorted values face each other."""
    a, b = draw(n, 1, seed=1), 2 * draw(m, 1, seed=2) + 1
    longer_a, longer_b = a.repeat_interleave(m, 0).sort(0).values, b.repeat_interleave(n, 0).sort(0).values
    value, error = sliced_wasserstein(a, b, seeded(0), projections=5)
    assert value == pytest.approx(float((longer_a - longer_b).square().mean().sqrt()), rel=1e-13)
    assert error == pytest.approx(0, abs=1e-14)


def test_every_direction_against_a_loop(monkeypatch):
    """The same directions, one at a time, equal sizes; small tiles change nothing."""
    a, b = draw(40, 6, seed=1), draw(40, 6, seed=2) * 1.5
    lines = normal(torch.empty(30, 6, dtype=torch.float64), seeded(4))
    squares = [((a @ u / u.norm()).sort()[0] - (b @ u / u.norm()).sort()[0]).square().mean() for u in lines]
    monkeypatch.setattr(module, "_TILE", 100)
    value, error = sliced_wasserstein(a, b, seeded(4), projections=30)
    mean, sd = float(torch.stack(squares).mean()), float(torch.stack(squares).std())
    assert value == pytest.approx(math.sqrt(mean), rel=1e-12)
    assert error == pytest.approx(sd / math.sqrt(30) / (2 * math.sqrt(mean)), rel=1e-12)


@pytest.mark.parametrize("size", [2, 8, 64])
def test_a_shift_and_the_error_of_its_directions(size):
    """A shift `m` is at `|m| / sqrt(F)`. `(u.m)^2 / |m|^2` is Beta(1/2, (F - 1)/2), of variance
    `2 (F - 1) / (F^2 (F + 2))` and kurtosis below 15 (chi-square, F to infinity), so the sample's deviation is within
    `4 ((15 - 1) / L)^(1/2) / 2` of it, relatively; and the root's own slope moves it by at most as the value moves."""
    x, shift, count = draw(11, size), draw(size, seed=5), 4096
    value, error = sliced_wasserstein(x, x + shift, seeded(1), projections=count)
    length = float(shift.norm())
    assert abs(value - length / math.sqrt(size)) < 4 * error
    deviation = length**2 * math.sqrt(2 * (size - 1) / (size**2 * (size + 2)))
    expected = deviation / math.sqrt(count) / (2 * length / math.sqrt(size))
    assert error == pytest.approx(expected, rel=2 * math.sqrt(14 / count) + 4 * error / value)


def test_a_scale():
    """Scaling by c about 0 moves the value at quantile q by (c - 1) times itself: `(c - 1) (mean |x|^2 / F)^(1/2)`."""
    x = draw(50, 10)
    value, error = sliced_wasserstein(x, 3 * x, seeded(2), projections=2048)
    assert abs(value - 2 * math.sqrt(float(x.square().sum(1).mean()) / 10)) < 4 * error


def test_equal_sets_are_at_zero():
    x = draw(30, 4)
    assert sliced_wasserstein(x, x, seeded(0)) == (0.0, 0.0)
    assert sliced_wasserstein(x, x.flip(0), seeded(0))[0] < 1e-14
    assert sliced_wasserstein(x, x.repeat(3, 1), seeded(0))[0] < 1e-14


def test_the_error_covers_the_truth_over_seeds():
    """Over 200 seeds the standardised deviation has mean 0 and variance 1, as far as 200 draws can tell: the mean
    within 4 / sqrt(200), the variance inside the 1e-4 range of chi-square with 199 degrees."""
    x, shift = draw(5, 16), draw(16, seed=3)
    truth = float(shift.norm()) / 4
    z = [
        (value - truth) / error
        for value, error in (sliced_wasserstein(x, x + shift, seeded(5, k), projections=1024) for k in range(200))
    ]
    z = torch.tensor(z, dtype=torch.float64)
    assert abs(float(z.mean())) < 4 / math.sqrt(200)
    low, high = scipy.stats.chi2.ppf([5e-5, 1 - 5e-5], 199) / 199
    assert low < float(z.var()) < high


def test_the_seed_decides():
    a, b = draw(20, 5, seed=1), draw(25, 5, seed=2)
    assert sliced_wasserstein(a, b, seeded(3)) == sliced_wasserstein(a, b, seeded(3))
    assert sliced_wasserstein(a, b, seeded(3)) != sliced_wasserstein(a, b, seeded(4))


@pytest.mark.parametrize(("n", "m"), [(7, 7), (6, 4), (1, 8)])
def test_exact_transport_in_one_dimension_and_along_a_line(n, m):
    """By sorting; and by the simplex, of the same points laid along a line in three dimensions."""
    a, b = draw(n, 1, seed=1), 2 * draw(m, 1, seed=2) + 1
    longer_a, longer_b = a.repeat_interleave(m, 0).sort(0).values, b.repeat_interleave(n, 0).sort(0).values
    expected = float((longer_a - longer_b).square().mean().sqrt())
    assert wasserstein(a, b) == pytest.approx(expected, rel=1e-13)
    pytest.importorskip("ot")
    line = torch.tensor([[1.0, 2.0, -2.0]], dtype=torch.float64) / 3
    assert wasserstein(a @ line + 5, b @ line + 5) == pytest.approx(expected, rel=1e-12)


def test_exact_transport_is_the_best_assignment():
    """Equal weights on equal numbers: a permutation is optimal (Birkhoff); on unequal ones, of repeated points."""
    pytest.importorskip("ot")
    a, b = draw(24, 5, seed=1), draw(24, 5, seed=2) + 0.3
    cost = torch.cdist(a, b).square().numpy()
    i, j = scipy.optimize.linear_sum_assignment(cost)
    assert wasserstein(a, b) == pytest.approx(math.sqrt(cost[i, j].mean()), rel=1e-12)
    cost = torch.cdist(a, b[:16]).square().numpy().repeat(2, 0).repeat(3, 1)
    i, j = scipy.optimize.linear_sum_assignment(cost)
    assert wasserstein(a, b[:16]) == pytest.approx(math.sqrt(cost[i, j].mean()), rel=1e-12)


def test_exact_transport_of_shifts_copies_and_normal_laws():
    """A shift costs its length; equal sets nothing, exactly; and no plan is better than the means allow."""
    pytest.importorskip("ot")
    x, shift = draw(60, 8) + 1000, draw(8, seed=9)
    assert wasserstein(x, x + shift) == pytest.approx(float(shift.norm()), rel=1e-12)
    assert wasserstein(x, x.flip(0)) == 0
    assert wasserstein(x, x.repeat(2, 1)) < 1e-12
    a, b = draw(80, 2, seed=3), 2 * draw(80, 2, seed=4)
    assert wasserstein(a, b) ** 2 >= frechet(a, b) * 79 / 80 - 1e-12  # Gelbrich: moments, of the samples themselves
    assert wasserstein(a, b) >= sliced_wasserstein(a, b, seeded(0))[0]


def test_exact_transport_that_cannot_be_is_refused(monkeypatch):
    x = draw(9, 3)
    monkeypatch.setattr(module, "_MOST", 80)
    with pytest.raises(ValueError, match="costs of all 9 x 9 pairs, and 80 is the most"):
        wasserstein(x, x)
    monkeypatch.undo()
    pytest.importorskip("ot")
    monkeypatch.setattr(module, "_PIVOTS", 1)
    with pytest.raises(ValueError, match="was not solved"):
        wasserstein(draw(60, 3, seed=1), draw(60, 3, seed=2))
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match=r"pip install 'driftfield\[transport\]'"):
        wasserstein(x, x)
    assert wasserstein(x[:, :1], x[:, :1]) == 0


def test_bad_input_is_named():
    x = draw(6, 3)
    with pytest.raises(ValueError, match="at least 2 projections, got 1"):
        sliced_wasserstein(x, x, seeded(0), projections=1)
    with pytest.raises(ValueError, match="same features, got 3 and 2"):
        sliced_wasserstein(x, x[:, :2], seeded(0))
    with pytest.raises(ValueError, match=r"shape \(n, F\)"):
        sliced_wasserstein(x[0], x, seeded(0))
