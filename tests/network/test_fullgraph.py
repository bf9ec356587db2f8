"""`torch.compile(fullgraph=True)`: one graph, the same function, the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from driftfield.network.mlp import MLP
from driftfield.network.transformer import Transformer
from driftfield.network.unet import UNet

CASES = {
    "mlp": (lambda: MLP((3,), width=16, depth=1, classes=2), (3,)),
    "unet-1d": (lambda: UNet((1, 9), width=8, multipliers=(1, 2), classes=2), (1, 9)),
    "unet-2d": (lambda: UNet((1, 7, 7), width=8, multipliers=(1, 2), classes=2), (1, 7, 7)),
    "unet-3d": (lambda: UNet((1, 4, 3, 5), width=8, multipliers=(1, 2), classes=2), (1, 4, 3, 5)),
    "transformer": (lambda: Transformer((1, 4, 4), width=16, depth=1, classes=2), (1, 4, 4)),
    "set": (lambda: Transformer((4, 3), patch=0, width=16, depth=1, classes=2), (4, 3)),
}


def made(name: str) -> tuple[nn.Module, tuple[Tensor, Tensor, Tensor]]:
    build, shape = CASES[name]
    torch._dynamo.reset()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = build()
        for parameter in network.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    rng = torch.Generator().manual_seed(2)
    return network, (torch.randn(2, *shape, generator=rng), torch.randn(2, generator=rng), torch.tensor([1, -1]))


@pytest.mark.parametrize("name", CASES)
def test_one_graph_with_the_same_values_and_gradients(name):
    network, batch = made(name)
    eager, out = network(*batch), torch.compile(network, fullgraph=True, backend="aot_eager")(*batch)
    assert torch.allclose(out, eager, rtol=1e-4, atol=1e-5)  # float32, sums in another order
    wanted = torch.autograd.grad(eager.square().sum(), tuple(network.parameters()))
    found = torch.autograd.grad(out.square().sum(), tuple(network.parameters()))
    scale = max(g.abs().max().item() for g in wanted)
    assert all(torch.allclose(f, w, rtol=1e-3, atol=1e-5 * scale) for f, w in zip(found, wanted, strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
def test_generated_code_gives_the_same_values():
    network, batch = made("mlp")
    with torch.no_grad(), torch._inductor.config.patch(cpp_cache_precompile_headers=False):
        out = torch.compile(network, fullgraph=True)(*batch)
        assert torch.allclose(out, network(*batch), rtol=1e-4, atol=1e-5)
