"""Features by name or by callable, a batch at a time."""

import math

import pytest
import torch
from torch import nn

from driftfield.metric.classifier import classifier
from driftfield.metric.features import Features, features
from driftfield.rng import normal, seeded


def draw(n, *shape, seed=1):
    return normal(torch.empty(n, *shape), seeded(seed))


def test_a_classifier_s_features_are_the_layer_below_the_logits():
    x = draw(7, 1, 8, 8)
    network, chosen = classifier("digits"), features("digits")
    got = chosen(x)
    assert got.shape == (7, 64)
    assert not got.requires_grad
    torch.testing.assert_close(network.head(got), network(x))
    torch.testing.assert_close(chosen(x, batch=2), got)
    torch.testing.assert_close(chosen(x.double()), got)
    assert len(chosen.digest) == 64


def test_raw_features_are_the_values():
    x = draw(5, 2, 3, 4)
    assert torch.equal(features("raw")(x, batch=2), x.flatten(1))
    assert features("raw").digest is None


def test_a_stream_of_features_holds_nothing():
    asked = []

    def batches():
        for i in range(3):
            asked.append(i)
            yield draw(4, 3, seed=i)

    stream = features("raw").stream(batches())
    assert asked == []
    assert torch.equal(next(stream), draw(4, 3, seed=0))
    assert asked == [0]


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
