"""Finite sets: the split, the draw, and what an array is taken for."""

import math

import numpy as np
import pytest
import torch

from driftfield.data.digits import Digits
from driftfield.data.memory import InMemory
from driftfield.data.stored import Stored, split, stored
from driftfield.rng import permutation, rows, seeded


def numbered(count=50):
    """Item i is the vector (i, -i) in user's units, with label i."""
    i = np.arange(count)
    return stored(np.stack((i, -i), 1).astype(np.float32), i)


def test_permutation_is_one():
    order = permutation(1000, seeded(3, 1))
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert torch.equal(order, permutation(1000, seeded(3, 1)))
    assert not torch.equal(order, permutation(1000, seeded(3, 2)))


@pytest.mark.parametrize(
    ("count", "held", "kept"), [(2, 0.1, 1), (9, 0.1, 1), (1797, 0.1, 180), (3, 0.99, 2), (150_000, 0.1, 10_000)]
)
def test_split_is_disjoint_complete_and_reproducible(count, held, kept):
    train, out = split(count, held)
    assert len(out) == kept
    assert torch.equal(torch.cat((train, out)).sort().values, torch.arange(count))
    assert all(torch.equal(a, b) for a, b in zip(split(count, held), (train, out), strict=True))
    assert count < 10 or not torch.equal(split(count, held, seed=1)[1], out)


def test_split_refuses():
    with pytest.raises(ValueError, match=r"at least 2 items.*got 1"):
        split(1)
    for held in (0.0, 1.0, -0.2, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            split(10, held)


def test_training_never_draws_held_out_items():
    source = numbered()
    train, held = (set(part[1].tolist()) for part in (source.train(), source.held()))
    drawn = set(source.draw(5000, seeded(0))[1].tolist())
    assert drawn == train  # each of 45 is missed with probability (44/45)^5000 = 1e-49
    assert not drawn & held


def test_labels_stay_with_their_items():
    source = numbered()
    for x, label in (source.draw(100, seeded(1)), source.train(), source.held()):
        np.testing.assert_allclose(source.info.to_user(x), np.stack((label, -label), 1), atol=1e-5)


def test_index_draw_is_uniform():
    """Chi-square of 45 cells: mean 44, variance 88; a 5-sigma bound is 91."""
    source = numbered()
    counts = torch.bincount(source.draw(45_000, seeded(5))[1], minlength=50)
    counts = counts[counts > 0].double()
    assert len(counts) == 45
    assert ((counts - 1000).square() / 1000).sum() < 44 + 5 * math.sqrt(88)


@pytest.mark.parametrize("source", [numbered(), Digits().load()], ids=["array", "digits"])
def test_a_row_depends_on_its_generator_alone(source):
    x, label = source.draw(12, rows(7, 0, 12))
    parts = [source.draw(4, rows(7, i, i + 4)) for i in (0, 4, 8)]
    assert torch.equal(x, torch.cat([p[0] for p in parts]))
    assert torch.equal(label, torch.cat([p[1] for p in parts]))
    again, _ = source.draw(12, rows(7, 0, 12))
    assert torch.equal(x, again)
    assert not torch.equal(x, source.draw(12, rows(8, 0, 12))[0])


def test_bytes_are_kept_as_bytes_and_drawn_in_model_units():
    pixels = torch.arange(64, dtype=torch.uint8).reshape(4, 1, 4, 4) * 4
    source = Stored(pixels, kind="image")
    x, labels = source.train()
    assert labels is None
    assert torch.equal(x, pixels[split(4)[0]].float() / 127.5 - 1)
    # the histogram's deviation is the plain one: about the common mean of all pixels
    assert source.info.std == pytest.approx(float(x.double().std(correction=0)), rel=1e-7)
    with pytest.raises(ValueError, match="one and the same value"):
        Stored(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), kind="image")


def test_digits_are_exact():
    from sklearn.datasets import load_digits

    source = Digits().load()
    info = source.info
    assert (info.kind, info.shape, info.classes) == ("image", (1, 8, 8), tuple("0123456789"))
    (x, label), (x_held, label_held) = source.train(), source.held()
    assert (len(x), len(x_held), info.count) == (1617, 180, 1617)
    order = torch.cat(split(1797)).numpy()
    np.testing.assert_array_equal(8 * (torch.cat((x, x_held))[:, 0] + 1), load_digits().images[order])
    np.testing.assert_array_equal(torch.cat((label, label_held)), load_digits().target[order])
    assert info.std == pytest.approx(float(x.double().std(correction=0)), rel=1e-12)
    pixels = info.to_user(x)
    assert (pixels.shape, pixels.dtype, pixels.max()) == ((1617, 8, 8), np.uint8, 255)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'driftfield\[digits\]'"):
        Digits().load()


