"""A stream dealt into groups: equal shares, the whole's moments, halves of it."""

import pytest
import torch

from driftfield.metric.frechet import Moments
from driftfield.metric.sides import GROUPS, Side, Tally
from driftfield.rng import normal, seeded


def draw(n, seed=0):
    return normal(torch.empty(n, 3, dtype=torch.float64), seeded(43, seed))


@pytest.mark.parametrize("sizes", [(97,), (10, 1, 50, 36), (1,) * 97])
def test_rows_are_dealt_in_turn_whatever_the_batches(sizes):
    x, tally = draw(97), Tally()
    for part in x.split(list(sizes)):
        tally.add(part)
    side = tally.side()
    assert tally.count == 97
    for i, part in enumerate(side.parts):
        own = x[i::GROUPS]
        assert part.count == len(own)
        torch.testing.assert_close(part.mean, own.mean(0), rtol=0, atol=1e-14)
        torch.testing.assert_close(part.covariance, torch.cov(own.T), rtol=0, atol=1e-13)
    torch.testing.assert_close(side.moments.covariance, torch.cov(x.T), rtol=0, atol=1e-13)


def test_halves_are_of_rows_or_of_groups():
    x = draw(80)
    rows = Side(x).half(seeded(1))
    assert len(rows.rows) == 40
    assert len({tuple(r) for r in rows.rows.tolist()} & {tuple(r) for r in x.tolist()}) == 40
    tally = Tally()
    tally.add(x)
    dealt = tally.side()
    half = dealt.half(seeded(2))
    assert len(half.parts) == GROUPS // 2
    assert half.moments.count == 40
    alone = Side(None, [Moments.of(x)])
    assert alone.half(seeded(3)) is alone
    assert alone.width == dealt.width == rows.width == 3


def test_a_stream_too_short_to_deal():
    tally = Tally()
    tally.add(draw(15))
    with pytest.raises(ValueError, match="at least 16 of them, got 15"):
        tally.side()
