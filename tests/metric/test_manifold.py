"""Precision, recall, density, coverage: brute force, copies, the values on average at equal laws."""

import math

import pytest
import torch
from scipy.spatial.distance import cdist

from driftfield.metric import manifold as module
from driftfield.metric.manifold import expected_coverage, fidelity, radii, recall
from driftfield.rng import normal, seeded


def draw(*shape, seed=0):
    return normal(torch.empty(*shape, dtype=torch.float64), seeded(29, seed))


def brute(samples, reference, k):
    own = torch.from_numpy(cdist(reference.numpy(), reference.numpy())).sort(1).values[:, k]  # column 0 is itself
    inside = torch.from_numpy(cdist(reference.numpy(), samples.numpy())) <= own[:, None]
    precision = inside.any(0).double().mean()
    return float(precision), int(inside.sum()) / (k * len(samples)), float(inside.any(1).double().mean())


@pytest.mark.parametrize("tile", [1, 200, 2**22])
@pytest.mark.parametrize("k", [1, 3])
def test_balls_by_brute_force(tile, k, monkeypatch):
    monkeypatch.setattr(module, "_TILE", tile)
    samples, reference = 1.2 * draw(31, 4, seed=1) + 100, draw(43, 4, seed=2) + 100
    assert fidelity(samples, reference, k) == pytest.approx(brute(samples, reference, k), abs=1e-15)
    assert recall(samples, reference, k) == pytest.approx(brute(reference, samples, k)[0], abs=1e-15)


def test_radii_by_brute_force_and_far_from_zero():
    x = draw(60, 3)
    for k in (1, 4):
        expected = torch.from_numpy(cdist(x.numpy(), x.numpy())).sort(1).values[:, k]
        torch.testing.assert_close(radii(x, k), expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(radii(x + 1e6, 2), radii(x, 2), rtol=0, atol=1e-8)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_copies_lie_on_surfaces_and_are_inside(size):
    """Copies of the reference: each ball holds its centre and its k neighbours, the last of them on its surface, so
    density is (k + 1) / k exactly. Only a decision by the distance itself can count them."""
    x = 1e3 + draw(200, size, seed=3)
    found = fidelity(x, x, 5)
    assert found == (1.0, pytest.approx(6 / 5, abs=1e-14), 1.0)
    assert fidelity(x.flip(0), x, 5) == found


def test_samples_elsewhere():
    x = draw(50, 3)
    assert fidelity(x + 100, x) == (0, 0, 0)
    assert recall(x + 100, x) == 0
    one = x[:1].expand(50, 3) + 1e-9  # collapse onto one point: all of it is precise, hardly anything is covered
    assert fidelity(one, x).precision == 1
    assert fidelity(one, x).coverage < 0.5
    assert recall(x, torch.cat((x, x + 100)), 5) == 0.5


@pytest.mark.parametrize(("n", "m", "k"), [(40, 40, 5), (25, 60, 3), (60, 20, 1)])
@pytest.mark.parametrize("law", ["normal", "heavy"])
def test_equal_laws_have_density_one_and_the_known_coverage(n, m, k, law):
    """Over R pairs of samples the means are the known values within four of their errors, whatever the law."""
    count, found = 300, []
    for i in range(count):
        x, y = draw(n, 3, seed=2 * i), draw(m, 3, seed=2 * i + 1)
        if law == "heavy":
            x, y = x.pow(3), y.pow(3)
        found.append(fidelity(x, y, k)[1:])
    table = torch.tensor(found, dtype=torch.float64)
    error = table.std(0) / math.sqrt(count)
    assert abs(float(table[:, 0].mean()) - 1) < 4 * error[0]
    assert abs(float(table[:, 1].mean()) - expected_coverage(n, m, k)) < 4 * error[1]


def test_expected_coverage_by_hand():
    """k = 1, one sample, two reference points: a ball is empty where the other point is nearer, one half of the time;
    and for many points of equal number it is 1 - 2^-k."""
    assert expected_coverage(1, 2, 1) == 0.5
    assert expected_coverage(10**7, 10**7, 5) == pytest.approx(1 - 2**-5, abs=1e-6)


def test_many_features_do_not_multiply_the_memory():
    """Of 18 million pairs no more than 2^22 are held at a time."""
    tracker = []
    real = torch.addmm

    def watch(*arguments, **options):
        out = real(*arguments, **options)
        tracker.append(out.numel())
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "addmm", watch)
        fidelity(draw(12_000, 4, seed=1), draw(1500, 4, seed=2))
    assert max(tracker) <= 2**22


def test_bad_input_is_named():
    x = draw(6, 3)
    with pytest.raises(ValueError, match="5 neighbours need more than 5 rows"):
        fidelity(x, x[:5])
    with pytest.raises(ValueError, match="0 neighbours"):
        fidelity(x, x, 0)
    with pytest.raises(ValueError, match="same features, got 3 and 2"):
        fidelity(x, x[:, :2], 2)
    with pytest.raises(ValueError, match="finite"):
        fidelity(x * torch.nan, x, 2)
