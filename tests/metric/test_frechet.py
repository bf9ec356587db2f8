"""The Frechet distance: closed forms, low rank, invariances, streams."""

import math

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch

from driftfield.metric.frechet import Moments, frechet, frechet_gaussians
from driftfield.rng import normal, seeded


def draw(*shape, seed=0):
    return normal(torch.empty(*shape, dtype=torch.float64), seeded(7, seed))


def spd(size, seed):
    """A covariance with eigenvalues about 0.1 to 10, in no special basis."""
    basis = torch.linalg.qr(draw(size, size, seed=seed)).Q
    return (basis * torch.logspace(-1, 1, size, dtype=torch.float64)) @ basis.T


def with_moments(mean, cov, n, seed):
    """A sample whose mean and unbiased covariance are exactly these."""
    x = draw(n, len(mean), seed=seed)
    x = torch.linalg.qr(x - x.mean(0)).Q * math.sqrt(n - 1)
    return mean + x @ torch.linalg.cholesky(cov).T


@pytest.mark.parametrize("size", [1, 2, 5, 30])
def test_two_gaussians_against_the_matrix_square_root(size):
    a, b, mean = spd(size, 1), spd(size, 2), draw(size, seed=3)
    product = scipy.linalg.sqrtm(a.numpy() @ b.numpy())
    expected = float(mean.square().sum() + a.trace() + b.trace()) - 2 * np.trace(product).real
    zero = torch.zeros(size, dtype=torch.float64)
    assert frechet_gaussians(zero, a, mean, b) == pytest.approx(expected, abs=1e-8)
    samples = with_moments(zero, a, 200, 4), with_moments(mean, b, 77, 5)
    assert frechet(*samples) == pytest.approx(expected, abs=1e-8)
    assert frechet(*reversed(samples)) == pytest.approx(expected, abs=1e-8)


def test_commuting_covariances():
    """In one eigenbasis the distance is that of the standard deviations."""
    basis = torch.linalg.qr(draw(6, 6)).Q
    a, b = (torch.tensor(v, dtype=torch.float64) for v in ([1, 4, 9, 0.25, 2, 3.0], [2, 1, 1, 4, 0.5, 3.0]))
    mean = torch.arange(6, dtype=torch.float64)
    got = frechet_gaussians(0 * mean, (basis * a) @ basis.T, mean, (basis * b) @ basis.T)
    assert got == pytest.approx(float((a.sqrt() - b.sqrt()).square().sum()) + 55, abs=1e-12)


def test_two_by_two_closed_form():
    """`Tr (A B)^(1/2) = (Tr AB + 2 (det AB)^(1/2))^(1/2)` for 2 x 2 matrices that do not commute."""
    a = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, -0.5], [-0.5, 0.5]], dtype=torch.float64)
    root = math.sqrt(float((a @ b).trace()) + 2 * math.sqrt(5 * 0.25))
    zero = torch.zeros(2, dtype=torch.float64)
    assert frechet_gaussians(zero, a, zero, b) == pytest.approx(5 + 1.5 - 2 * root, abs=1e-13)


def test_ill_conditioned_covariances_against_fifty_digits():
    size, scale = 4, torch.tensor([1, 1e-3, 1e-6, 1e-9], dtype=torch.float64)
    left, right = (torch.linalg.qr(draw(size, size, seed=s)).Q for s in (1, 2))
    a, b = ((q * scale) @ q.T for q in (left, right))
    a, b = (a + a.T) / 2, (b + b.T) / 2
    with mpmath.workdps(50):
        exact = [mpmath.matrix(m.tolist()) for m in (a, b)]
        value, vector = mpmath.eigsy(exact[0])
        root = vector * mpmath.diag([mpmath.sqrt(v) for v in value]) * vector.T
        inner = root * exact[1] * root
        middle = mpmath.eigsy((inner + inner.T) / 2, eigvals_only=True)
        expected = sum(m[i, i] for m in exact for i in range(size)) - 2 * sum(mpmath.sqrt(v) for v in middle)
    zero = torch.zeros(size, dtype=torch.float64)
    assert frechet_gaussians(zero, a, zero, b) == pytest.approx(float(expected), abs=1e-10)


def test_two_rows_in_many_dimensions():
    """Two rows make a covariance `u u^T`, and `Tr (u u^T v v^T)^(1/2) = |u.v|`: as low a rank as there is."""
    a, b = draw(2, 500, seed=1), draw(2, 500, seed=2)
    u, v = (a[0] - a[1]) / math.sqrt(2), (b[0] - b[1]) / math.sqrt(2)
    mean = (a.mean(0) - b.mean(0)).square().sum()
    expected = float(mean + u.square().sum() + v.square().sum() - 2 * (u @ v).abs())
    assert frechet(a, b) == pytest.approx(expected, rel=1e-13)
    got = frechet_gaussians(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))
    assert got == pytest.approx(expected, rel=1e-10)


