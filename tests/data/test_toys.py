"""Laws in the plane: their moments, supports, labels and draws."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.integrate import quad

from driftfield.data.toys import SAMPLE, Checkerboard, EightGaussians, OlympicRings, Rings, SwissRoll, Tree
from driftfield.rng import rows, seeded

DEFAULT = [EightGaussians(), Rings(), Checkerboard(), SwissRoll(), OlympicRings(), Tree()]
OTHER = [
    EightGaussians(3.0, 0.7),
    Rings(0.5, 0.2),
    Checkerboard(2.0),
    SwissRoll(1.0, 0.4, 0.2),
    OlympicRings(2.0, 0.3),
    Tree(2.0, 1.1, 0.5, 3, 0.1),
]
N = 100_000


def named(toys):
    return pytest.mark.parametrize("toy", toys, ids=lambda toy: type(toy).__name__)


@named(DEFAULT + OTHER)
def test_moments_are_the_stated_ones(toy):
    """Each of the five estimates is a mean of N values; it is off by 5 of its own standard errors once in 1.7e6."""
    x = toy.points(N, seeded(11))[0].double()
    mean, covariance = toy.moments()
    assert ((x.mean(0) - mean).abs() < 5 * x.std(0) / math.sqrt(N)).all()
    for i, j in ((0, 0), (0, 1), (1, 1)):
        product = (x - mean)[:, i] * (x - mean)[:, j]
        assert abs(product.mean() - covariance[i, j]) < 5 * product.std() / math.sqrt(N)


@named(DEFAULT)
def test_default_scale_is_one_and_the_mean_is_zero(toy):
    info = toy.load().info
    assert info.std == pytest.approx(1, abs=0.05)
    assert toy.moments()[0].abs().max() < 1e-12
    assert (info.kind, info.shape, info.shift, info.scale, info.count) == ("points", (2,), 0, 1, 0)
    assert info.classes == toy.classes


@named(OTHER)
def test_std_is_the_deviation_of_all_values(toy):
    """The relative error of a variance from 2N values of kurtosis under 9 is below sqrt(8 / 2N), 0.7 %."""
    x = toy.points(N, seeded(12))[0].double()
    assert toy.load().info.std == pytest.approx(float(x.std()), rel=0.02)


@named(DEFAULT)
def test_draws_are_reproducible_row_by_row(toy):
    source = toy.load()
    x, label = source.draw(9, rows(4, 0, 9))
    parts = [source.draw(3, rows(4, i, i + 3)) for i in (0, 3, 6)]
    assert (x.shape, x.dtype) == ((9, 2), torch.float32)
    assert torch.equal(x, torch.cat([p[0] for p in parts]))
    assert (label is None) == (not toy.classes)
    if label is not None:
        assert torch.equal(label, torch.cat([p[1] for p in parts]))
    assert len(set(x[:, 0].tolist())) == 9


@named(DEFAULT)
def test_fixed_samples_are_fixed_and_differ(toy):
    train, held = (part[0] for part in (toy.load().train(), toy.load().held()))
    assert len(train) == len(held) == SAMPLE
    assert torch.equal(train, toy.load().train()[0])
    assert torch.equal(held, toy.load().held()[0])
    assert not torch.isin(train[:, 0], held[:, 0]).all()


def test_checkerboard_lies_on_dark_squares_evenly():
    toy = Checkerboard()
    cell = (toy.points(N, seeded(1))[0] / toy.side).floor().long()
    assert (cell.sum(1) % 2 == 0).all()
    assert cell.min() == -2
    assert cell.max() == 1
    counts = torch.bincount(((cell + 2) * torch.tensor([4, 1])).sum(1), minlength=16)
    counts = counts[counts > 0].double()
    assert len(counts) == 8  # chi-square with 7 degrees: mean 7, variance 14
    assert ((counts - N / 8).square() / (N / 8)).sum() < 7 + 5 * math.sqrt(14)


def test_rings_lie_on_their_circles_evenly():
    toy = Rings(spread=0.0)
    radius = 3 / toy.radius * toy.points(N, seeded(2))[0].double().norm(dim=1)
    assert (radius - radius.round()).abs().max() < 1e-6
    share = torch.bincount(radius.round().long(), minlength=4) / N
    assert (share - torch.tensor([0, 1 / 3, 1 / 3, 1 / 3])).abs().max() < 5 * math.sqrt(2 / 9 / N)
    angle = torch.atan2(*toy.points(N, seeded(2))[0].T)
    for k in (1, 2, 3):  # the mean of cos(k angle) has variance 1 / 2N
        assert abs((k * angle).cos().mean()) < 5 / math.sqrt(2 * N)


def test_eight_gaussians_sit_where_their_labels_say():
    toy = EightGaussians()
    x, label = toy.points(N, seeded(3))
    for k in range(8):
        mine = x[label == k].double()
        centre = toy.radius * torch.tensor([math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)], dtype=torch.float64)
        assert abs(len(mine) - N / 8) < 5 * math.sqrt(N * 7 / 64)
        assert (mine.mean(0) - centre).abs().max() < 5 * toy.spread / math.sqrt(len(mine))
        assert (mine.std(0) / toy.spread - 1).abs().max() < 5 / math.sqrt(2 * len(mine))


def test_olympic_rings_sit_where_their_labels_say():
    toy = OlympicRings(spread=0.0)
    x, label = toy.points(N, seeded(4))
    assert torch.bincount(label).tolist() == pytest.approx([N / 5] * 5, abs=5 * math.sqrt(N * 4 / 25))
    for k in range(5):
        centre = toy.radius * torch.tensor([1.2 * (k - 2), -0.6 if k % 2 else 0.4], dtype=torch.float64)
        assert ((x[label == k].double() - centre).norm(dim=1) / toy.radius - 1).abs().max() < 1e-6
    neighbours = math.hypot(1.2, 1.0)  # distance of two centres, in radii
    assert 0 < neighbours < 2  # they cross


def test_swiss_roll_winds_outward():
    """Without noise each point is at a distance, from the start of the spiral, that its angle gives."""
    toy = replace(SwissRoll(), spread=0.0)
    x = toy.points(N, seeded(5))[0].double()
    a, b = 1.5 * math.pi, 4.5 * math.pi
    unit = toy.radius / b
    centre = [unit / (b - a) * quad(lambda t, f=f: t * f(t), a, b)[0] for f in (math.cos, math.sin)]
    spiral = x + torch.tensor(centre, dtype=torch.float64)
    turn = torch.atan2(spiral[:, 1], spiral[:, 0])
    rest = (spiral.norm(dim=1) / unit - turn) / (2 * math.pi)  # t minus its angle: whole turns
    assert (rest - rest.round()).abs().max() < 1e-5
    assert a - 1e-5 < (spiral.norm(dim=1) / unit).min()
    assert (spiral.norm(dim=1) / unit).max() < b + 1e-5


def test_tree_is_symmetric_connected_and_of_the_stated_size():
    toy = Tree(spread=0.0)
    x = toy.points(N, seeded(6))[0].double()
    _, covariance = toy.moments()
    assert abs(float(covariance[0, 1])) < 1e-12  # left-right symmetry
    assert float(covariance.trace() / 2) == pytest.approx(toy.size**2, rel=1e-12)
    # the trunk alone holds 1 / (1 + 2q + ... + (2q)^(depth - 1)) of the length, all of it on the axis
    share = 1 / sum((2 * toy.ratio) ** k for k in range(toy.depth))
    on_axis = (x[:, 0].abs() < 1e-6).double().mean()
    assert abs(on_axis - share) < 5 * math.sqrt(share / N)
    trunk = x[x[:, 0].abs() < 1e-6, 1]
    assert trunk.min() == x[:, 1].min() or trunk.min() < x[:, 1].quantile(0.05)


def test_straight_tree_is_a_segment():
    """One generation is one segment: uniform, of variance L^2 / 12 along it and none across."""
    _, covariance = Tree(size=1.0, depth=1, spread=0.0).moments()
    torch.testing.assert_close(covariance, torch.tensor([[0.0, 0.0], [0.0, 2.0]], dtype=torch.float64))
    x = Tree(size=1.0, depth=1, spread=0.0).points(1000, seeded(7))[0]
    assert x[:, 0].abs().max() < 1e-6
    assert x[:, 1].abs().max() <= math.sqrt(6) + 1e-6  # L = sqrt(24), from -L/2 to L/2


def test_bad_parameters():
    with pytest.raises(ValueError, match="radius must be a finite number above 0, got 0"):
        Rings(radius=0.0)
    with pytest.raises(ValueError, match="spread must be a finite number at least 0, got -1"):
        EightGaussians(spread=-1.0)
    with pytest.raises(ValueError, match="side must be a finite number above 0, got inf"):
        Checkerboard(math.inf)
    with pytest.raises(ValueError, match="whole number of generations from 1 to 16, got 20"):
        Tree(depth=20)
