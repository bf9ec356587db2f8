"""Data larger than memory: the same set, the same batches, one step ahead; and memory that stays small."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from driftfield.data import array, images, stream, survey
from driftfield.data.array import Array
from driftfield.data.images import Images
from driftfield.data.memory import InMemory
from driftfield.data.stored import Stored, split
from driftfield.data.stream import Streamed, ahead
from driftfield.objective.matching import Matching
from driftfield.plain import Build
from driftfield.process.poisson import PFGMPP
from driftfield.recipe import Recipe, Training
from driftfield.rng import rows, seeded
from driftfield.train.held import judged
from driftfield.train.loop import train

RNG = np.random.default_rng(0)
ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def same(a, b):
    """Whether two pairs of samples and labels are equal, bit for bit."""
    labels = a[1] is b[1] is None or torch.equal(a[1], b[1])
    return torch.equal(a[0], b[0]) and a[0].dtype == b[0].dtype and labels


def both(data, monkeypatch):
    """The same data opened in memory, and left where they lie."""
    kept = data.load()
    for module in (array, images):
        monkeypatch.setattr(module, "fits", lambda size: False)
    left = data.load()
    assert (type(kept), type(left), kept.slow, left.slow) == (Stored, Streamed, False, True)
    return kept, left


def assert_same_set(kept, left):
    """Equal in all that training and scoring ask of them."""
    assert left.info == kept.info
    for seed in range(3):
        assert same(left.draw(50, seeded(seed)), kept.draw(50, seeded(seed)))
    assert same(left.draw(7, rows(5, 0, 7)), kept.draw(7, rows(5, 0, 7)))
    assert same(left.some_held(4, seeded(1)), kept.some_held(4, seeded(1)))
    for a, b in zip(judged(left, 3, 8), judged(kept, 3, 8), strict=True):
        assert same(a, b)
    assert same(left.train(), kept.train())
    assert same(left.held(), kept.held())


@pytest.mark.parametrize(
    "values",
    [
        RNG.normal(5, 2, (60, 3)),
        RNG.normal(5, 2, (60, 2)).astype(np.float32),
        RNG.uniform(-1, 1, 60).astype(np.float16),
        RNG.normal(0, 1, (60, 2, 5, 4)),
        np.asfortranarray(RNG.normal(1e9, 1, (60, 4))),
        RNG.integers(0, 9, (60, 4)).astype(">i4"),
        RNG.integers(0, 256, (60, 6, 8), dtype=np.uint8),
        RNG.integers(0, 256, (60, 6, 8, 3), dtype=np.uint8),
        RNG.integers(0, 256, (60, 3, 6, 8), dtype=np.uint8),
        RNG.integers(0, 256, (60, 5), dtype=np.uint8),
    ],
    ids=lambda v: f"{v.dtype.str}-{'x'.join(map(str, v.shape))}",
)
@pytest.mark.parametrize("at_once", [2**20, 50])
def test_a_mapped_file_is_the_same_set(values, at_once, tmp_path, monkeypatch):
    """Bit for bit, with sums taken in one piece or in many."""
    monkeypatch.setattr(survey, "_AT_ONCE", at_once)
    np.save(tmp_path / "x.npy", values)
    np.save(tmp_path / "y.npy", np.arange(60) % 3)
    assert_same_set(*both(Array(tmp_path / "x.npy", labels=str(tmp_path / "y.npy")), monkeypatch))
    monkeypatch.undo()
    assert Array(tmp_path / "x.npy").load().slow is False


def test_sums_in_many_pieces_are_the_sums():
    """Mean and deviation from the pieces of a large array: numpy's over the whole, to rounding, far from 0."""
    x = RNG.normal(1e6, 3, (50_000, 100))
    train, _ = split(len(x))
    found = survey.surveyed(x, train, False, "x")
    assert len(found.parts) == 5
    shift, scale = found.shift_and_scale("x")
    part = x[train.numpy()]
    assert shift == pytest.approx(part.mean(), rel=1e-14)
    assert scale == pytest.approx(part.std(), rel=1e-9)  # 1e6 / 3 of it lost to the offset, of 1e-16


