"""Scores: each is its own function on the same features, and the record is whole."""

import json
from dataclasses import fields

import pytest
import torch

from driftfield.metric import evaluate as module
from driftfield.metric.evaluate import Scores, evaluate
from driftfield.metric.features import features
from driftfield.metric.frechet import frechet
from driftfield.metric.kid import kid
from driftfield.metric.nearest import nearest_ratio
from driftfield.metric.wasserstein import sliced_wasserstein
from driftfield.rng import normal, seeded


def draw(n, seed, shape=(1, 8, 8)):
    return 0.5 * normal(torch.empty(n, *shape), seeded(19, seed))


@pytest.mark.parametrize("name", ["raw", "digits"])
def test_scores_are_those_of_their_functions(name):
    x, y, z = draw(40, 1), draw(50, 2), draw(60, 3)
    scores = evaluate(x, y, features=name, train=z, seed=5, projections=32)
    a, b, c = (features(name)(part) for part in (x, y, z))
    assert scores.frechet == frechet(a, b)
    assert (scores.kid, scores.kid_error) == kid(a, b)
    assert (scores.sliced, scores.sliced_error) == sliced_wasserstein(a, b, seeded(5), 32)
    assert scores.nearest == nearest_ratio(a, c, b)


def test_the_record_is_complete_and_survives_json():
    scores = evaluate(draw(8, 1), draw(9, 2), split="test", seed=3, projections=16, sample_seed=7)
    plain = json.loads(json.dumps(scores.as_dict()))
    assert set(plain) == {f.name for f in fields(Scores)}
    assert Scores(**plain) == scores
    record = {key: plain[key] for key in plain if key not in ("frechet", "kid", "kid_error", "sliced", "sliced_error")}
    assert record == {
        "nearest": None,
        "features": "raw",
        "n": 8,
        "n_reference": 9,
        "n_train": None,
        "split": "test",
        "seed": 3,
        "projections": 16,
        "sample_seed": 7,
        "version": module.version("driftfield"),
    }


def test_an_uninstalled_copy_says_so(monkeypatch):
    def absent(name):
        raise module.PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", absent)
    assert evaluate(draw(4, 1), draw(4, 2)).version == "not installed"


def test_the_table_names_every_score_and_the_record():
    text = str(evaluate(draw(8, 1), draw(9, 2), train=draw(6, 3), split="test", sample_seed=7))
    for word in ("frechet", "kid", "sliced", "nearest", "+-", "raw", "8 samples (seed 7)", "9 of the test split"):
        assert word in text
    assert "nearest" not in str(evaluate(draw(8, 1), draw(9, 2)))


def test_arrays_and_tensors_score_alike():
    x, y = draw(8, 1, (3,)), draw(9, 2, (3,))
    assert evaluate(x.numpy(), y) == evaluate(x, y.numpy()) == evaluate(x, y)


@pytest.mark.parametrize("name", ["raw", "digits"])
def test_digits_are_nearer_to_digits_than_noise_is(name):
    """Half of the digits against the other half; against noise with their mean and spread in each pixel; and copies."""
    sklearn = pytest.importorskip("sklearn.datasets")
    x = torch.as_tensor(sklearn.load_digits().images, dtype=torch.float32)[:, None] / 8 - 1
    train, held, new = x[0::3], x[1::3], x[2::3]
    noise = x.mean(0) + x.std(0) * normal(torch.empty(599, 1, 8, 8), seeded(1))
    real = evaluate(new, held, features=name, train=train)
    fake = evaluate(noise, held, features=name, train=train)
    copy = evaluate(train, held, features=name, train=train)
    assert real.frechet < fake.frechet / 3
    assert real.sliced < fake.sliced / 1.2
    assert abs(real.kid) < 4 * real.kid_error < fake.kid - 4 * fake.kid_error
    assert 0.9 < real.nearest < 1.1 < fake.nearest
    assert copy.nearest == 0


def test_bad_input_is_named():
    x, y = draw(8, 1), draw(9, 2)
    bad = x.clone()
    bad[2, 0, 0, :2] = torch.nan
    bad[5, 0, 3, 3] = torch.inf
    with pytest.raises(ValueError, match="samples should be finite, but 3 values in 2 of 8 rows"):
        evaluate(bad, y)
    with pytest.raises(ValueError, match=r"samples are of shape \(1, 8, 8\) but the reference set of \(64,\)"):
        evaluate(x, y.flatten(1))
    with pytest.raises(ValueError, match="but the train set of"):
        evaluate(x, y, train=draw(5, 3, (1, 4, 4)))
    with pytest.raises(ValueError, match=r"reference should have shape \(n, \*shape\) with n at least 4"):
        evaluate(x, y[:3])
    with pytest.raises(ValueError, match="held-out points are training points"):
        evaluate(x, y, train=y)
    with pytest.raises(ValueError, match="unknown features 'inception'"):
        evaluate(x, y, features="inception")
    with pytest.raises(TypeError, match=r"floats in the model's units, got torch\.uint8"):
        evaluate(x.to(torch.uint8), y)
    with pytest.raises(TypeError, match="a tensor or an array, got list"):
        evaluate([[1.0]], y)
