"""The nearest-training-point ratio: brute force, copies, known spacings."""

import pytest
import torch
from scipy.spatial.distance import cdist

from driftfield.metric import nearest as module
from driftfield.metric.nearest import nearest_distance, nearest_ratio
from driftfield.rng import normal, seeded


def draw(*shape, seed=0):
    return normal(torch.empty(*shape, dtype=torch.float64), seeded(17, seed))


@pytest.mark.parametrize("tile", [1, 130, 2**22])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_distances_are_those_of_brute_force(tile, offset, monkeypatch):
    monkeypatch.setattr(module, "_TILE", tile)
    points, among = draw(37, 5, seed=1) + offset, draw(61, 5, seed=2) + offset
    expected = torch.from_numpy(cdist(points.numpy(), among.numpy()).min(1))
    torch.testing.assert_close(nearest_distance(points, among), expected, rtol=1e-13, atol=0)


def test_the_ratio_is_that_of_medians():
    samples, train, held = draw(30, 4, seed=1), draw(50, 4, seed=2), draw(41, 4, seed=3)
    near = [torch.from_numpy(cdist(x.numpy(), train.numpy()).min(1)) for x in (samples, held)]
    expected = near[0].quantile(0.5) / near[1].quantile(0.5)  # an even and an odd number of rows
    assert nearest_ratio(samples, train, held) == pytest.approx(float(expected), rel=1e-13)


def test_known_spacings():
    """Training points are the whole numbers; samples lie a quarter off, held-out points a half."""
    train = torch.arange(10, dtype=torch.float64)[:, None]
    assert nearest_ratio(train + 0.25, train, train[:-1] + 0.5) == pytest.approx(0.5, rel=1e-14)


def test_copies_are_at_zero():
    train, held = draw(50, 6, seed=1).float() + 1000, draw(20, 6, seed=2) + 1000
    assert nearest_ratio(train[:11], train, held) == 0
    half = torch.cat((train[:11], held[:10].float()))
    assert nearest_ratio(half, train, held) == 0  # most are copies


def test_fresh_data_are_near_one():
    """A median of n distances has a relative error of about `1 / (2 f sqrt(n))`; with the spread of these distances,
    under half of their median, f > 1 and so 4 sqrt(2 / 1000) / 2 = 0.09 is four errors of the ratio."""
    train, held, fresh = (draw(1000, 10, seed=s) for s in (1, 2, 3))
    assert nearest_ratio(fresh, train, held) == pytest.approx(1, abs=0.09)
    assert nearest_ratio(train + 0.01 * draw(1000, 10, seed=4), train, held) < 0.1
    assert nearest_ratio(2 * fresh, train, held) > 1.5


def test_bad_input_is_named():
    train = draw(9, 3)
    with pytest.raises(ValueError, match="held-out points are training points"):
        nearest_ratio(train, train, train)
    with pytest.raises(ValueError, match="same features, got 2 and 3"):
        nearest_ratio(train[:, :2], train, draw(4, 3, seed=1))
    with pytest.raises(ValueError, match="finite, but 27 of 27"):
        nearest_distance(train, train * torch.nan)