def test_what_a_mapped_file_must_not_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "_AT_ONCE", 50)
    monkeypatch.setattr(array, "fits", lambda size: False)
    bad = RNG.normal(size=(60, 5))
    bad[31, 2] = bad[59, 4] = np.nan
    for name, values, message in (
        ("nan", bad, r"nan\.npy holds 2 values that are NaN or infinite, the first at index \(31, 2\)"),
        ("flat", np.ones((60, 5)), r"flat\.npy holds only the value 1\.0"),
        ("wide", np.full((60, 5), 1e200) * [[1, -1, 1, -1, 1]], "rescale it"),
        ("empty", np.zeros((0, 5)), r"shape \(0, 5\)"),
        ("one", np.zeros((1, 5)), "at least 2 items"),
    ):
        np.save(tmp_path / f"{name}.npy", values)
        with pytest.raises(ValueError, match=message):
            Array(tmp_path / f"{name}.npy").load()
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    with pytest.raises(ValueError, match="never unpickled"):
        Array(tmp_path / "objects.npy").load()


def test_an_array_that_the_user_mapped_stays_mapped(tmp_path):
    x = RNG.normal(size=(60, 5))
    np.save(tmp_path / "x.npy", x)
    mapped = InMemory.of(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert mapped == InMemory.of(x)
    assert mapped.load().slow
    assert_same_set(InMemory.of(x).load(), mapped.load())


def test_an_npz_beyond_memory_says_what_to_save_instead(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", x=RNG.normal(size=(60, 5)))
    monkeypatch.setattr(array, "memory", lambda: 2000)
    with pytest.raises(ValueError, match=r"x\.npz holds more than this machine's memory.* as a \.npy file"):
        Array(tmp_path / "x.npz").load()


def test_large_splits_come_as_a_fixed_choice(tmp_path, monkeypatch):
    """At most `MOST` numbers, the same each time, in order, with their labels; training still draws from all."""
    monkeypatch.setattr(stream, "MOST", 100)
    i = np.arange(400)
    np.save(tmp_path / "x.npy", np.stack((i, -i, i, -i), 1).astype(np.float32))
    np.save(tmp_path / "y.npy", i)
    _, left = both(Array(tmp_path / "x.npy", labels=str(tmp_path / "y.npy")), monkeypatch)
    train, held = (set(part.tolist()) for part in split(400))
    for part, whole in ((left.train, train), (left.held, held)):
        x, label = part()
        assert len(x) == len(label) == 25
        assert set(label.tolist()) < whole
        assert label.tolist() == sorted(label.tolist())
        assert same(part(), (x, label))
        np.testing.assert_allclose(left.info.to_user(x)[:, 0], label)
    assert len(set(left.draw(5000, seeded(0))[1].tolist())) == left.info.count == 360


def folder(path, sizes=None, count=40):
    """Random pictures, some of them grey, in two classes."""
    for i in range(count):
        shape = (6, 8) if i % 3 == 0 else (6, 8, 3)
        at = path / "ab"[i % 2] / f"{i:02}.png"
        at.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(at)


@pytest.mark.parametrize("options", [{}, {"channels": 1}, {"size": 4}, {"held": 0.5}])
def test_a_folder_left_in_its_files_is_the_same_set(options, tmp_path, monkeypatch):
    folder(tmp_path)
    threads = threading.active_count()
    assert_same_set(*both(Images(tmp_path, **options), monkeypatch))
    assert threading.active_count() <= threads


def test_a_folder_with_broken_pictures_is_the_same_set_too(tmp_path, monkeypatch):
    folder(tmp_path)
    (tmp_path / "a" / "10.png").write_bytes(b"a letter")
    monkeypatch.setattr(images, "fits", lambda size: False)
    with pytest.raises(ValueError, match=r"10\.png cannot be read as an image .*skip_corrupt=True"):
        Images(tmp_path).load()
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="1 images left out"):
        assert_same_set(*both(Images(tmp_path, skip_corrupt=True), monkeypatch))


def test_a_folder_left_in_its_files_must_stay_as_it_is(tmp_path, monkeypatch):
    folder(tmp_path)
    _, left = both(Images(tmp_path), monkeypatch)
    (tmp_path / "b" / "05.png").unlink()
    with pytest.raises(ValueError, match=r"05\.png has changed since the folder was opened"):
        left.draw(2000, seeded(0))  # 36 items: missed with probability (35/36)^2000 = 1e-25
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "a" / "00.png")
    with pytest.raises(ValueError, match=r"00\.png is 9x9 but .*01\.png is 8x6|01\.png is 8x6.*|00\.png is 9x9 but"):
        Images(tmp_path).load()