@pytest.mark.parametrize(
    ("shape", "model"),
    [
        ((6, 4, 5), (1, 4, 5)),
        ((6, 4, 5, 1), (1, 4, 5)),
        ((6, 4, 5, 3), (3, 4, 5)),
        ((6, 3, 4, 5), (3, 4, 5)),
        ((6, 1, 4, 5), (1, 4, 5)),
    ],
)
def test_bytes_are_images(shape, model):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    source = stored(pixels)
    info = source.info
    assert (info.kind, info.shape, info.shift, info.scale) == ("image", model, 127.5, 127.5)
    channels_last = pixels if len(shape) == 3 or shape[-1] in (1, 3) else np.moveaxis(pixels, 1, -1)
    expected = channels_last[split(6)[0].numpy()]
    np.testing.assert_array_equal(info.to_user(source.train()[0]).reshape(expected.shape), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize(
    ("shape", "model", "kind"),
    [
        ((40,), (1,), "array"),
        ((40, 2), (2,), "points"),
        ((40, 5), (5,), "array"),
        ((40, 3, 4, 2, 2), (3, 4, 2, 2), "array"),
    ],
)
def test_numbers_are_standardised_by_the_training_items(shape, model, kind, dtype):
    values = np.random.default_rng(1).uniform(20, 90, shape).astype(dtype)
    source = stored(values)
    x, _ = source.train()
    assert (source.info.kind, source.info.shape) == (kind, model)
    assert x.dtype == torch.float32
    assert float(x.double().mean()) == pytest.approx(0, abs=1e-6)
    assert source.info.std == pytest.approx(1, abs=1e-6)
    for part, index in zip((x, source.held()[0]), split(40), strict=True):
        expected = values[index.numpy()].astype(np.float64).reshape(-1, *model)
        np.testing.assert_allclose(source.info.to_user(part), expected, rtol=1e-6)


def test_a_large_offset_costs_no_precision():
    """At an offset of 1e9 float32 steps are 64; standardised in float64, items a thousandth apart stay apart."""
    values = 1e9 + 1e-3 * np.arange(20.0)
    x = torch.cat([part[0] for part in (stored(values).train(), stored(values).held())])
    gaps = x[:, 0].double().sort().values.diff()
    assert float(gaps.max() / gaps.min()) == pytest.approx(1, abs=2e-3)  # 1e9 holds 1e-3 to 1.2e-7 / 1e-3


def test_labels_become_classes():
    x = np.random.default_rng(0).normal(size=(4, 3))
    for labels, classes in (([7, -1, 3, 7], ("3", "7")), (["b", "a", "a", "b"], ("a", "b"))):
        source = stored(x, np.array(labels))
        order = torch.cat(split(4))
        target = torch.cat((source.train()[1], source.held()[1]))
        names = [classes[i] if i >= 0 else "-1" for i in target.tolist()]
        assert source.info.classes == classes
        assert names == [str(labels[i]) for i in order]


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (np.ones((3, 2)), None, r"x\.npy holds only the value 1\.0"),
        (np.full((3, 2, 2), 9, np.uint8), None, "only the value 9"),
        (np.zeros((1, 2)), None, "at least 2 items.*got 1"),
        (np.zeros((0, 2)), None, r"shape \(0, 2\)"),
        (np.array(3.0), None, r"items along its first axis, got shape \(\)"),
        (np.array([1j, 2]), None, "real numbers, got dtype complex128"),
        (np.array(["a", "b"]), None, "real numbers"),
        (np.zeros((3, 4, 4, 4), np.uint8) + np.arange(4, dtype=np.uint8), None, "no axis of 1 or 3 channels"),
        (np.array([[1e200], [-1e200], [1e200]]), None, "rescale"),
        (np.arange(6.0), np.arange(5), r"labels must have shape \(6,\), got \(5,\)"),
        (np.arange(6.0), np.arange(6.0), "integers or strings, got dtype float64"),
        (np.arange(6.0), np.arange(6) - 3, "at least 0, or -1.*got -3"),
    ],
)
def test_bad_arrays_are_refused_in_one_sentence(values, labels, message):
    with pytest.raises(ValueError, match=message):
        stored(values, labels, name="x.npy")


def test_nan_is_counted_and_located():
    values = np.zeros((5, 3))
    values[2, 1], values[4, 0] = math.nan, math.inf
    with pytest.raises(ValueError, match=r"2 values that are NaN or infinite, the first at index \(2, 1\)"):
        stored(values)


def test_in_memory_is_described_by_its_fields_alone():
    x = np.random.default_rng(0).normal(size=(20, 2))
    value = InMemory.of(x)
    assert value == InMemory.of(torch.from_numpy(x))
    assert value != InMemory.of(x, labels=np.arange(20))
    assert value != InMemory.of(x + 1e-9)
    assert value.load().info == stored(x).info
    written = InMemory(value.shape, value.dtype, value.digest, value.held)
    assert (written, repr(written)) == (value, repr(value))
    with pytest.raises(ValueError, match=r"shape \(20, 2\) that was in memory.*InMemory\.of"):
        written.load()


def test_in_memory_takes_tensors_and_labels():
    x = torch.linspace(-4, 4, 24, dtype=torch.bfloat16).reshape(12, 2).requires_grad_()
    source = InMemory.of(x, torch.arange(12) % 3).load()
    assert source.info.classes == ("0", "1", "2")
    assert source.info.kind == "points"
    pixels = torch.arange(96, dtype=torch.uint8).reshape(2, 3, 4, 4)
    assert InMemory.of(pixels).load().info.shape == (3, 4, 4)


def test_in_memory_notices_a_change():
    x = np.arange(10.0)
    value = InMemory.of(x)
    x[3] = 7
    with pytest.raises(ValueError, match="has changed"):
        value.load()
    with pytest.raises(ValueError, match="numbers, got dtype object"):
        InMemory.of(np.array([None, 1]))
