"""Samples drawn before, read back to be scored: from every kind of file, whole or in batches, or refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from driftfield.data.base import Info
from driftfield.metric.classifier import classifier
from driftfield.metric.evaluate import evaluate
from driftfield.report import drawn as module
from driftfield.report.drawn import read_drawn
from driftfield.report.score import auto_features, score
from driftfield.rng import normal, seeded

GREY = Info("image", (1, 8, 8), tuple("0123456789"), 127.5, 127.5, 10)
VECTORS = Info("array", (3,), (), 2.0, 5.0, 10)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DRIFTFIELD_CACHE", str(tmp_path_factory.mktemp("cache")))


def pictures(folder, n=12, record=None):
    folder.mkdir()
    pixels = (127.5 + 60 * normal(torch.empty(n, 8, 8), seeded(3))).clamp(0, 255).to(torch.uint8).numpy()
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{i:05d}.png")
    Image.fromarray(pixels.reshape(-1, 8)).save(folder / "grid.png")
    if record is not None:
        (folder / "record.json").write_text(json.dumps(record))
    return pixels


def test_a_folder_of_pictures_is_read_without_its_grid(tmp_path):
    pixels = pictures(tmp_path / "s", record={"seed": 4, "nfe": 9, "cond": "3,5"})
    found = read_drawn(tmp_path / "s", GREY)
    assert torch.equal(found.x, GREY.to_model(pixels))
    assert found.notes["seed"] == 4
    assert found.labels.tolist() == [3, 5] * 6


def test_shards_and_files_of_arrays_are_one_sample(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.save(tmp_path / "all.npy", x)
    np.savez(tmp_path / "all.npz", x=x, labels=np.arange(50))
    (tmp_path / "shards").mkdir()
    for i, part in enumerate(np.split(x, [7, 30])):
        np.save(tmp_path / "shards" / f"{i}.npy", part)
    for name in ("all.npy", "all.npz", "shards"):
        found = read_drawn(tmp_path / name, VECTORS)
        np.testing.assert_allclose(found.x, (x - 2) / 5, rtol=1e-5, atol=1e-6)
        assert found.n == 50
    assert read_drawn(tmp_path / "all.npz", VECTORS).labels.tolist() == list(range(50))


def test_batches_are_all_of_it_and_spread_over_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WHOLE", 0)
    monkeypatch.setattr(module, "_BATCH", 20)
    x = np.arange(150, dtype=np.float32).reshape(50, 3)
    (tmp_path / "shards").mkdir()
    for i, part in enumerate(np.split(x, [7, 30])):
        np.save(tmp_path / "shards" / f"{i}.npy", part)
    found = read_drawn(tmp_path / "shards", VECTORS)
    assert found.x is None
    batches = list(found.batches())
    assert [len(b) for b in batches] == [17, 17, 16]
    rows = torch.cat(batches)[:, 0].mul(5).add(2).round().div(3).int().tolist()
    assert sorted(rows) == list(range(50))
    assert rows[:4] == [0, 3, 6, 9]


def test_scores_of_a_folder_are_those_of_its_arrays(tmp_path):
    pytest.importorskip("sklearn")
    pixels = pictures(tmp_path / "s", 60, {"seed": 4, "nfe": 9})
    from driftfield.data.digits import Digits

    source = Digits().load()
    x, train = source.info.to_model(pixels), source.train()[0]
    options = {"metrics": "kid,coverage,nearest", "features": "digits"}
    found, spent = score("digits", samples=tmp_path / "s", metrics=options["metrics"])
    expected = evaluate(x, source.held()[0], train=train, sample_seed=4, **options)
    assert spent == 9
    assert found == expected
    again, _ = score("digits", samples=tmp_path / "s", metrics=options["metrics"])  # features from the cache
    assert again == expected


def test_a_large_folder_streams(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    pictures(tmp_path / "s", 70)
    whole, _ = score("digits", samples=tmp_path / "s", metrics="frechet", subsets=4)
    monkeypatch.setattr(module, "WHOLE", 0)
    streamed, spent = score("digits", samples=tmp_path / "s", metrics="frechet", subsets=4)
    assert streamed.values == pytest.approx(whole.values, rel=1e-9)
    assert spent == 0


def test_a_reference_of_fid_statistics(tmp_path):
    pytest.importorskip("sklearn")
    pictures(tmp_path / "s", 70)
    from driftfield.data.digits import Digits

    held = classifier("digits").features(Digits().load().held()[0]).double()
    np.savez(tmp_path / "fid.npz", mu=held.mean(0), sigma=torch.cov(held.T))
    own, _ = score("digits", samples=tmp_path / "s", metrics="frechet", subsets=0)
    found, _ = score("digits", samples=tmp_path / "s", metrics="frechet", subsets=0, reference=tmp_path / "fid.npz")
    assert found.values == pytest.approx(own.values, rel=1e-9)
    assert found.record["split"] == "fid.npz"


def test_automatic_features_are_the_shipped_classifier_or_raw():
    from driftfield.data.digits import Digits
    from driftfield.data.mnist import Fashion
    from driftfield.data.toys import SwissRoll

    assert [auto_features(d) for d in (Digits(), Fashion(), SwissRoll())] == ["digits", "fashion", "raw"]


def test_bad_samples_are_named(tmp_path):
    pictures(tmp_path / "s")
    with pytest.raises(FileNotFoundError, match="no samples at"):
        read_drawn(tmp_path / "none", GREY)
    with pytest.raises(ValueError, match="is 8x8 but the data are 28x28; resize the samples"):
        read_drawn(tmp_path / "s", Info("image", (1, 28, 28), (), 127.5, 127.5, 10))
    with pytest.raises(ValueError, match=r"no samples.npz and no .npy, and these data are no pictures"):
        read_drawn(tmp_path / "s", VECTORS)
    np.save(tmp_path / "a.npy", np.zeros((5, 4), np.float32))
    with pytest.raises(ValueError, match=r"a.npy: expected items that fit the shape \(3,\)"):
        read_drawn(tmp_path / "a.npy", VECTORS)
    np.savez(tmp_path / "b.npz", weights=np.zeros(3))
    with pytest.raises(ValueError, match="no array x, images, samples, arr_0, but weights"):
        read_drawn(tmp_path / "b.npz", VECTORS)
    np.save(tmp_path / "c.npy", np.array([print]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"not a \.npy file that can be read"):
        read_drawn(tmp_path / "c.npy", VECTORS)
    (tmp_path / "d.txt").write_text("1")
    with pytest.raises(ValueError, match="no file of samples"):
        read_drawn(tmp_path / "d.txt", VECTORS)
    (tmp_path / "s" / "record.json").write_text("{")
    with pytest.raises(ValueError, match="not a record of samples"):
        read_drawn(tmp_path / "s", GREY)
    with pytest.raises(ValueError, match="at least 4 samples, and 2 subsets or 0; got n=1000 and subsets=1"):
        score("digits", samples=tmp_path / "s", subsets=1)
    with pytest.raises(FileNotFoundError, match="no weights at digits"):
        score("digits")