def test_pieces_are_drawn_ahead_in_order():
    """While the caller holds step k, step k + 1 is drawn, and no further."""
    begun = [threading.Event() for _ in range(6)]

    def draw(step, piece):
        begun[step].set()
        return torch.tensor([step, piece]), None

    pieces = ahead(draw, range(6), range(3), True, CPU)
    for step in range(6):
        for piece in range(3):
            assert next(pieces)[0].tolist() == [step, piece]
        if step < 5:
            assert begun[step + 1].wait(10)
        assert not any(event.is_set() for event in begun[step + 2 :])
    assert list(pieces) == []
    eager = [x.tolist() for x, _ in ahead(draw, range(6), range(3), False, CPU)]
    assert eager == [x.tolist() for x, _ in ahead(draw, range(6), range(3), True, CPU)]
    assert list(ahead(draw, range(0), range(3), True, CPU)) == []


def test_an_error_on_the_way_is_raised_in_its_turn():
    def draw(step, piece):
        if step == 2:
            raise ValueError("the file is gone")
        return torch.tensor(step), None

    pieces = ahead(draw, range(9), range(1), True, CPU)
    assert [int(next(pieces)[0]) for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="the file is gone"):
        next(pieces)
    threads = threading.active_count()
    stopped = ahead(draw, range(9), range(1), True, CPU)
    next(stopped)
    stopped.close()
    assert threading.active_count() <= threads


def test_training_on_a_mapped_file_is_training_in_memory(tmp_path, monkeypatch):
    """Ten steps, and ten with a break after the fourth: the same weights to the bit."""
    np.save(tmp_path / "x.npy", RNG.normal(5, 2, (300, 6)))
    data = Array(tmp_path / "x.npy")
    kept, left = both(data, monkeypatch)
    network = Build("driftfield.network.mlp:MLP", {"width": 16})
    training = Training(steps=10, batch=24, accumulate=2)
    recipe = Recipe(data, network, Matching(PFGMPP(D=128.0)), training=training).resolved(kept.info)

    def trained(source, saved=None, until=10):
        for now in train(recipe, source, saved, "cpu"):
            if now.step == until:
                return {k: v.clone() for k, v in now.tensors().items()}
        raise AssertionError

    whole = trained(kept)
    for other in (trained(left), trained(left, trained(left, until=4))):
        assert whole.keys() == other.keys()
        assert all(torch.equal(whole[k], other[k]) for k in whole)


FRUGAL = """
import sys
from driftfield.data import stream
from driftfield.data.array import Array
from driftfield.objective.matching import Matching
from driftfield.plain import Build
from driftfield.process.poisson import PFGMPP
from driftfield.recipe import Recipe, Training
from driftfield.train.held import judged
from driftfield.train.loop import train

def peak():  # getrusage would begin at what the process that started this one took
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

def go(path):
    data = Array(path)
    source = data.load()
    network = Build("driftfield.network.mlp:MLP", {"width": 16})
    training = Training(steps=30, batch=64)
    recipe = Recipe(data, network, Matching(PFGMPP(D=128.0)), training=training).resolved(source.info)
    judged(source, 0)
    for now in train(recipe, source, None, "cpu"):
        now.loss.item()
    return source.slow

assert not go(sys.argv[1])
begun = peak()
stream.SHARE = 1e-3
assert go(sys.argv[2])
mapped = peak()
stream.SHARE = 1.0
assert not go(sys.argv[2])
print(mapped - begun, peak() - begun)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="not run: the peak is read as Linux tells it")
def test_memory_stays_below_the_size_of_the_file(tmp_path):
    """A file of 128 MiB takes at most 64 MiB more of a process that learned a small one: pages read are given back.

    A chunk of the survey and its copies, some in float64, are 30 MiB of it. In memory the same takes more than that
    bound, though what the small set has left free is used again: so the test can tell.
    """
    block = RNG.normal(size=(2**12, 1024)).astype(np.float32)
    np.save(tmp_path / "small.npy", block[:600])
    np.save(tmp_path / "large.npy", np.concatenate([block] * 8))
    command = [sys.executable, "-c", FRUGAL, str(tmp_path / "small.npy"), str(tmp_path / "large.npy")]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    mapped, kept = map(int, out.split())
    assert mapped < 64 * 2**20
    assert kept > 64 * 2**20
