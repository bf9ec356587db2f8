"""The published U-Nets: names and sizes of the parameters, and outputs of the published code on given weights."""

from __future__ import annotations

import math

import pytest
import torch

from driftfield.network.embed import Condition
from driftfield.network.song import ADM, SongUNet

F64 = torch.float64
SMALL = {
    "ddpmpp": lambda **kw: SongUNet(16, width=16, multipliers=(1, 2, 2), blocks=2, attention=(8,), **kw),
    "ncsnpp": lambda **kw: SongUNet(16, width=16, multipliers=(1, 2, 2), blocks=2, attention=(8,), kind="ncsnpp", **kw),
    "adm": lambda **kw: ADM(16, width=64, multipliers=(1, 2), blocks=1, attention=(8,), **kw),
}
# Standard deviation and first three values of the outputs of the code published with Karras et al. 2022, run once in
# float64 on the weights and inputs of `filled` and `run`: without labels, then with 4 classes and 5 augmentations.
PUBLISHED = {
    ("ddpmpp", False): (0.31649425751150556, -0.18817648223947603, -0.232548634440113, -0.2092703142430177),
    ("ddpmpp", True): (0.2721401386854777, -0.22630545637618185, -0.3109976181657012, -0.3001730003087033),
    ("ncsnpp", False): (0.25759359700685747, -0.22879873166388354, -0.32354645425362744, -0.31554712349814845),
    ("ncsnpp", True): (0.32772717162459153, -0.18605677206527402, -0.22400307491979238, -0.22073202141090406),
    ("adm", False): (0.3010581932772421, 1.017097620466966, 1.0462988130177118, 1.0081217649048302),
    ("adm", True): (0.2536664590879031, -0.2672384682057827, -0.030572441029999176, -0.000722316873840112),
}


def filled(net):
    """Give every parameter values that depend on its place in the sorted list of names alone."""
    with torch.no_grad():
        for i, (name, p) in enumerate(sorted(net.named_parameters())):
            wave = torch.sin(torch.arange(p.numel(), dtype=F64) * 0.7 + i) * 0.5
            wave = wave / math.sqrt(p[0].numel() if p.ndim > 1 else 1)
            p.copy_((1 + 0.3 * wave if p.ndim == 1 and name.endswith("weight") else wave).reshape(p.shape))
        for name, b in net.named_buffers():
            if name.endswith("freqs"):
                b.copy_(torch.linspace(-2, 2, len(b)))
    return net.double().eval()


def run(net, told):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 16, 16, dtype=F64, generator=g)
    cond = Condition(torch.tensor([1, 2]), torch.randn(2, 5, dtype=F64, generator=g)) if told else None
    with torch.no_grad():
        return net(x, torch.tensor([-1.3, 0.4], dtype=F64), cond)


@pytest.mark.parametrize(("kind", "told"), sorted(PUBLISHED))
def test_outputs_are_those_of_the_published_code(kind, told):
    """To 1e-8: the published attention is computed in float32, which is worth some 1e-10 here."""
    net = SMALL[kind](labels=4, augments=5) if told else SMALL[kind]()
    out = run(filled(net), told)
    found = torch.stack((out.std(), *out.flatten()[:3]))
    torch.testing.assert_close(found, torch.tensor(PUBLISHED[kind, told], dtype=F64), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: SongUNet(augments=9), 55_733_891),
        (SongUNet, 55_732_739),
        (lambda: SongUNet(labels=10, augments=9, kind="ncsnpp"), 56_400_643),
        (lambda: ADM(labels=1000), 295_899_267),
    ],
)
def test_parameter_counts_of_the_published_models(make, count):
    """CIFAR-10 DDPM++ (55.7 M) with and without augmentation, NCSN++ with classes, ImageNet-64 ADM (295.9 M)."""
    with torch.device("meta"):
        net = make()
    assert sum(p.numel() for p in net.parameters()) == count


def test_names_of_the_cifar_network():
    with torch.device("meta"):
        names = set(SongUNet(augments=9).state_dict())
    for name in (
        "map_augment.weight",
        "map_layer0.bias",
        "enc.32x32_conv.weight",
        "enc.16x16_down.conv0.resample_filter",
        "enc.16x16_down.skip.weight",
        "enc.16x16_block3.qkv.bias",
        "dec.8x8_in0.proj.weight",
        "dec.16x16_up.norm1.bias",
        "dec.32x32_block4.affine.weight",
        "dec.32x32_aux_norm.weight",
        "dec.32x32_aux_conv.bias",
    ):
        assert name in names
    assert not any("enc.32x32_block0.qkv" in name for name in names)


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_unlabelled_rows_and_none_are_alike(kind):
    net = filled(SMALL[kind](labels=4))
    x, noise = torch.ones(2, 3, 16, 16, dtype=F64), torch.zeros(2, dtype=F64)
    with torch.no_grad():
        torch.testing.assert_close(net(x, noise), net(x, noise, torch.tensor([-1, -1])))
        assert (net(x, noise) - net(x, noise, torch.tensor([0, 0]))).abs().max() > 1e-5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SongUNet(kind="ddpm"), "'ddpmpp' or 'ncsnpp'"),
        (lambda: SongUNet(30), "halve the size 30"),
        (lambda: SongUNet(width=6), "multiple of 4"),
        (lambda: SMALL["adm"]()(torch.zeros(2, 3, 8, 8), torch.zeros(2)), r"takes x of shape \(B, 3, 16, 16\)"),
        (lambda: SMALL["adm"]()(torch.zeros(2, 3, 16, 16), torch.zeros(())), "one number per row"),
        (lambda: SMALL["adm"]()(torch.zeros(2, 3, 16, 16), torch.zeros(2), torch.tensor([0, 1])), "without labels"),
        (
            lambda: SMALL["ddpmpp"]()(torch.zeros(2, 3, 16, 16), torch.zeros(2), Condition(augment=torch.zeros(2, 9))),
            "without augments",
        ),
    ],
)
def test_bad_sizes_and_inputs_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
