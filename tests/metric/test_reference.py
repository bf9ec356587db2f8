"""References kept in files: the same numbers back, found again only where everything agrees."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

from driftfield.metric import sides
from driftfield.metric.evaluate import evaluate
from driftfield.metric.features import Features
from driftfield.metric.frechet import Moments, frechet
from driftfield.metric.kid import kernel_sums
from driftfield.metric.reference import Reference, kept
from driftfield.rng import normal, seeded


def draw(n, seed, shape=(2, 3)):
    return normal(torch.empty(n, *shape), seeded(41, seed))


class Counted:
    """Features that count how often they are taken."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return x.flatten(1) ** 2


def test_a_file_gives_the_features_back(tmp_path):
    made = Reference.of(draw(20, 1), Features("flat", lambda x: x.flatten(1), "64 px"), "train")
    made.save(tmp_path / "r.safetensors")
    found = Reference.read(tmp_path / "r.safetensors")
    assert torch.equal(found.side.rows, made.side.rows)
    assert found.record == made.record == {"features": "flat", "resize": "64 px", "split": "train", "n_reference": 20}
    assert [p.name for p in tmp_path.iterdir()] == ["r.safetensors"]


def test_statistics_of_fid_are_read(tmp_path):
    x, y = draw(50, 1).flatten(1).double(), draw(40, 2).flatten(1).double()
    np.savez(tmp_path / "fid.npz", mu=y.mean(0).numpy(), sigma=torch.cov(y.T).numpy())
    found = Reference.read(tmp_path / "fid.npz")
    assert frechet(x, found.side.moments) == pytest.approx(frechet(x, y), rel=1e-10)
    assert Moments.given(y.mean(0), torch.cov(y.T), 40).merge(Moments.of(x)).mean == pytest.approx(
        torch.cat((x, y)).mean(0)
    )
    with pytest.raises(ValueError, match="mean and covariance alone"):
        found.save(tmp_path / "again.safetensors")


def test_what_was_measured_is_found_again_and_nothing_else(tmp_path):
    x, take = draw(20, 1), Counted()
    first = kept(tmp_path, x, Features("squares", take, digest="v1"))
    again = kept(tmp_path, x.clone(), Features("squares", take, digest="v1"))
    assert take.calls == 1
    assert torch.equal(first.side.rows, again.side.rows)
    assert first.record == again.record
    for other, own, split in (
        (x + 1e-6, Features("squares", take, digest="v1"), "held-out"),
        (x.reshape(20, 6), Features("squares", take, digest="v1"), "held-out"),
        (x, Features("squares", take, digest="v2"), "held-out"),
        (x, Features("others", take, digest="v1"), "held-out"),
        (x, Features("squares", take, "64 px", "v1"), "held-out"),
        (x, Features("squares", take, digest="v1"), "train"),
    ):
        before = take.calls
        kept(tmp_path, other, own, split)
        assert take.calls == before + 1
    assert len(list(tmp_path.iterdir())) == 7


def test_the_sums_of_the_reference_that_kid_needs_are_found_once(tmp_path, monkeypatch):
    """By the call that needs them; then they are in memory, and in the file for others."""
    x, own = draw(30, 1), Features("squares", Counted(), digest="v1")
    calls = []
    monkeypatch.setattr(sides, "kernel_sums", lambda b: calls.append(len(b)) or kernel_sums(b))
    reference = kept(tmp_path, x, own)
    evaluate(draw(20, 2), reference, metrics="frechet", features=own)
    assert calls == []
    fresh = evaluate(draw(20, 2), x, metrics="kid", features=own)
    for again in (lambda: reference, lambda: reference, lambda: kept(tmp_path, x, own)):
        found = evaluate(draw(20, 2), again(), metrics="kid", features=own)
        assert (found.values, found.errors) == (fresh.values, fresh.errors)
    assert calls == [30, 30]
    evaluate(draw(20, 2), kept(tmp_path, x + 1, own), metrics="kid", features=own)
    assert calls == [30, 30, 30]


def test_a_file_that_went_costs_no_score(tmp_path):
    own = Features("squares", Counted(), digest="v1")
    reference = kept(tmp_path, draw(30, 1), own)
    reference.file.unlink()
    assert "kid" in evaluate(draw(20, 2), reference, metrics="kid", features=own).values
    assert not list(tmp_path.iterdir())


def test_features_without_a_digest_are_not_kept(tmp_path):
    kept(tmp_path, draw(20, 1), Features("flat", lambda x: x.flatten(1)))
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_measured_anew(tmp_path):
    x, take = draw(20, 1), Counted()
    made = kept(tmp_path, x, Features("squares", take, digest="v1"))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    assert torch.equal(kept(tmp_path, x, Features("squares", take, digest="v1")).side.rows, made.side.rows)
    assert take.calls == 2
    assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_no_score(tmp_path):
    (tmp_path / "file").write_text("")
    made = kept(tmp_path / "file" / "cache", draw(20, 1), Features("squares", Counted(), digest="v1"))
    assert made.side.rows.shape == (20, 6)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no reference file"):
        Reference.read(tmp_path / "none.npz")
    (tmp_path / "a.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="not a file of FID statistics"):
        Reference.read(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", mu=np.zeros(3))
    with pytest.raises(ValueError, match="expected arrays mu and sigma"):
        Reference.read(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", mu=np.zeros(3), sigma=np.eye(2))
    with pytest.raises(ValueError, match=r"sigma \(F, F\), got \(3,\) and \(2, 2\)"):
        Reference.read(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", mu=np.array([print], dtype=object), sigma=np.eye(1))
    with pytest.raises(ValueError, match="not a file of FID statistics"):
        Reference.read(tmp_path / "d.npz")
    safetensors.torch.save_file({"x": torch.zeros(2)}, tmp_path / "e.safetensors", {"recipe": json.dumps(1)})
    with pytest.raises(ValueError, match="not a reference file"):
        Reference.read(tmp_path / "e.safetensors")
