"""Samples and scores by several processes: what one draws, and what one finds."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from driftfield.report.draw import draw
from driftfield.report.score import score
from driftfield.report.shard import shared
from driftfield.train.load import load

from ..workers import together
from .common import untrained


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A network that has learned nothing, which draws as well as any."""
    return untrained(tmp_path_factory.mktemp("shard"), nfe=5)


def drawn(run, n, batch, to=None, cond=None, start=None):
    """The samples of all processes, where they come together."""
    _, denoiser, recipe = load(run)
    level = None if start is None else 2.0
    one = partial(recipe.sample, denoiser, n, seed=3, cond=cond, start=start, level=level)
    x, spent = shared(one, (n, *recipe.info.shape), batch=batch, to=to)
    assert spent == 5
    return None if x is None else x.numpy().copy()


@pytest.mark.parametrize("count", [2, 3])
def test_whole_batches_are_the_same_bits(run, count):
    """Each batch is computed as one process would; classes and clean data to start from are cut alike."""
    cond, start = torch.arange(23) % 10, torch.linspace(-1, 1, 23 * 64).reshape(23, 1, 8, 8)
    alone = drawn(run, 23, 4, None, cond, start)
    first, *others = together(drawn, run, 23, 4, None, cond, start, count=count)
    np.testing.assert_array_equal(first, alone)
    assert others == [None] * (count - 1)


def test_fewer_batches_than_processes_agree_to_rounding(run):
    """Rows of other batches go through other matrix products: float32 to a millionth of the data's size."""
    first, *_ = together(drawn, run, 5, 256)
    alone = drawn(run, 5, 256)
    assert first.shape == (5, 1, 8, 8)
    np.testing.assert_allclose(first, alone, rtol=1e-6, atol=1e-5)
    first, *_ = together(drawn, run, 1, 256)  # one of the two has nothing to do
    np.testing.assert_array_equal(first, drawn(run, 1, 256))


def test_many_samples_go_into_one_file(run, tmp_path):
    alone = drawn(run, 23, 4, tmp_path / "one.npy")
    both = together(drawn, run, 23, 4, tmp_path / "two.npy")
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "two.npy").read_bytes()
    assert all(np.array_equal(x, alone) for x in both)
    assert {path.name for path in tmp_path.iterdir()} == {"one.npy", "two.npy"}


def in_files(run, out, n=9):
    """What `driftfield sample` does."""
    return draw(run, n=n, batch=2, cond="3,7", out=out, device="cpu")


def test_files_are_those_of_one_process(run, tmp_path):
    alone = in_files(run, tmp_path / "one")
    first, second = together(in_files, run, tmp_path / "two")
    assert first == second
    assert {k: v for k, v in first.items() if k not in ("seconds", "out")} == {
        k: v for k, v in alone.items() if k not in ("seconds", "out")
    }
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {path.name for path in (tmp_path / "two").iterdir()}
    for name in names - {"record.json"}:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


def test_a_mistake_is_met_by_all_and_nothing_is_left(run, tmp_path):
    (tmp_path / "file").touch()
    for error in together(in_files, run, tmp_path / "file"):
        assert isinstance(error, FileExistsError)
    for error in together(in_files, run, tmp_path / "file" / "below"):
        assert isinstance(error, OSError)
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def judged(run):
    """What `driftfield evaluate` finds."""
    scores, spent = score(run, n=80, batch=16, features="raw", subsets=2, device="cpu")
    return scores.as_dict(), spent


def test_scores_are_those_of_one_process(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    alone = judged(run)
    assert together(judged, run) == [alone, alone]
