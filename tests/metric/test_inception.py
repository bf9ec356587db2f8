"""A user's Inception file: stand-ins of both interfaces, told apart, fed as the protocol says, or refused."""

import pickle
import warnings

import pytest
import torch
from torch import Tensor, nn

from driftfield.metric.evaluate import evaluate
from driftfield.metric.features import features
from driftfield.metric.frechet import frechet
from driftfield.metric.inception import bytes_of
from driftfield.metric.inception_net import Inception, Mixed, Unit
from driftfield.rng import normal, seeded


class StandIn(nn.Module):
    """The published TorchScript's interface: bytes in, features out where they are asked for."""

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        assert img.dtype == torch.uint8
        x = img.float()
        return torch.cat((x.mean((2, 3)), x.amax((2, 3))), 1) if return_features else x.mean((1, 2, 3))[:, None]


class Other(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def script(module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return path


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    return script(StandIn(), tmp_path_factory.mktemp("inception") / "inception-2015-12-05.pt")


@pytest.fixture(scope="module")
def untrained():
    with torch.device("meta"):
        network = Inception()
    network.to_empty(device="cpu")
    with torch.no_grad():
        for i, (name, p) in enumerate(network.named_parameters()):
            noise = normal(torch.empty_like(p), seeded(7, i))
            p.copy_(noise * (2 / p[0].numel()) ** 0.5 if p.ndim > 1 else 1 + 0.1 * noise if "weight" in name else noise)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
    return network.eval()


def draw(n, c=3, size=16, seed=1):
    return 0.6 * normal(torch.empty(n, c, size, size), seeded(seed))


def test_pixels_are_bytes_of_three_channels():
    x = torch.tensor([-1.5, -1, 2 * 100.4 / 255 - 1, 2 * 100.6 / 255 - 1, 1, 1.5]).reshape(1, 1, 2, 3)
    got = bytes_of(x)
    assert got.dtype == torch.uint8
    assert got.shape == (1, 3, 2, 3)
    assert got[0, 2].flatten().tolist() == [0, 0, 100, 101, 255, 255]


def test_the_scripted_stand_in_gives_its_numbers(scripted):
    """Means and maxima of 8-bit pixels, and the Frechet distance of just those."""
    x, y = draw(20), draw(30, seed=2)
    chosen = features(f"inception:{scripted}")
    expected = torch.cat((bytes_of(x).float().mean((2, 3)), bytes_of(x).float().amax((2, 3))), 1)
    torch.testing.assert_close(chosen(x), expected)
    torch.testing.assert_close(chosen(x, batch=3), expected)
    scores = evaluate(x, y, features=f"inception:{scripted}", metrics="frechet", subsets=0)
    assert scores.values["frechet"] == frechet(chosen(x), chosen(y))
    assert scores.record["features"] == f"inception:{chosen.digest[:12]}"
    assert scores.record["resize"] == "299 px by the network's file"


def test_the_architecture_is_that_of_the_published_weights(untrained):
    """Its known number of parameters with 1008 classes, and the names and shapes at its ends."""
    assert sum(p.numel() for p in untrained.parameters()) == 23_850_960
    state = untrained.state_dict()
    assert state["Conv2d_1a_3x3.conv.weight"].shape == (32, 3, 3, 3)
    assert state["Mixed_6c.branch7x7dbl_4.conv.weight"].shape == (160, 160, 7, 1)
    assert state["Mixed_7c.branch3x3dbl_3b.bn.running_var"].shape == (384,)
    assert state["fc.weight"].shape == (1008, 2048)
    assert len([k for k in state if k.endswith("conv.weight")]) == 94


def test_means_at_the_border_are_of_the_picture_alone():
    """A picture of ones stays one: zeros outside would show at the border. The last block takes the maximum."""
    ones = torch.ones(1, 2, 5, 5)
    for pool in ("mean", "max"):
        unit = Unit(2, 1, 1).eval()
        nn.init.constant_(unit.conv.weight, 0.5)
        block = Mixed({"branch_pool": unit}, [], pool).eval()
        torch.testing.assert_close(block(ones), torch.full((1, 1, 5, 5), 1 / (1 + 1e-3) ** 0.5))
    half = Mixed({"a": Unit(2, 3, 3, 2)}, [["a"]], "half").eval()
    assert half(ones).shape == (1, 5, 2, 2)


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_state_dict_is_the_network_resized_to_299(untrained, kind, tmp_path):
    """Counts of batches may be absent, as in old files. Two ranges: pixels become [-1, 1] again."""
    state = {k: v for k, v in untrained.state_dict().items() if not k.endswith("num_batches_tracked")}
    path = tmp_path / f"weights.{kind}"
    if kind == "pth":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    x = bytes_of(draw(2, c=1)).float()[:, :1] / 127.5 - 1
    chosen = features(f"inception:{path}")
    wide = nn.functional.interpolate(x.expand(-1, 3, -1, -1), (299, 299), mode="bilinear", align_corners=False)
    with torch.no_grad():
        expected = untrained(wide)
    got = chosen(x)
    assert got.shape == (2, 2048)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert chosen.resize == "299 px, bilinear"


def test_bad_files_are_named(untrained, scripted, tmp_path):
    x = draw(4)
    with pytest.raises(ValueError, match="inception:FILE"):
        features("inception")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        features("inception:nowhere.pt")
    (tmp_path / "a.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="neither a TorchScript archive nor a state dict"):
        features(f"inception:{tmp_path / 'a.pt'}")(x)
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(StandIn))
    with pytest.raises(ValueError, match="reading it runs its author's code"):
        features(f"inception:{tmp_path / 'b.pkl'}")(x)
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, tmp_path / "c.pth")
    with pytest.raises(ValueError, match="tensors differ, the first Conv2d_1a_3x3"):
        features(f"inception:{tmp_path / 'c.pth'}")(x)
    torch.save([1, 2], tmp_path / "d.pth")
    with pytest.raises(ValueError, match="holds a list"):
        features(f"inception:{tmp_path / 'd.pth'}")(x)
    with pytest.raises(ValueError, match="does not take"):
        features(f"inception:{script(Other(), tmp_path / 'e.pt')}")(x)
    with pytest.raises(ValueError, match=r"pictures \(n, 1 or 3, H, W\), got \(4, 2\)"):
        features(f"inception:{scripted}")(torch.zeros(4, 2))
