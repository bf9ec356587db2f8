"""The U-Net's own laws: layout, sizes, levels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from driftfield.network.attention import SelfAttention
from driftfield.network.unet import UNet


def stirred(network: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in network.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network.to(dtype).eval()


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(2)
    return torch.randn(*shape, generator=rng, dtype=dtype), torch.randn(shape[0], generator=rng, dtype=dtype)


@pytest.mark.parametrize(
    ("shape", "layout"), [((3, 12, 7), torch.channels_last), ((2, 6, 4, 5), torch.channels_last_3d)]
)
def test_channels_last_changes_the_layout_only(shape, layout):
    network = stirred(UNet(shape, width=8, multipliers=(1, 2), attention=(6,)))
    x, noise = drawn(2, *shape)
    plain, last = network(x, noise), network(x.to(memory_format=layout), noise)
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=layout)
    assert not last.is_contiguous()
    assert torch.allclose(plain, last, rtol=0, atol=1e-12)
    moved = network.to(memory_format=layout)(x.to(memory_format=layout), noise)
    assert moved.stride() == last.stride()
    assert torch.allclose(plain, moved, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7), (2, 6, 4, 5)])
def test_every_convolution_reads_channels_last(shape):
    """A layout lost on the way costs a copy at every convolution that follows; none may be lost, odd sizes included."""
    network = stirred(UNet(shape, width=8, multipliers=(1, 2)), torch.float32)
    layout = torch.channels_last if len(shape) == 3 else torch.channels_last_3d
    seen: list[bool] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d) and module is not network.stem:
            module.register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous(memory_format=layout)))
    network(*drawn(2, *shape, dtype=torch.float32))
    assert len(seen) > 8
    assert all(seen)


@pytest.mark.parametrize("grid", [(4,), (5,), (31,), (4, 4), (7, 7), (28, 28), (13, 4), (5, 4, 7)])
def test_any_grid_of_at_least_two_to_the_levels_less_one(grid):
    network = stirred(UNet((2, *grid), width=8))
    x, noise = drawn(2, 2, *grid)
    out = network(x, noise)
    assert out.shape == x.shape
    assert out.isfinite().all()


def test_other_grids_than_the_one_it_was_built_for():
    network = stirred(UNet((1, 8, 8), width=8))
    assert network(*drawn(2, 1, 6, 11)).shape == (2, 1, 6, 11)
    with pytest.raises(ValueError, match=r"at least 4 points along every axis, got a grid of \(8, 3\)"):
        network(*drawn(2, 1, 8, 3))


def test_convolutions_commute_with_shifts_and_reach_six_points():
    """One level without attention and normalisation is two blocks of two 3-point convolutions, the stem and the last
    one: a point sees 6 points each way. So a cyclic shift by 3 commutes with the network at points more than 6 + 3 from
    the borders, and a change at point 0 is felt at points 0 to 6 and nowhere else.
    """
    network = stirred(UNet((1, 40), width=8, multipliers=(1,), attention=()))
    for module in network.modules():
        for key, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, key, nn.Identity())
    x, noise = drawn(1, 1, 40)
    out = network(x, noise)
    assert torch.allclose(network(x.roll(3, 2), noise)[..., 10:-10], out.roll(3, 2)[..., 10:-10], rtol=0, atol=1e-12)
    touched = x.clone()
    touched[..., 0] += 1
    felt = (network(touched, noise) - out)[0, 0].abs() > 1e-12
    assert felt[:7].all()
    assert not felt[7:].any()


@pytest.mark.parametrize(
    ("shape", "attention", "count"),
    [
        ((1, 28, 28), None, 2),
        ((1, 28, 28), (14,), 2),
        ((1, 28, 28), (), 0),
        ((1, 8, 8), None, 6),
        ((1, 28, 9), (7, 28), 4),
    ],
)
def test_attention_at_the_named_sizes(shape, attention, count):
    network = UNet(shape, width=8, attention=attention)
    assert sum(isinstance(m, SelfAttention) for m in network.modules()) == count


@pytest.mark.parametrize(
    ("shape", "options", "parameters"),
    [
        ((1, 8, 8), {"width": 32}, 567_297),
        ((1, 28, 28), {"width": 16, "multipliers": (1, 2, 4)}, 272_385),
        ((1, 28, 28), {"width": 32, "multipliers": (1, 2, 4)}, 1_075_713),
        ((3, 32, 32), {"width": 32, "multipliers": (1, 2, 4)}, 1_076_867),
    ],
)
def test_sizes_quoted_in_benchmarks(shape, options, parameters):
    assert sum(p.numel() for p in UNet(shape, **options).parameters()) == parameters
