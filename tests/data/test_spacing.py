"""Distances and dimensions against brute force, exact laws and sets whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from driftfield.data import spacing as module
from driftfield.data.spacing import (
    QUANTILES,
    crowding,
    effective_dimension,
    intrinsic_dimension,
    quantiles,
    spacing,
    strays,
    widest,
)
from driftfield.rng import normal, seeded, uniform


def gauss(n, width, seed=0):
    return normal(torch.empty(n, width, dtype=torch.float64), seeded(seed))


def test_distances_agree_with_brute_force(monkeypatch):
    """Whatever the tiles: nearest, farthest and all pairs, with the copy at exactly 0."""
    x = 3 + gauss(83, 5)
    x[40] = x[7]
    every = (x[:, None] - x).norm(dim=2)
    every.fill_diagonal_(math.inf)
    for tile in (64, 2**21):
        monkeypatch.setattr(module, "_TILE", tile)
        near, pairs, far = module._distances(x, x, 10, own=True)
        torch.testing.assert_close(near, every.sort(1).values[:, :10], rtol=1e-12, atol=0)
        assert near[7, 0] == near[40, 0] == 0
        assert far == pytest.approx(float(every[every.isfinite()].max()), rel=1e-12)
        assert len(pairs) == 83 * 82
        assert float(pairs.mean()) == pytest.approx(float(every[every.isfinite()].mean()), rel=1e-9)


def test_spacing_of_a_grid():
    """On the corners of a cube with side 2 about (3, 0, 0) all is known."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    found = spacing(corners + torch.tensor([3.0, 0, 0]))
    assert found.nearest == (2.0,) * len(QUANTILES)
    assert (found.pairwise[0], found.pairwise[-1]) == pytest.approx((2, math.sqrt(12)))
    assert found.reach == pytest.approx(math.sqrt(18))  # from (4, 1, 1) to 0
    assert found.near == 0
    assert (found.items, found.among) == (8, 8)
    with pytest.raises(ValueError, match="at least 2 items"):
        spacing(corners[:1])


def test_quantiles_interpolate():
    x = torch.tensor([4.0, 0.0, 2.0, 1.0, 3.0])
    assert quantiles(x) == pytest.approx([4 * q for q in QUANTILES])


@pytest.mark.parametrize("k", [2, 10])
@pytest.mark.parametrize("d", [1.0, 2.0, 7.5])
def test_intrinsic_dimension_of_the_law_it_assumes(d, k):
    """In a Poisson process `T_j^d` are sums of exponentials; the estimate is then unbiased, with a relative deviation
    of `1 / sqrt(n (k - 1) - 2)` (an inverse gamma law). Bound: 4 of them."""
    n = 3000
    near = (-torch.log1p(-uniform(torch.empty(n, k, dtype=torch.float64), seeded(1)))).cumsum(1) ** (1 / d)
    assert intrinsic_dimension(near) == pytest.approx(d, rel=4 / math.sqrt(n * (k - 1) - 2))


def test_intrinsic_dimension_of_surfaces():
    """A sphere turned into 10 dimensions, and a swiss roll in 3: of dimension 2 both.

    The relative deviation is 1/sqrt(1000 x 9) = 1 %, about twice that as neighbourhoods overlap; the roll adds a bias
    of some per cent at its edges, where half of a neighbourhood is missing. Bound: 0.15.
    """
    sphere = gauss(6000, 3)
    turned = (sphere / sphere.norm(dim=1, keepdim=True)) @ torch.linalg.qr(gauss(10, 3, 1)).Q.T
    u = uniform(torch.empty(6000, 2, dtype=torch.float64), seeded(3))
    t = 1.5 * math.pi * (1 + 2 * u[:, 0])
    roll = torch.stack((t * t.cos(), 21 * u[:, 1], t * t.sin()), 1)
    for x in (turned, roll):
        assert spacing(x).intrinsic == pytest.approx(2, abs=0.15)


def test_dimensions_that_do_not_follow():
    assert intrinsic_dimension(torch.zeros(5, 3)) is None  # copies only
    assert intrinsic_dimension(torch.ones(5, 3)) is None  # all as far
    assert effective_dimension(torch.ones(3, 2)) is None
    assert effective_dimension(torch.ones(8, 2)) is None


def test_effective_dimension_is_exact_for_exact_covariances():
    """Both halves hold +-s_i e_i: the covariance is diag(s^2) / N, its participation ratio (sum s^2)^2 / sum s^4."""
    s2 = torch.tensor([4.0, 1.0, 1.0, 0.25], dtype=torch.float64)
    half = torch.cat((s2.sqrt().diag(), -s2.sqrt().diag()))
    x = half.repeat_interleave(2, 0)
    assert effective_dimension(x) == pytest.approx(float(s2.sum() ** 2 / s2.square().sum()), rel=1e-12)
    assert effective_dimension(torch.arange(10.0)[:, None] * torch.ones(1, 3)) == pytest.approx(1, rel=1e-12)


def test_effective_dimension_of_few_items_is_not_biased():
    """Half as many items as dimensions: the plain ratio of 40 items in 80 dimensions would be 27, its halves give 80.

    The mean over 60 samples is within 4 standard errors (from their own spread) of the truth; that the ratio of two
    unbiased numbers is biased by the square of the relative spread of each (here under 1 %) is allowed for.
    """
    found = torch.tensor([effective_dimension(gauss(40, 80, seed)) for seed in range(60)], dtype=torch.float64)
    error = float(found.std()) / math.sqrt(60)
    assert float(found.mean()) == pytest.approx(80, abs=4 * error + (float(found.std()) / 80) ** 2 * 80)


def test_crowding():
    """1 for Gaussian data of any covariance; proportional to the width of clusters; and copies do not count.

    A median of 1,024 distances has a relative error of about 3 % in 3 dimensions (density of ln distance at its median
    about 1); the ratio of two is bounded at 4 times 1.4 x 3 %.
    """
    x = gauss(1024, 3) * torch.tensor([5.0, 1.0, 0.2])
    assert crowding(x) == pytest.approx(1, abs=0.17)
    assert crowding(torch.cat((x, x[:200]))) == pytest.approx(crowding(x), rel=0.17)
    centre = 10 * gauss(6, 3, 1).repeat(170, 1)
    wide, narrow = (crowding(centre + w * gauss(1020, 3, 2)) for w in (1e-2, 1e-4))
    assert narrow / wide == pytest.approx(1e-2, rel=0.02)
    assert wide < 0.05
    assert crowding(torch.ones(10, 2)) == 1


def test_widest():
    assert widest(torch.tensor([[3.0, 4.0]] * 5)) == pytest.approx(5)
    assert widest(torch.tensor([[3.0, 4.0, 0.0]] * 2)) == pytest.approx(5)  # by the other product
    x = gauss(4000, 3) * torch.tensor([1.0, 2.0, 1.0]) + torch.tensor([0.0, 0.0, 7.0])
    assert widest(x) == pytest.approx(math.sqrt(50), rel=0.02)


def test_strays():
    x = gauss(300, 4)
    assert strays(x[:20], x).max() == 0
    far = strays(x[:20] + 100, x)
    assert far.min() > 190


def test_one_seed_is_one_answer():
    x = gauss(3000, 2)
    assert spacing(x, 1) == spacing(x, 1)
    assert spacing(x, 1) != spacing(x, 2)
