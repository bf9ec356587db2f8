"""The test on memorisation: exact by hand, uniform where nothing is copied, decided where something is."""

import math

import pytest
import torch

from driftfield.metric.copying import copying
from driftfield.rng import normal, seeded


def draw(*shape, seed=0):
    return normal(torch.empty(*shape, dtype=torch.float64), seeded(31, seed))


def test_all_samples_nearer_by_hand():
    """Of all ways to tell 6 samples from 5 held-out points by rank, one puts every sample first."""
    train = 10 * torch.arange(20, dtype=torch.float64)[:, None]
    near = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], dtype=torch.float64)[:, None]
    far = torch.tensor([1.1, 1.2, 1.3, 1.4, 1.5], dtype=torch.float64)[:, None]
    assert copying(train[:6] + near, train, train[:5] + far) == pytest.approx((1, 1 / math.comb(11, 5)), rel=1e-12)
    assert copying(train[:5] + far, train, train[:6] + near) == pytest.approx((0, 1), rel=1e-12)


def test_one_rank_by_hand():
    """Distances 1, 4 against 2, 3: of four pairs two are nearer; of the six orders, four have at least as many."""
    train = torch.tensor([[0.0]], dtype=torch.float64)
    found = copying(torch.tensor([[1.0], [4.0]]), train, torch.tensor([[2.0], [3.0]]))
    assert found == pytest.approx((0.5, 4 / 6), rel=1e-12)


@pytest.mark.parametrize(("n", "k"), [(30, 40), (8, 8)])
def test_the_p_value_is_uniform_where_samples_are_new_data(n, k):
    """Kolmogorov: over R = 500 replicates the distribution function is within sqrt(log(2 / 1e-4) / (2 R)) of the
    diagonal but for one case in 10^4 (Dvoretzky-Kiefer-Wolfowitz), and a step of the ranks' own law, whose largest
    is below 1 / (2.5 sd) with sd^2 = n k (n + k + 1) / 12. The training set is fresh each time."""
    count = 500
    p = []
    for i in range(count):
        sets = draw(n, 3, seed=3 * i), draw(25, 3, seed=3 * i + 1), draw(k, 3, seed=3 * i + 2)
        p.append(copying(*sets).p)
    p = torch.tensor(p, dtype=torch.float64).sort().values
    grid = torch.arange(count, dtype=torch.float64)
    distance = torch.maximum((p - grid / count).max(), ((grid + 1) / count - p).max())
    step = 1 / (2.5 * math.sqrt(n * k * (n + k + 1) / 12))
    assert float(distance) < math.sqrt(math.log(2 / 1e-4) / (2 * count)) + step


def test_copies_and_near_copies_are_found_and_others_are_not():
    train, held, new = draw(300, 5, seed=1), draw(300, 5, seed=2), draw(300, 5, seed=3)
    assert copying(train[:200], train, held) == pytest.approx((1, 0), abs=1e-12)
    leaning = torch.cat((train[:100] + 0.05 * draw(100, 5, seed=4), new[:200]))  # a third of them
    assert copying(leaning, train, held).p < 1e-4
    assert copying(new, train, held).p > 1e-3
    off = copying(3 * new, train, held)
    assert off.share < 0.2
    assert off.p > 0.999


def test_bad_input_is_named():
    x = draw(9, 3)
    with pytest.raises(ValueError, match="held-out points are training points"):
        copying(x, x, x)
    with pytest.raises(ValueError, match="same features, got 2 and 3"):
        copying(x[:, :2], x, draw(4, 3, seed=1))
