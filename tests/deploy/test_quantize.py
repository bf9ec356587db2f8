"""Whole numbers for weights: exact where they can be, within half a scale where they cannot, and truly smaller."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from driftfield.deploy.export import difference, export, load_exported
from driftfield.deploy.quantize import Footprint, footprint, quantized, whole
from driftfield.rng import integers, normal, seeded

from .common import recipe, stirred

pytest.importorskip("torchao")
LAYERS = {
    "linear": (lambda: nn.Linear(64, 10), (3, 64)),
    "odd": (lambda: nn.Linear(33, 10), (3, 33)),
    "one channel": (lambda: nn.Conv2d(1, 4, 3), (3, 1, 5, 5)),
    "conv1d": (lambda: nn.Conv1d(6, 4, 3), (3, 6, 9)),
    "conv2d": (lambda: nn.Conv2d(32, 4, 3), (3, 32, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 3), (3, 2, 4, 4, 4)),
}


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    build, shape = LAYERS[name]
    layer = nn.Sequential(build()).double().requires_grad_(False)
    for p in layer.parameters():
        p.copy_(normal(p, seeded(1)))
    return layer, normal(torch.empty(shape, dtype=torch.float64), seeded(2))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", LAYERS)
def test_a_weight_moves_by_at_most_half_a_scale(name, bits):
    """The scale is the largest that the numbers reach: of the group's values above 0 over `2^(b-1) - 1`, below over
    `2^(b-1)`. Groups are 32 weights at 4 bits where they divide the row, else the row. Numbers are chosen in float32,
    which moves 127 scales by 127 * 2^-24 = 8e-6 of one, twice."""
    layer, x = made(name)
    small = quantized(layer, bits)
    before, after = layer[0].weight, small[0].weight
    rows = before.flatten(1)
    group = 32 if bits == 4 and rows.shape[1] % 32 == 0 else rows.shape[1]
    parts = rows.reshape(-1, group)
    top = 2 ** (bits - 1)
    scale = torch.maximum(parts.amax(1) / (top - 1), -parts.amin(1) / top)
    error = (after - before).flatten(1).reshape(-1, group).abs() / scale[:, None]
    assert error.max() <= 0.5 + 2e-5
    assert error.max() > 0.25  # and no finer than it claims: of at least 33 errors even on [0, 1/2], one is above
    assert after.shape == before.shape
    assert after.dtype == before.dtype
    torch.testing.assert_close(small(x), nn.Sequential(_with(layer[0], after))(x), rtol=0, atol=1e-12)
    assert isinstance(layer[0].weight, nn.Parameter), "the model itself is left alone"


def _with(layer: nn.Module, weight: torch.Tensor) -> nn.Module:
    from copy import deepcopy

    other = deepcopy(layer)
    other.weight = nn.Parameter(weight, requires_grad=False)
    return other


@pytest.mark.parametrize("bits", [8, 4])
def test_what_the_numbers_can_say_is_kept_exactly(bits):
    """Multiples of 1/64 whose least is `-2^(b-1) / 64`: the scale is 1/64, a power of 2, and nothing moves."""
    top = 2 ** (bits - 1)
    numbers = integers(torch.empty(8, 64), 2 * top, seeded(3)) - top
    numbers[:, ::32] = -top
    layer = nn.Linear(64, 8).requires_grad_(False)
    layer.weight.copy_(numbers / 64)
    assert torch.equal(quantized(nn.Sequential(layer), bits)[0].weight, layer.weight)
    found, scale = whole(layer.weight, bits)
    assert torch.equal(found, numbers.to(torch.int8))
    assert torch.equal(scale, torch.full_like(scale, 1 / 64))


def test_the_bytes_are_what_they_should_be():
    layer = nn.Sequential(nn.Linear(64, 10), nn.Embedding(5, 7)).requires_grad_(False)
    rest = 4 * 10 + 4 * 35  # the bias and the table
    assert footprint(layer) == Footprint(4 * 640, rest)
    assert footprint(quantized(layer, 8)) == Footprint(640 + 4 * 10, rest)
    assert footprint(quantized(layer, 4)) == Footprint(320 + 4 * 20, rest)


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_quantised_network_is_exported_small(suffix, tmp_path):
    """In files too: of 1.6 MB of weights a quarter or an eighth is left, and at most 0.2 MB of graph comes on top.

    What runs there is the quantised network. Its output moves less at 8 bits, by some 127 / 7 = 18 times.
    """
    pytest.importorskip("onnxruntime")
    plan = recipe("wide")
    denoiser = stirred(plan)
    moved = []
    for bits in (8, 4):
        small = quantized(denoiser, bits)
        told = export(small, plan, tmp_path / f"m{suffix}")
        assert told.error < 1e-5
        assert footprint(denoiser).total > 1.6e6
        assert footprint(small).total < told.bytes < footprint(small).total + 2e5
        _, program, _ = load_exported(told.path)
        moved.append(difference(program, denoiser, plan))
        assert moved[-1] == pytest.approx(difference(small, denoiser, plan), rel=0.01)
    assert 0 < 4 * moved[0] < moved[1]


def test_a_quantised_state_is_loaded_like_any_other():
    layer, x = made("conv2d")
    small, other = quantized(layer, 4), quantized(nn.Sequential(nn.Conv2d(32, 4, 3)).double(), 4)
    other.load_state_dict(small.state_dict())
    assert torch.equal(other(x), small(x))


def test_refusals(monkeypatch):
    layer, _ = made("linear")
    with pytest.raises(ValueError, match="8 or 4 bits, got bits=2"):
        quantized(layer, 2)
    with pytest.raises(ValueError, match="Sequential has no linear or convolutional layer"):
        quantized(quantized(layer))
    monkeypatch.setitem(sys.modules, "torchao.quantization.quant_primitives", None)
    with pytest.raises(ImportError, match=r"pip install 'driftfield\[quantize\]'"):
        quantized(layer)
