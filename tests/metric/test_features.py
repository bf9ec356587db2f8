"""Features by name or by callable; the shipped classifier is the one its record describes."""

import importlib.util
import math
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from torch import nn

from driftfield.data.digits import Digits
from driftfield.metric.features import WEIGHTS, DigitsNet, Features, digits_network, digits_record, features
from driftfield.rng import normal, seeded


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("sklearn")
    path = Path(__file__).parents[2] / "benchmarks" / "train_digits_features.py"
    spec = importlib.util.spec_from_file_location("train_digits_features", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_record_is_complete_and_the_file_small():
    record = digits_record()
    assert record["accuracy"] >= 0.98
    assert {"command", "seed", "split", "held_out", "train", "epochs", "versions", "data"} <= set(record)
    assert len(files("driftfield").joinpath("weights", WEIGHTS).read_bytes()) < 300_000


def test_held_out_accuracy_is_the_recorded_one(script):
    record, (x, label) = digits_record(), script.digits()
    held = torch.zeros(len(x), dtype=torch.bool)
    held[record["held_out"]] = True
    assert int((~held).sum()) == record["train"]
    assert script.accuracy(digits_network(), x[held], label[held]) == pytest.approx(record["accuracy"], abs=1e-12)
    assert script.accuracy(digits_network(), x[~held], label[~held]) == pytest.approx(record["train_accuracy"])


def test_it_was_not_trained_on_digits_that_scores_hold_out(script):
    """If this fails, the data's split has changed: run benchmarks/train_digits_features.py again."""
    x, _ = script.digits()
    held, _ = Digits().load().held()
    unseen = {image.numpy().tobytes() for image in x[digits_record()["held_out"]]}
    assert {image.numpy().tobytes() for image in held} <= unseen


def test_training_is_decided_by_its_seed_and_leaves_the_global_generator_alone(script):
    x, label = script.digits()
    before = torch.get_rng_state()
    one, two, other = (script.train(x[:600], label[:600], seed, epochs=1) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b, c in zip(one.parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_shifts_are_by_at_most_one_pixel_and_all_of_them_occur(script):
    x = torch.full((400, 1, 8, 8), -1.0)
    x[:, :, 4, 3] = 1
    at = script.shift(x, seeded(0)).flatten(1).argmax(1)
    assert set(at.tolist()) == {8 * i + j for i in (3, 4, 5) for j in (2, 3, 4)}


def test_digits_features_are_the_layer_below_the_logits():
    x = normal(torch.empty(7, 1, 8, 8), seeded(1))
    network, got = digits_network(), features("digits")(x)
    assert got.shape == (7, 64)
    assert not got.requires_grad
    torch.testing.assert_close(network.head(got), network(x))
    torch.testing.assert_close(features("digits")(x, batch=2), got)
    torch.testing.assert_close(features("digits")(x.double()), got)


def test_loading_draws_nothing():
    digits_network.cache_clear()
    before = torch.get_rng_state()
    assert isinstance(digits_network(), DigitsNet)
    assert torch.equal(torch.get_rng_state(), before)


def test_digits_features_use_all_their_dimensions():
    """No dead unit and no collapsed one: the covariance over noise has full numerical rank."""
    x = normal(torch.empty(2000, 1, 8, 8), seeded(2))
    spread = torch.linalg.svdvals(torch.cov(features("digits")(x).double().T))
    assert float(spread[-1]) > 1e-6 * float(spread[0])


def test_raw_features_are_the_values():
    x = normal(torch.empty(5, 2, 3, 4), seeded(1))
    assert torch.equal(features("raw")(x, batch=2), x.flatten(1))


def test_a_callable_is_recorded_by_its_import_path():
    chosen = features(nn.Flatten())
    assert chosen.name == "torch.nn.modules.flatten:Flatten"
    assert features(math.sin).name == "math:sin"
    named = Features("flat", nn.Flatten())
    assert features(named) is named


def test_bad_input_is_named():
    x = torch.zeros(4, 1, 8, 8)
    with pytest.raises(ValueError, match=r"'digit'; did you mean 'digits'\?"):
        features("digit")
    with pytest.raises(TypeError, match="a name or a callable, got 3"):
        features(3)
    with pytest.raises(ValueError, match=r"\(n, 1, 8, 8\), got \(4, 64\)"):
        features("digits")(x.flatten(1))
    with pytest.raises(ValueError, match=r"got \(4, 1, 8, 8\); flatten"):
        features(nn.Identity())(x)
