"""The kernel distance: the double loop, unbiasedness by enumeration, the error against replicates."""

import itertools
import math

import pytest
import torch

from driftfield.metric import mmd as module
from driftfield.metric.kid import CUBIC, Blocks, kernel_sums, kid, kid_by_blocks
from driftfield.metric.mmd import parts
from driftfield.rng import normal, permutation, seeded


def draw(*shape, seed=0):
    return normal(torch.empty(*shape, dtype=torch.float64), seeded(11, seed))


def kernel(x, y):
    return (float(x @ y) / len(x) + 1) ** 3


def double_loop(a, b):
    m, n = len(a), len(b)
    aa = sum(kernel(a[i], a[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    bb = sum(kernel(b[i], b[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return aa + bb - 2 * sum(kernel(x, y) for x in a for y in b) / (m * n)


@pytest.mark.parametrize("tile", [1, 40, 2**18])
def test_the_value_is_the_double_loop(tile, monkeypatch):
    monkeypatch.setattr(module, "_TILE", tile)
    a, b = draw(13, 5, seed=1), draw(9, 5, seed=2) + 0.5
    assert kid(a, b)[0] == pytest.approx(double_loop(a, b), abs=1e-12)


def test_known_sums_of_the_second_sample_change_nothing():
    a, b = draw(13, 5, seed=1), draw(9, 5, seed=2) + 0.5
    assert kid(a, b, kernel_sums(b)) == kid(a, b)
    assert kid(a, b, kernel_sums(draw(9, 5, seed=3))) != kid(a, b)


def test_tiles_change_neither_value_nor_error(monkeypatch):
    a, b = draw(30, 5, seed=1), draw(23, 5, seed=2) + 0.5
    whole = kid(a, b)
    monkeypatch.setattr(module, "_TILE", 50)
    assert kid(a, b) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("sizes", [(4, 4), (5, 4)])
@pytest.mark.parametrize("same", [True, False])
def test_value_and_variance_are_unbiased_by_enumeration(sizes, same):
    """Over every sample that two small populations can give: the mean of the value is the population's discrepancy,
    and the mean of the estimated variance is the variance of the value. Exact, so to rounding."""
    points = torch.tensor([[0.3, -1.0], [1.5, 0.4]], dtype=torch.float64)
    others = points if same else torch.tensor([[-0.6, 0.2], [1.0, 1.3]], dtype=torch.float64)
    p, q = (0.3, 0.7), (0.3, 0.7) if same else (0.55, 0.45)
    mean = square = variance = 0.0
    for pick in itertools.product((0, 1), repeat=sum(sizes)):
        left, right = list(pick[: sizes[0]]), list(pick[sizes[0] :])
        chance = math.prod(p[i] for i in left) * math.prod(q[i] for i in right)
        value, first, second = parts(points[left], others[right], CUBIC)
        mean += chance * value
        square += chance * value**2
        variance += chance * (sum(first) + second)
    truth = sum(
        sign * u * v * kernel(x, y)
        for sign, left, right in (
            (1, (p, points), (p, points)),
            (1, (q, others), (q, others)),
            (-2, (p, points), (q, others)),
        )
        for u, x in zip(*left, strict=True)
        for v, y in zip(*right, strict=True)
    )
    assert mean == pytest.approx(truth, abs=1e-12)
    assert variance == pytest.approx(square - mean**2, rel=1e-11)


def replicates(shift, count, seed):
    pairs = ((draw(60, 8, seed=seed + 2 * i), draw(45, 8, seed=seed + 2 * i + 1) + shift) for i in range(count))
    every = [(*kid(a, b), *first, second) for a, b in pairs for _, first, second in (parts(a, b, CUBIC),)]
    table = torch.tensor(every, dtype=torch.float64)
    return table[:, 0], table[:, 1], table[:, 2:]


def test_samples_of_one_law_are_at_zero_within_the_error():
    """Unbiased: the mean of R values is 0 within four of its errors. Each: by Chebyshev at most 1/16 of values are
    beyond four standard errors, whatever the law of the value; four deviations of a binomial count are allowed."""
    count = 400
    value, error, _ = replicates(0.0, count, seed=0)
    assert abs(value.mean()) < 4 * value.std() / math.sqrt(count)
    far = int((value.abs() > 4 * error).sum())
    assert far <= count / 16 + 4 * math.sqrt(count * 15) / 16
    assert 0.3 < float((value < 0).double().mean()) < 0.8  # an unbiased value of 0 takes both signs


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_error_is_the_spread_of_replicates(shift):
    """The variance of R values has a relative error of `((kurtosis - 1) / R)^(1/2)`, the mean of R estimates of it
    their own: four of both together. Where a part that estimates 0 is counted as 0 when below, its mean rises by half
    of the mean of its absolute value: at most `sd / 2` (Jensen) for each of two, at equal laws; 0 far from them.
    """
    count = 600
    value, error, parts = replicates(shift, count, seed=10_000)
    kurtosis = float(((value - value.mean()) / value.std()).pow(4).mean())
    estimate, variance = parts.sum(1), float(value.var())
    bound = 4 * math.sqrt((kurtosis - 1) / count + float(estimate.std() / estimate.mean()) ** 2 / count)
    assert abs(float(estimate.mean()) / variance - 1) < bound
    rise = float((error.square() - estimate).mean())
    assert 0 <= rise <= float(parts[:, :2].std(0).sum()) / 2 if shift == 0 else rise < 1e-3 * variance


def test_shifted_normals_against_the_closed_form():
    """The mean of the kernel over two normal laws follows from three moments of `x.y`."""

    def moment(p, q, size=8):
        inner, p2, q2 = float(p @ q), float(p @ p), float(q @ q)
        third = inner**3 + 3 * inner * p2 + 3 * inner * (q2 + size + 2)
        return 1 + 3 * inner / size + 3 * (size + p2 + q2 + inner**2) / size**2 + third / size**3

    zero, shift = torch.zeros(8), torch.full((8,), 0.5)
    expected = moment(zero, zero) + moment(shift, shift) - 2 * moment(zero, shift)
    value, _, _ = replicates(0.5, 600, seed=20_000)
    assert abs(float(value.mean()) - expected) < 4 * float(value.std()) / math.sqrt(600)
    value, error = kid(draw(2000, 8, seed=1), draw(2000, 8, seed=2) + 0.5)
    assert abs(value - expected) < 4 * error < expected


def test_one_block_a_time_is_kid_of_blocks():
    """In the order given, whatever the batches; each block against its own rows of the shuffled reference; what does
    not fill a block is left out."""
    a, b = draw(47, 5, seed=1), draw(63, 5, seed=2) + 0.5
    order = permutation(63, seeded(3))
    pairs = [(a[10 * i : 10 * i + 10], b[order[10 * i : 10 * i + 10]]) for i in range(4)]
    values = torch.tensor([kid(x, y)[0] for x, y in pairs], dtype=torch.float64)
    for sizes in ([47], [3, 11, 0, 20, 13], [1] * 47):
        blocks = Blocks(b, 10, seeded(3))
        for part in a.split(sizes):
            blocks.add(part)
        value, error = blocks.result()
        assert value == pytest.approx(float(values.mean()), rel=1e-12)
        assert error == pytest.approx(float(values.std()) / 2, rel=1e-12)


def test_blocks_that_share_a_reference_are_averaged_first():
    """Five blocks of samples and two of the reference: the independent values are means of 3 and of 2."""
    a, b = draw(50, 4, seed=1), draw(20, 4, seed=2)
    order = permutation(20, seeded(0))
    at = [b[order[:10]], b[order[10:]]]
    own = [kid(a[10 * i : 10 * i + 10], at[i % 2])[0] for i in range(5)]
    expected = torch.tensor([sum(own[0::2]) / 3, sum(own[1::2]) / 2], dtype=torch.float64)
    blocks = Blocks(b, 10, seeded(0))
    blocks.add(a)
    assert blocks.result() == pytest.approx((float(expected.mean()), float(expected.std()) / math.sqrt(2)), rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_error_of_blocks_is_the_spread_of_replicates(shift):
    """Its square is unbiased exactly, because blocks are independent; bound as above, of both variances together. The
    value is unbiased, so its mean is that of all pairs within four of its errors."""
    count = 300
    pairs = ((draw(80, 4, seed=30_000 + 2 * i), draw(80, 4, seed=30_001 + 2 * i) + shift) for i in range(count))
    every = [(*kid_by_blocks(a, b, 16, seeded(i)), kid(a, b)[0]) for i, (a, b) in enumerate(pairs)]
    value, error, whole = torch.tensor(every, dtype=torch.float64).T
    square = error.square()
    kurtosis = float(((value - value.mean()) / value.std()).pow(4).mean())
    bound = 4 * math.sqrt((kurtosis - 1) / count + float(square.std() / square.mean()) ** 2 / count)
    assert abs(float(square.mean() / value.var()) - 1) < bound
    assert abs(float((value - whole).mean())) < 4 * float((value - whole).std()) / math.sqrt(count)


def test_constant_samples():
    x = torch.ones(5, 3, dtype=torch.float64)
    assert kid(x, x) == pytest.approx((0, 0), abs=1e-14)
    assert kid(x, 0 * x) == pytest.approx((8 + 1 - 2, 0), abs=1e-14)


def test_bad_input_is_named():
    x = draw(6, 3)
    with pytest.raises(ValueError, match=r"n at least 4, got \(3, 3\)"):
        kid(x[:3], x)
    with pytest.raises(ValueError, match="same features, got 3 and 2"):
        kid(x, x[:, :2])
    with pytest.raises(ValueError, match="finite, but 1 of 18"):
        kid(x, torch.where(x == x[0, 0], torch.inf, x))
    with pytest.raises(ValueError, match="two of them in the reference, which has 6"):
        Blocks(x, 4, seeded(0))
    with pytest.raises(ValueError, match="needs at least 6 samples"):
        kid_by_blocks(x[:5], x, 3, seeded(0))
