"""EfficientNet-Lite0: the weights it claims, the pictures it was shown, and nothing drawn."""

import sys

import pytest
import torch

pytest.importorskip("efficientnet_lite_pytorch")

from driftfield.metric.efficientnet import network, normalised, pooled
from driftfield.metric.features import features
from driftfield.rng import normal, seeded


def test_it_knows_a_flower():
    """The photograph of scikit-learn is of a composite flower; of a thousand classes, "daisy" (985) is taken, under the
    normalisation of its training and, as a check of it, with less doubt than under the other customary one."""
    sklearn = pytest.importorskip("sklearn.datasets")
    x = torch.from_numpy(sklearn.load_sample_image("flower.jpg").copy()).movedim(-1, 0)[None].float()
    x = torch.nn.functional.interpolate(x[..., 106:533], (224, 224), mode="bilinear", antialias=True)
    model = network()

    def chances(shown):
        return model._fc(model.extract_features(shown).mean((2, 3))).softmax(1)[0]

    found = chances(normalised(x / 127.5 - 1))
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    assert int(found.argmax()) == 985
    assert found[985] > 1.5 * chances((x / 255 - mean) / std)[985]


def test_pictures_are_normalised_as_pixels():
    x = torch.tensor([0, 127, 255]) / 127.5 - 1
    torch.testing.assert_close(normalised(x), torch.tensor([-127 / 128, 0, 1]), atol=1e-6, rtol=0)


def test_features_are_rows_by_themselves():
    before = torch.get_rng_state()
    chosen = features("efficientnet")
    x = 0.4 * normal(torch.empty(3, 1, 28, 28), seeded(1))
    got = chosen(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert got.shape == (3, 1280)
    torch.testing.assert_close(chosen(x, batch=1), got, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(chosen(x.expand(-1, 3, -1, -1)), got)
    assert chosen.resize == "64 px, bilinear, antialiased"
    assert len(chosen.digest) == 64


def test_pictures_of_64_pixels_are_not_resampled():
    x = 0.4 * normal(torch.empty(2, 3, 64, 64), seeded(2))
    torch.testing.assert_close(features("efficientnet")(x), network().extract_features(normalised(x)).mean((2, 3)))


def test_bad_input_is_named(monkeypatch):
    with pytest.raises(ValueError, match=r"pictures \(n, 1 or 3, H, W\), got \(4, 2\)"):
        pooled(network(), torch.zeros(4, 2))
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install 'driftfield\[features\]'"):
        features("efficientnet")
