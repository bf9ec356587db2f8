"""The transformer's own laws: sets have no order, grids have places, patches are invertible."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from driftfield.network.transformer import Transformer


def stirred(network: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in network.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network.double().eval()


def drawn(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(2)
    return torch.randn(*shape, generator=rng, dtype=torch.float64), torch.randn(shape[0], generator=rng)


def test_a_set_has_no_order():
    network = stirred(Transformer((9, 3), patch=0, width=32, depth=3))
    x, noise = drawn(4, 9, 3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    out = network(x, noise)
    assert torch.allclose(network(x[:, order], noise), out[:, order], rtol=0, atol=1e-12)
    assert (out[:, order] - out).abs().max() > 0.01
    moved = x.clone()
    moved[:, 0] += 1
    assert ((network(moved, noise) - out)[:, 1:].abs().amax((1, 2)) > 1e-4).all()  # the points do see each other


def test_a_set_of_another_size_and_of_equal_points():
    network = stirred(Transformer((9, 3), patch=0, width=32, depth=2))
    x, noise = drawn(2, 1, 3)
    one = network(x, noise)
    assert one.shape == (2, 1, 3)
    many = network(x.expand(2, 17, 3), noise)  # equal points attend to equal points: each as if alone
    assert torch.allclose(many, one.expand(2, 17, 3), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("shape", "patch"), [((2, 12), 3), ((2, 6, 6), 2), ((1, 4, 4, 4), 2)])
def test_a_grid_has_places(shape, patch):
    """The same content in every patch comes out different in every patch, transposed ones included."""
    network = stirred(Transformer(shape, patch=patch, width=32, depth=2))
    x, noise = drawn(1, *shape)
    tokens = network._split(network(torch.ones_like(x), noise))[0]
    apart = torch.cdist(tokens, tokens) + torch.eye(len(tokens))
    assert apart.min() > 1e-3


@pytest.mark.parametrize(
    ("shape", "patch"), [((2, 12), 3), ((3, 6, 8), (3, 2)), ((3, 6, 8), (6, 8)), ((2, 4, 2, 6), (2, 1, 3))]
)
def test_patches_do_not_mix_and_join_undoes_split(shape, patch):
    network = Transformer(shape, patch=patch, width=16, heads=2, depth=1)
    x, _ = drawn(2, *shape)
    for layout in [torch.contiguous_format] + [torch.channels_last] * (len(shape) == 3):
        tokens = network._split(x.contiguous(memory_format=layout))
        assert torch.equal(network._join(tokens), x)
    sides = (patch,) * (len(shape) - 1) if isinstance(patch, int) else patch
    first = x[(slice(None), slice(None), *(slice(p) for p in sides))]  # the corner patch is the first token
    assert torch.equal(tokens[:, 0], first.flatten(1))


def test_channels_last_changes_nothing():
    network = stirred(Transformer((3, 8, 8), width=32, depth=2))
    x, noise = drawn(2, 3, 8, 8)
    last = network(x.to(memory_format=torch.channels_last), noise)
    assert torch.allclose(last, network(x, noise), rtol=0, atol=1e-12)
