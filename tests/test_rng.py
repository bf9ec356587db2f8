"""Laws of randomness: rows depend on (seed, row) alone, streams do not collide, draws have their laws."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from driftfield.rng import (
    ambient,
    chi_square,
    gamma,
    integers,
    inverse_gaussian,
    normal,
    permutation,
    rows,
    seeded,
    uniform,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("draw", [normal, uniform])
def test_rows_do_not_depend_on_the_batch(draw, dtype):
    whole = draw(torch.empty(7, 3, 5, dtype=dtype), rows(4, 0, 7))
    split = torch.cat([draw(torch.empty(j - i, 3, 5, dtype=dtype), rows(4, i, j)) for i, j in ((0, 2), (2, 3), (3, 7))])
    assert torch.equal(whole, split)
    assert whole.dtype == dtype


def test_gamma_and_integers_by_rows_do_not_depend_on_the_batch():
    whole = chi_square(0.7, torch.empty(6), rows(1, 0, 6)), integers(torch.empty(6, 2), 1000, rows(1, 0, 6))
    parts = [
        (chi_square(0.7, torch.empty(3), rows(1, i, i + 3)), integers(torch.empty(3, 2), 1000, rows(1, i, i + 3)))
        for i in (0, 3)
    ]
    assert torch.equal(whole[0], torch.cat([p[0] for p in parts]))
    assert torch.equal(whole[1], torch.cat([p[1] for p in parts]))


def test_rows_of_one_seed_never_share_a_stream():
    """The CPU generator keeps 32 bits of a seed: hashed seeds would collide some 30 times among 500,000 rows."""
    seeds = {seeded(3, i).initial_seed() & 0xFFFFFFFF for i in range(0, 500_000, 7)}
    assert len(seeds) == len(range(0, 500_000, 7))


def test_a_large_key_is_not_two_small_ones():
    """Pieces of 32 bits carry their place; large last keys count whole."""
    keys = [(2**32, 5), (0, 1, 5), (1, 0, 5), (2**32 + 1, 5), (0, 0, 1, 5), (2**64, 5), (0, 5), (0, 2**32 + 5)]
    keys += [(0, 1, 2**32 + 5), (2**32, 2**32 + 5)]
    assert len({seeded(*k).initial_seed() for k in keys}) == len(keys)


def test_no_rows_draw_nothing():
    for rng in ([], seeded(0)):
        assert chi_square(1.0, torch.empty(0), rng).shape == normal(torch.empty(0), rng).shape == (0,)


def test_different_keys_give_different_streams():
    draws = {
        float(uniform(torch.empty(1, dtype=torch.float64), seeded(*k)))
        for k in [(0,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 1, 0), (2**40, 0)]
    }
    assert len(draws) == 7
    assert float(uniform(torch.empty(1), seeded(5, 6))) == float(uniform(torch.empty(1), seeded(5, 6)))


@pytest.mark.parametrize("shape", [0.25, 0.5, 2.0, 64.0])
def test_gamma_has_its_law(shape):
    """Kolmogorov-Smirnov on 20,000 draws at level 1e-3 (four tests: 4e-3 together, fixed seed)."""
    draws = gamma(shape, torch.empty(20_000), seeded(8))
    assert draws.dtype == torch.float64
    assert stats.kstest(draws.numpy(), stats.gamma(shape).cdf).pvalue > 1e-3
    assert (
        stats.kstest(chi_square(2 * shape, torch.empty(20_000), seeded(9)).numpy(), stats.chi2(2 * shape).cdf).pvalue
        > 1e-3
    )


def test_no_distance_takes_no_time():
    distance = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    for drift in (0.0, 2.0):
        time = inverse_gaussian(distance, drift, seeded(5))
        assert time[[0, 2]].tolist() == [0, 0]
        assert time[1] > 0


def test_row_streams_are_normal_together():
    """The first draw of 20,000 rows: streams started from neighbouring rows must not be correlated."""
    first = normal(torch.empty(20_000, dtype=torch.float64), rows(0, 0, 20_000))
    assert stats.kstest(first.numpy(), "norm").pvalue > 1e-3
    neighbours = (first[1:] * first[:-1]).mean().abs().item()
    assert neighbours < 4 / 20_000**0.5  # the mean of products of independent normals has deviation 1 / sqrt(n)


def test_ambient_draws_depend_on_the_keys_and_leave_no_trace():
    torch.empty(1).normal_()
    before = torch.get_rng_state()
    with ambient(3, 4):
        a = torch.nn.functional.dropout(torch.ones(1000), 0.5)
    assert torch.equal(torch.get_rng_state(), before)
    with ambient(3, 4):
        assert torch.equal(torch.nn.functional.dropout(torch.ones(1000), 0.5), a)
    with ambient(3, 5):
        assert not torch.equal(torch.nn.functional.dropout(torch.ones(1000), 0.5), a)


def test_permutation_is_one():
    assert torch.equal(permutation(100, seeded(0)).sort().values, torch.arange(100))


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="3 generators for a batch of 4"):
        normal(torch.empty(4, 2), rows(0, 0, 3))
    with pytest.raises(ValueError, match="finite shape > 0"):
        gamma(0.0, torch.empty(2), seeded(0))
    with pytest.raises(ValueError, match=">= 0"):
        seeded(-1)
    with pytest.raises(ValueError, match="at least 1"):
        integers(torch.empty(2), 0, seeded(0))
