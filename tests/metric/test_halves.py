"""Standard errors by halves: exact for a mean, the spread of replicates for a distance, too large where it says so."""

import math

import pytest
import scipy.stats
import torch

from driftfield.metric.frechet import frechet
from driftfield.metric.halves import half, halves_error
from driftfield.rng import normal, seeded


def draw(*shape, seed=0):
    return normal(torch.empty(*shape, dtype=torch.float64), seeded(37, seed))


def test_the_error_of_a_mean():
    """The variance of the mean of a random half, given the data, is the sample's variance over its size: exactly what
    is wanted. Means of halves are normal enough for the chi-square range of 1e-4 of 499 degrees."""
    x = draw(400)
    found = halves_error(lambda rng: {"mean": float(x[half(400, rng)].mean())}, 500, seed=1)["mean"]
    low, high = scipy.stats.chi2.ppf([5e-5, 1 - 5e-5], 499) / 499
    assert low < found**2 / (float(x.var()) / 400) < high


def replicates(shift, count, halves):
    value, estimate = [], []
    for i in range(count):
        a, b = draw(120, 3, seed=2 * i), draw(100, 3, seed=2 * i + 1) + shift
        value.append(frechet(a, b))
        by = lambda rng, a=a, b=b: {"x": frechet(a[half(120, rng)], b[half(100, rng)])}
        estimate.append(halves_error(by, halves, seed=i)["x"] ** 2)
    return torch.tensor(value, dtype=torch.float64), torch.tensor(estimate, dtype=torch.float64)


def test_the_error_of_a_distance_is_the_spread_of_replicates():
    """Frechet between laws two apart, where it is smooth: the variance of R values and the mean of R estimates of it
    agree within four of both errors together, and the second-order part, which halves see twice, of relative size
    (F / n) / (shift^2) < 3 %."""
    count = 150
    value, estimate = replicates(2.0, count, 8)
    kurtosis = float(((value - value.mean()) / value.std()).pow(4).mean())
    bound = 4 * math.sqrt((kurtosis - 1) / count + float(estimate.std() / estimate.mean()) ** 2 / count)
    assert abs(float(estimate.mean() / value.var()) - 1) < bound + 0.03


def test_at_equal_laws_it_is_too_large_but_by_less_than_two():
    """In errors, not variances; with the relative errors of the variance of R values as above."""
    count = 150
    value, estimate = replicates(0.0, count, 8)
    kurtosis = float(((value - value.mean()) / value.std()).pow(4).mean())
    slack = 2 * math.sqrt((kurtosis - 1) / count)
    ratio = math.sqrt(float(estimate.mean() / value.var()))
    assert 1 - slack < ratio < 2 * (1 + slack)


def test_the_seed_decides_and_two_are_needed():
    x = draw(40)
    by = lambda rng: {"mean": float(x[half(40, rng)].mean())}
    assert halves_error(by, 5, 1) == halves_error(by, 5, 1) != halves_error(by, 5, 2)
    with pytest.raises(ValueError, match="at least 2 subsets, got 1"):
        halves_error(by, 1, 1)
