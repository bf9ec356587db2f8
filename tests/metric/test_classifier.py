"""The shipped classifiers are those their records describe, and were not trained on what scores hold out."""

import importlib.util
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from driftfield.data.digits import Digits
from driftfield.metric.classifier import CLASSIFIERS, Classifier, classifier, record, untrained, weights, weights_name
from driftfield.rng import normal, seeded

ACCURACY = {"digits": 0.98, "mnist": 0.985, "fashion": 0.91, "cifar10": 0.80}


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("sklearn")
    path = Path(__file__).parents[2] / "benchmarks" / "train_features.py"
    spec = importlib.util.spec_from_file_location("train_features", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks for its own module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_record_is_complete_and_the_file_small(name):
    found = record(name)
    assert found["accuracy"] >= ACCURACY[name]
    assert {"what", "split", "held_out", "train", "train_accuracy", "seed", "epochs", "versions", "data"} <= set(found)
    assert found["command"].startswith(f"python benchmarks/train_features.py {name} ")
    assert len(weights(name)) < 2_000_000
    assert files("driftfield").joinpath("weights", weights_name(name)).is_file()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_shipped_network_uses_all_its_dimensions(name):
    """No dead unit and no collapsed one: the covariance over noise has full numerical rank."""
    network = classifier(name)
    x = normal(torch.empty(1000, *network.shape), seeded(2))
    with torch.no_grad():
        spread = torch.linalg.svdvals(torch.cov(network.features(x).double().T))
    assert float(spread[-1]) > 1e-10 * float(spread[0])


def test_held_out_accuracy_is_the_recorded_one(script):
    (x, label), (new, new_label), _ = script.sets("digits", [])
    found = record("digits")
    assert len(x) == found["train"]
    assert script.accuracy(classifier("digits"), new, new_label) == pytest.approx(found["accuracy"], abs=1e-12)
    assert script.accuracy(classifier("digits"), x, label) == pytest.approx(found["train_accuracy"])


def test_it_was_not_trained_on_digits_that_scores_hold_out(script):
    """If this fails, the data's split has changed: run benchmarks/train_features.py again."""
    _, (unseen, _), _ = script.sets("digits", [])
    held, _ = Digits().load().held()
    assert {image.numpy().tobytes() for image in held} <= {image.numpy().tobytes() for image in unseen}


def test_training_is_decided_by_its_seed_and_leaves_the_global_generator_alone(script):
    (x, label), _, _ = script.sets("digits", [])
    before = torch.get_rng_state()
    one, two, other = (script.train("digits", x[:600], label[:600], seed, epochs=1) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b, c in zip(one.parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_training_pictures_learns_and_packs_into_half(script):
    """Two shapes of 28 x 28 pixels, told apart after a few steps; packing moves a weight by its rounding alone."""
    x = torch.full((256, 1, 28, 28), -1.0)
    label = torch.arange(256) % 2
    x[label == 0, :, 8:20, 12:16] = 1
    x[label == 1, :, 12:16, 8:20] = 1
    network = script.train("fashion", x, label, seed=0, epochs=8)
    assert script.accuracy(network, x, label) > 0.95
    packed = script.compact(network)
    assert {v.dtype for v in packed.values() if v.ndim > 1} == {torch.float16}
    for key, value in network.state_dict().items():
        torch.testing.assert_close(packed[key].to(value), value, rtol=2**-11, atol=1e-7)


def test_shifts_are_by_at_most_so_many_pixels_and_all_of_them_occur(script):
    for most in (1, 2):
        x = torch.full((900, 3, 8, 8), -1.0)
        x[:, 1, 4, 3] = 1
        at = script.shift(x, most, seeded(0))[:, 1].flatten(1).argmax(1)
        reach = range(-most, most + 1)
        assert set(at.tolist()) == {8 * (4 + i) + 3 + j for i in reach for j in reach}


def test_loading_draws_nothing():
    classifier.cache_clear()
    before = torch.get_rng_state()
    assert isinstance(classifier("digits"), Classifier)
    assert all(p.is_meta for p in untrained("cifar10").parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="unknown classifier 'fashon'; did you mean 'fashion'"):
        classifier("fashon")
    with pytest.raises(ValueError, match=r"fashion features need images \(n, 1, 28, 28\), got \(2, 3, 28, 28\)"):
        classifier("fashion").features(torch.zeros(2, 3, 28, 28))
