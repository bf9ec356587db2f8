"""Weights of published EDM networks: rebuilt from names and shapes, read without running anything."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

import driftfield as df
from driftfield.adapt.edm import edm_network
from tests.network.test_song import SMALL, filled, run


class Runs:
    """What unpickling would run."""

    def __reduce__(self):
        return print, ("the pickle ran",)


def prefixed(net):
    return {f"model.{k}": v for k, v in net.state_dict().items()}


@pytest.mark.parametrize("kind", sorted(SMALL))
@pytest.mark.parametrize("told", [False, True])
def test_the_network_is_rebuilt_from_its_state(kind, told):
    net = filled(SMALL[kind](labels=4, augments=5) if told else SMALL[kind]())
    again = edm_network(prefixed(net)).double().eval()
    assert type(again) is type(net)
    out = run(net, told)
    # the state was stored in float64 and is held in float32 until then: rounding, through the whole network
    assert (run(again, told) - out).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_files_of_tensors_are_read(name, tmp_path, rng):
    net = filled(SMALL["ddpmpp"]()).float()
    state = {k: v.contiguous() for k, v in net.state_dict().items()}
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    denoiser = df.from_edm(tmp_path / name)
    x = torch.randn(3, 3, 16, 16, generator=rng)
    sigma = torch.tensor([0.1, 1.0, 20.0])
    s = sigma.reshape(-1, 1, 1, 1)
    total = (s**2 + 0.25).sqrt()
    with torch.no_grad():
        wanted = 0.25 / total**2 * x + 0.5 * s / total * net(x / total, sigma.log() / 4)
    torch.testing.assert_close(denoiser(x, sigma), wanted, rtol=1e-4, atol=1e-5)
    assert not any(p.requires_grad for p in denoiser.parameters())
    assert df.generate(df.EDM(), denoiser, (2, 3, 16, 16), nfe=3).isfinite().all()


def test_constants_may_be_left_out():
    net = filled(SMALL["ncsnpp"]())
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("resample_filter")}
    assert (run(edm_network(state).double().eval(), False) - run(net, False)).abs().max() < 1e-4


def test_code_in_a_pickle_is_not_run(tmp_path, capsys):
    path = tmp_path / "network-snapshot.pkl"
    path.write_bytes(pickle.dumps({"ema": Runs()}))
    with pytest.raises(ValueError, match=r"not opened: .*torch\.save\(net\.state_dict\(\)"):
        df.from_edm(path)
    torch.save({"ema": Runs()}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"not opened: .*torch\.save\(net\.state_dict\(\)"):
        df.from_edm(tmp_path / "x.pt")
    assert capsys.readouterr().out == ""


def test_other_weights_are_refused(tmp_path):
    state = prefixed(SMALL["ddpmpp"]())
    for change, message in (
        (lambda s: {"conv.weight": torch.zeros(3)}, "not the weights of a published EDM network"),
        (
            lambda s: {k: v for k, v in s.items() if "norm2" not in k},
            r"lack dec\.4x4_in0\.norm2\.bias and \d+ more of a Song",
        ),
        (lambda s: s | {"model.extra": torch.zeros(3)}, "hold extra, which a SongUNet does not have"),
        (lambda s: s | {"model.map_layer1.bias": torch.zeros(3)}, r"map_layer1\.bias has shape \(3,\), not \(64,\)"),
        (lambda s: s | {"model.enc.8x8_aux_skip.weight": torch.zeros(3)}, "by skips, which is not supported"),
        (lambda s: s | {"epoch": 3}, "'epoch' is a int"),
    ):
        with pytest.raises(ValueError, match=message):
            df.from_edm(change(dict(state)))
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list"):
        df.from_edm(tmp_path / "list.pt")
    with pytest.raises(FileNotFoundError):
        df.from_edm(tmp_path / "none.pt")
