"""Codes stand for the data: an autoencoder that loses nothing gives back every byte, and the scaling is exact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from driftfield.data.autoencoder import Autoencoder, digest_of
from driftfield.data.digits import Digits
from driftfield.data.latent import Latent, LatentInfo
from driftfield.data.memory import InMemory
from driftfield.plain import Build, from_plain, to_plain
from driftfield.rng import integers, normal, seeded
from driftfield.train.fit import fit
from driftfield.train.session import session
from tests.train.common import TINY

HERE = "tests.data.test_latent"


class Rotation(nn.Module):
    """Digits turned by a random orthogonal matrix, as 4 channels of 4 x 4: nothing is lost."""

    calls = 0

    def __init__(self, size: float = 1.0, shift: float = 0.0):
        super().__init__()
        q, _ = torch.linalg.qr(normal(torch.empty(64, 64, dtype=torch.float64), seeded(7)))
        self.register_buffer("turn", q.float())
        self.size, self.shift = size, shift

    def encode(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return (x.flatten(1) @ self.turn * self.size + self.shift).reshape(-1, 4, 4, 4)

    def decode(self, z: Tensor) -> Tensor:
        return ((z.flatten(1) - self.shift) / self.size @ self.turn.T).reshape(-1, 1, 8, 8)


class Boxed(Rotation):
    """The same, handing out objects as diffusers' autoencoders do."""

    def encode(self, x):
        mode = super().encode(x)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: mode))

    def decode(self, z):
        return SimpleNamespace(sample=super().decode(z))


class Fresh(nn.Module):
    """An autoencoder with weights, which its constructor draws."""

    def __init__(self, width: int = 2):
        super().__init__()
        self.into, self.out = nn.Conv2d(1, width, 2, 2), nn.ConvTranspose2d(width, 1, 2, 2)

    def encode(self, x):
        return self.into(x)

    def decode(self, z):
        return self.out(z)


CODED = Latent(Digits(), Autoencoder(Build(f"{HERE}:Rotation")))


@pytest.mark.parametrize("name", ["Rotation", "Boxed"])
def test_nothing_is_lost(name):
    """Every training and held-out image comes back, byte for byte, and the splits are the inner data's: a rotation
    in float32 is off by 64 * 6e-8 of values below 10 at most, far from half a byte, 1 / 255."""
    bytes_ = integers(torch.empty(300, 8, 8), 256, seeded(8)).to(torch.uint8)
    data = InMemory.of(bytes_, integers(torch.empty(300), 3, seeded(9)))
    source, inner = Latent(data, Autoencoder(Build(f"{HERE}:{name}"))).load(), data.load()
    assert source.info.shape == (4, 4, 4)
    assert source.seen.info == inner.info == source.info.seen
    for split in ("train", "held"):
        codes, labels = getattr(source, split)()
        images, wanted = getattr(inner, split)()
        assert torch.equal(labels, wanted)
        shown = source.info.to_user(codes)
        assert shown.dtype == np.uint8
        assert shown.shape == (len(images), 8, 8)
        np.testing.assert_array_equal(shown, inner.info.to_user(images))
        torch.testing.assert_close(source.info.to_model(shown), codes, rtol=0, atol=1e-4)


def test_the_scaling_is_exact_and_forgets_the_autoencoders_own():
    """Each channel has mean 0 and deviation 1 over the training split: 1,617 * 16 values of float32, each off by at
    most 2^-24 of its size below 8, so 5e-7. Any affine map of the codes is undone."""
    source = CODED.load()
    codes = source.train()[0].double().transpose(0, 1).flatten(1)
    assert codes.mean(1).abs().max() < 5e-7
    assert (codes.std(1, correction=0) - 1).abs().max() < 5e-7
    assert source.info.std == pytest.approx(1, abs=1e-6)
    other = replace(CODED, autoencoder=Autoencoder(Build(f"{HERE}:Rotation", {"size": 0.18, "shift": 3.0}))).load()
    torch.testing.assert_close(other.train()[0], source.train()[0], rtol=0, atol=2e-5)
    assert other.info.scales == pytest.approx([0.18 * s for s in source.info.scales], rel=1e-6)


