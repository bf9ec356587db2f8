"""Several workers on one job: what each takes, what all learn, and what they say when one is gone."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from driftfield import ranks

from .workers import together


@given(st.integers(1, 400), st.integers(1, 50), st.integers(1, 9))
def test_rows_are_shared_out_whole(n, batch, count):
    """Each row once, in order; in whole batches where every worker has one; shares differ by one batch, or one row."""
    original, ranks.count = ranks.count, lambda: count
    try:
        shares = [ranks._rows(n, batch, place) for place in range(count)]
    finally:
        ranks.count = original
    assert [i for share in shares for i in share] == list(range(n))
    unit = batch if -(-n // batch) >= count else 1
    assert all(share.start % unit == 0 or not share for share in shares)
    sizes = [-(-len(share) // unit) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_alone_it_is_as_if_it_were_not_there():
    with ranks.joined():
        assert (ranks.rank(), ranks.count(), ranks.local_count()) == (0, 1, 1)
        assert ranks.first(divmod, 7, 2) == (3, 1)
        assert [ranks.agree(flag) for flag in (False, True)] == [False, True]
        assert ranks.gathered("a") == ["a"]
        x = torch.arange(4.0)
        assert ranks.mean(x) is x is ranks.whole(x) is ranks.collected(x, 4, 2)
        assert ranks.rows(10, 3) == range(10)
        for batch in (0, -1):
            with pytest.raises(ValueError, match=f"a batch holds at least 1 row, got batch={batch}"):
                ranks.rows(10, batch)
        with pytest.raises(ValueError, match="no"):
            ranks.first(_refuse, "no")


def _refuse(text):
    raise ValueError(text)


def talk():
    """What each of three workers learns."""
    rank = ranks.rank()
    mine = torch.tensor([float(rank), 1.0])
    part = ranks.rows(7, 2)
    rows = ranks.collected(torch.arange(7.0)[part.start : part.stop, None], 7, 2)
    tiny = ranks.rows(2, 5)
    few = ranks.collected(torch.arange(2.0)[tiny.start : tiny.stop, None], 2, 5)
    try:
        ranks.first(_refuse, "the disk is full")
    except ValueError as error:
        failure = str(error), ranks.said(error)
    return {
        "first": ranks.first(lambda: ("from", rank)),
        "agree": (ranks.agree(rank == 2), ranks.agree(False)),
        "gathered": ranks.gathered(rank * 10),
        "mean": ranks.mean(mine).tolist(),
        "kept": mine.tolist(),
        "rows": None if rows is None else rows[:, 0].tolist(),
        "few": None if few is None else few[:, 0].tolist(),
        "failure": failure,
        "local": ranks.local_count(),
    }


def test_all_learn_what_one_does():
    found = together(talk, count=3)
    for rank, seen in enumerate(found):
        assert seen["first"] == ("from", 0)
        assert seen["agree"] == (True, False)
        assert seen["gathered"] == [0, 10, 20]
        assert seen["mean"] == [1.0, 1.0]
        assert seen["kept"] == [rank, 1.0]
        assert seen["rows"] == (list(range(7)) if rank == 0 else None)
        assert seen["few"] == ([0, 1] if rank == 0 else None)
        assert seen["failure"] == ("the disk is full", rank > 0)
        assert seen["local"] == 3


def end_one(which):
    """One worker is killed while the other waits for it."""
    if ranks.rank() == which:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.gathered(0)


@pytest.mark.parametrize("which", [0, 1])
def test_a_killed_worker_is_named_and_nobody_hangs(which):
    begun = time.monotonic()
    found = together(end_one, which)
    assert found[which] is None
    assert type(found[1 - which]) is ConnectionError
    assert f"rank {which} (process " in str(found[1 - which])
    assert "start the same command again" in str(found[1 - which])
    assert time.monotonic() - begun < 60  # gloo meets the closed connection at once; it would wait half an hour


def fail():
    raise RuntimeError("an error of another kind")


def test_other_errors_are_left_as_they_are():
    assert [(type(e), str(e)) for e in together(fail)] == [(RuntimeError, "an error of another kind")] * 2