def test_low_rank_against_full_rank():
    """Fewer rows than features on one side: `A = X^T X`, so `Tr (A B)^(1/2) = Tr (X B X^T)^(1/2)`, a small matrix."""
    b, x = spd(40, 2), draw(6, 40, seed=1)
    deviation = (x - x.mean(0)) / math.sqrt(5)
    small = (deviation @ b @ deviation.T).numpy()
    # `X B X^T` has one exact null direction, the mean; take it out so that the reference has no root of a rounding
    basis = scipy.linalg.null_space(np.ones((1, 6)))
    nuclear = np.sqrt(scipy.linalg.eigvalsh(basis.T @ small @ basis)).sum()
    y = with_moments(x.mean(0), b, 100, 3)
    expected = float(deviation.square().sum() + b.trace()) - 2 * nuclear
    assert frechet(x, y) == pytest.approx(expected, abs=1e-11)
    assert frechet_gaussians(x.mean(0), torch.cov(x.T), x.mean(0), b) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("n", "size"), [(300, 20), (10, 64), (2, 3)])
def test_equal_sets_are_at_zero(n, size):
    x = 100 * draw(n, size) + 1000
    assert frechet(x, x) == pytest.approx(0, abs=1e-18)
    assert frechet(x, x.flip(0)) == pytest.approx(0, abs=1e-18)  # rounding enters squared: (1e-13 * 1e3)^2
    cov = torch.cov(x.T)
    assert frechet_gaussians(x.mean(0), cov, x.mean(0), cov) == pytest.approx(0, abs=1e-18)


def test_a_translation_costs_its_square():
    x, shift = draw(50, 8), draw(8, seed=9)
    assert frechet(x, x + shift) == pytest.approx(float(shift.square().sum()), rel=1e-13)


def test_a_scale_costs_the_difference_of_roots():
    x = draw(50, 8)
    x = x - x.mean(0)
    assert frechet(x, 3 * x) == pytest.approx(4 * float(torch.cov(x.T).trace()), rel=1e-13)


@pytest.mark.parametrize("n", [200, 9])
def test_rotations_change_nothing(n):
    a, b = draw(n, 12, seed=1), 2 * draw(n + 5, 12, seed=2) + 1
    turn = torch.linalg.qr(draw(12, 12, seed=3)).Q
    assert frechet(a @ turn, b @ turn) == pytest.approx(frechet(a, b), abs=1e-9)


@pytest.mark.parametrize("sizes", [(30, 1, 500, 3), (1, 1), (4, 5)])
def test_a_stream_is_the_whole(sizes):
    x = draw(sum(sizes), 12) @ spd(12, 3)
    whole, parts = Moments.of(x), Moments.stream(x.split(list(sizes)))
    assert parts.count == whole.count
    assert parts.root.shape[0] <= 12
    torch.testing.assert_close(parts.mean, x.mean(0), rtol=0, atol=1e-13)
    torch.testing.assert_close(parts.covariance, torch.cov(x.T), rtol=0, atol=1e-11)
    assert frechet(parts, whole) == pytest.approx(0, abs=1e-20)


def test_a_stream_far_from_zero_keeps_its_covariance():
    """At mean 1e6 a sum of squares would keep four digits of the variance; roots keep those the data have."""
    x = draw(1000, 5) + 1e6
    parts = Moments.stream(x.split(64))
    torch.testing.assert_close(parts.covariance, torch.cov((x - 1e6).T), rtol=0, atol=1e-9)


def test_a_single_precision_sample_is_scored_in_double():
    x = draw(100, 6).float()
    assert frechet(x, x.double()) == pytest.approx(0, abs=1e-25)
    assert Moments.of(x).mean.dtype == torch.float64


def test_bad_input_is_named():
    x, cov, mean = draw(5, 3), torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="at least 2 rows, got 1"):
        frechet(x[:1], x)
    with pytest.raises(ValueError, match="same features, got 3 and 2"):
        frechet(x, x[:, :2])
    with pytest.raises(ValueError, match=r"shape \(n, F\).*got \(5, 1, 3\)"):
        frechet(x[:, None], x)
    with pytest.raises(ValueError, match="finite, but 1 of 15"):
        frechet(x, torch.where(x == x[0, 0], torch.nan, x))
    with pytest.raises(ValueError, match="no batches"):
        Moments.stream([])
    with pytest.raises(ValueError, match="symmetric"):
        frechet_gaussians(mean, cov + torch.ones(3, 3).triu(1), mean, cov)
    with pytest.raises(ValueError, match=r"least is -0\.01"):
        frechet_gaussians(mean, torch.diag(torch.tensor([1.0, 1, -0.01])), mean, cov)
    with pytest.raises(ValueError, match=r"shape \(3, 3\), got \(2, 2\)"):
        frechet_gaussians(mean, cov[:2, :2], mean, cov)