def test_a_run_is_resumed_and_draws_images(tmp_path):
    recipe = replace(
        TINY,
        data=CODED,
        objective=replace(TINY.objective, augment=None),
        network=Build("driftfield.network.unet:UNet", {"width": 8, "multipliers": (1, 2), "attention": ()}),
        training=replace(TINY.training, steps=6, save_every=3, held_every=3, show_every=3),
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(session(recipe, CODED.load(), whole, print))
    first = session(recipe, CODED.load(), parts, print)
    for report in first:
        if report.step == 4:
            break
    first.close()
    list(session(recipe, CODED.load(), parts, print))
    made = fit(CODED, folder=tmp_path / "fit", steps=3, settings=["network.width=8"], progress=False)
    assert isinstance(made.info, LatentInfo)
    drawn = made.sample(3, nfe=3, cond=torch.tensor([1, 2, 3]))
    assert drawn.shape == (3, 8, 8)
    assert drawn.dtype == np.uint8
    from driftfield.train.load import load

    a, b = (load(f / "last.safetensors", trust=("tests",)) for f in (whole, parts))
    assert a[2].info == b[2].info == CODED.load().info
    for p, q in zip(a[1].parameters(), b[1].parameters(), strict=True):
        assert torch.equal(p, q)
    assert (whole / "samples" / "00000006.png").exists()


def test_codes_are_kept_in_a_file(tmp_path, monkeypatch):
    kept = replace(CODED, cache=str(tmp_path / "codes.safetensors"))
    first, calls = kept.load(), Rotation.calls
    again = kept.load()
    assert Rotation.calls == calls
    assert again.info == first.info
    assert torch.equal(again.train()[0], first.train()[0])
    assert torch.equal(again.held()[1], first.held()[1])
    with monkeypatch.context() as patch:  # a sum that other threads took differs in its last digits
        source = Digits().load()
        source.info = replace(source.info, std=source.info.std * (1 + 1e-12))
        patch.setattr(Digits, "load", lambda data: source)
        assert torch.equal(kept.load().train()[0], first.train()[0])
        source.info = replace(source.info, std=source.info.std * (1 + 1e-6))
        with pytest.raises(ValueError, match="holds the codes of other data"):
            kept.load()
    with pytest.raises(ValueError, match="holds the codes of other data or of another autoencoder"):
        replace(kept, data=Digits(held=0.2)).load()
    (tmp_path / "codes.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="cannot be read as cached codes"):
        kept.load()


def test_the_file_that_names_it_is_read_with_trust_only():
    info = replace(CODED.load().info)
    text = json.dumps(to_plain(info))
    assert from_plain(json.loads(text), ("tests",)) == info
    with pytest.raises(ValueError, match="outside the trusted modules"):
        from_plain(json.loads(text))
    evil = text.replace(f"{HERE}:Rotation", "os:system")
    with pytest.raises(ValueError, match="is not a network"):
        from_plain(json.loads(evil), ("tests", "os", "posix"))


def test_an_autoencoder_in_memory():
    module = Fresh(3)
    coded = Latent(Digits(), Autoencoder.of(module))
    info = coded.load().info
    read: LatentInfo = from_plain(json.loads(json.dumps(to_plain(info))))
    assert read == info
    x = normal(torch.empty(2, 3, 4, 4), seeded(1))
    assert torch.equal(read.decode(x), info.decode(x))  # found by its digest
    with torch.no_grad():
        module.out.bias += 1
    with pytest.raises(ValueError, match="has other weights than the one whose codes were learned"):
        read.decode(x)
    elsewhere = replace(read, autoencoder=Autoencoder(digest="0" * 64))
    with pytest.raises(ValueError, match=r"hand it over again with Autoencoder.of\(module\)"):
        elsewhere.decode(x)


def test_weights_come_from_a_file(tmp_path):
    trained = Fresh()
    save_file(trained.state_dict(), tmp_path / "ae.safetensors")
    build, x = Build(f"{HERE}:Fresh"), normal(torch.empty(2, 1, 8, 8), seeded(2))
    opened = Autoencoder(build, str(tmp_path / "ae.safetensors")).opened()
    assert opened.digest == digest_of(trained)
    torch.testing.assert_close(opened.encode(x), trained.encode(x), rtol=0, atol=0)
    assert Autoencoder(build).opened().digest == Autoencoder(build).opened().digest, "drawn with one fixed seed"
    with pytest.raises(FileNotFoundError, match=r"no file .*none.safetensors"):
        Autoencoder(build, str(tmp_path / "none.safetensors")).opened()
    with pytest.raises(ValueError, match=r"are of another autoencoder .* see 'into.weight'"):
        Autoencoder(replace(build, options={"width": 5}), str(tmp_path / "ae.safetensors")).opened()
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        Autoencoder(build, str(tmp_path / "torn.safetensors")).opened()


class Mute(nn.Module):
    def encode(self, x):
        return x


class Dull(Rotation):
    def encode(self, x):
        return super().encode(x) * torch.tensor([1.0, 0.0, 1.0, 1.0]).reshape(4, 1, 1)


class Broken(Rotation):
    def encode(self, x):
        return super().encode(x) / 0


class Wordy(Rotation):
    def encode(self, x):
        return "codes"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("Mute", "Mute has no decode"),
        ("Dull", "channel 1 of the codes is the same for all"),
        ("Broken", "NaN or infinite for 1617 of 1617"),
        ("Wordy", "encode of the autoencoder returned a str"),
    ],
)
def test_autoencoders_that_cannot_be_used(name, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        replace(CODED, autoencoder=Autoencoder(Build(f"{HERE}:{name}"))).load()


def test_what_is_no_autoencoder(tmp_path):
    with pytest.raises(TypeError, match="Linear has no encode"):
        Autoencoder.of(nn.Linear(2, 2))
    with pytest.raises(FileNotFoundError, match=r"no import path .* and no folder"):
        Autoencoder.named(str(tmp_path))


@pytest.mark.slow
def test_one_of_diffusers(tmp_path):
    """`AutoencoderKL` as it is: from a folder it was saved in, and its scaling factor makes no difference."""
    diffusers = pytest.importorskip("diffusers")
    small = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 2, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    module = diffusers.AutoencoderKL(in_channels=1, out_channels=1, **small, **blocks).eval()
    module.save_pretrained(tmp_path)
    named = Autoencoder.named(str(tmp_path))
    assert named.build.target == "diffusers:AutoencoderKL"
    assert named.opened().digest == digest_of(module)
    images = normal(torch.empty(40, 1, 8, 8), seeded(3)).numpy()
    source = Latent(InMemory.of(images), named).load()
    assert source.info.shape == (2, 4, 4)
    x, _ = source.held()
    assert source.info.to_user(x).shape == (len(x), 1, 8, 8)
    other = diffusers.AutoencoderKL(in_channels=1, out_channels=1, scaling_factor=0.5, **small, **blocks).eval()
    other.load_state_dict(module.state_dict())
    assert torch.equal(Latent(InMemory.of(images), Autoencoder.of(other)).load().held()[0], x)


@pytest.mark.slow
def test_by_the_command_line(tmp_path):
    """Train, draw and score codes: what comes out are pictures, and the scores are of pictures."""
    code = "from tests.data.test_latent import *\n\nclass Mine(Rotation):\n    pass\n"
    (tmp_path / "mine.py").write_text(code)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}

    def cli(*words, status=0):
        done = subprocess.run(
            [sys.executable, "-m", "driftfield", *words], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == status, done.stderr
        return done

    cli("train", "digits", "--autoencoder", "mine:Mine", "--steps", "3", "--run", "r", "--cpu", "--set",
        "network.width=8", "--set", "data.autoencoder.build.size=2", "--set", "data.held=0.2")  # fmt: skip
    data = json.loads((tmp_path / "r" / "recipe.json").read_text())["data"]
    assert data["autoencoder"]["build"]["options"] == {"size": 2}
    assert data["data"]["held"] == 0.2
    assert "trusted modules" in cli("sample", "r", "-n", "2", "--nfe", "3", status=1).stderr
    cli("sample", "r", "-n", "2", "--nfe", "3", "--trust", "mine")
    names = {p.name for p in (tmp_path / "r" / "samples-0").iterdir()}
    assert names == {"00000.png", "00001.png", "grid.png", "record.json"}
    scores = json.loads(
        cli("evaluate", "r", "-n", "20", "--nfe", "3", "--features", "digits", "--trust", "mine", "--json").stdout
    )
    assert scores["n_reference"] == 359
