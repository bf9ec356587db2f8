"""What all three networks obey."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from driftfield.network.embed import Condition
from driftfield.network.mlp import MLP
from driftfield.network.transformer import Transformer
from driftfield.network.unet import UNet

CLASSES, AUGMENTS = 5, 3
BOTH = {"classes": CLASSES, "augments": AUGMENTS}
BUILD = {
    "mlp": lambda: MLP((6,), width=32, depth=2, waves=3, **BOTH),
    "mlp-2d": lambda: MLP((2, 3), width=32, depth=2, waves=0, **BOTH),
    "unet-1d": lambda: UNet((2, 13), width=8, blocks=2, attention=(4,), head=8, **BOTH),
    "unet-2d": lambda: UNet((3, 7, 7), width=16, attention=(4, 2), head=8, **BOTH),
    "unet-oblong": lambda: UNet((1, 5, 9), width=8, **BOTH),
    "unet-3d": lambda: UNet((1, 5, 4, 6), width=8, multipliers=(1, 2), **BOTH),
    "transformer-1d": lambda: Transformer((2, 12), patch=3, width=32, depth=2, **BOTH),
    "transformer-2d": lambda: Transformer((3, 6, 4), patch=(3, 2), width=32, depth=2, **BOTH),
    "transformer-3d": lambda: Transformer((1, 4, 2, 6), patch=2, width=32, depth=2, **BOTH),
    "transformer-set": lambda: Transformer((7, 3), patch=0, width=32, depth=2, **BOTH),
}
SHAPE = {
    "mlp": (6,), "mlp-2d": (2, 3), "unet-1d": (2, 13), "unet-2d": (3, 7, 7), "unet-oblong": (1, 5, 9),
    "unet-3d": (1, 5, 4, 6), "transformer-1d": (2, 12), "transformer-2d": (3, 6, 4), "transformer-3d": (1, 4, 2, 6),
    "transformer-set": (7, 3),
}  # fmt: skip
every = pytest.mark.parametrize("name", BUILD)


def made(name: str, stirred: bool = True, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The network `name` from a fixed seed; `stirred`, with noise on every parameter, so that no branch is 0."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = BUILD[name]()
        if stirred:
            for parameter in network.parameters():
                parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network.to(dtype).eval()


def drawn(name: str, batch: int = 4, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """A batch, its noise labels and its class labels."""
    rng = torch.Generator().manual_seed(2)
    x = torch.randn(batch, *SHAPE[name], generator=rng, dtype=dtype)
    return x, torch.randn(batch, generator=rng, dtype=dtype), torch.arange(batch) % CLASSES


@every
def test_a_fresh_network_is_zero_and_shaped_like_its_input(name):
    x, noise, label = drawn(name)
    out = made(name, stirred=False)(x, noise, label)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert out.count_nonzero() == 0


@every
def test_no_label_is_minus_one_exactly(name):
    network, (x, noise, label) = made(name), drawn(name)
    none = network(x, noise)
    assert none.isfinite().all()
    assert none.abs().mean() > 1e-3
    for cond in (-torch.ones_like(label), Condition(), Condition(-torch.ones_like(label), torch.zeros(4, AUGMENTS))):
        assert torch.equal(network(x, noise, cond), none)
    mixed = network(x, noise, torch.where(torch.tensor([True, False, True, False]), -1, label))
    assert torch.allclose(mixed[::2], none[::2], rtol=0, atol=1e-12)
    assert torch.allclose(mixed[1::2], network(x, noise, label)[1::2], rtol=0, atol=1e-12)


@every
def test_everything_given_matters(name):
    network, (x, noise, label) = made(name), drawn(name)
    out = network(x, noise, label)
    others = {
        "noise": network(x, noise + 0.3, label),
        "label": network(x, noise, (label + 1) % CLASSES),
        "augment": network(x, noise, Condition(label, torch.ones(4, AUGMENTS))),
        "x": network(x + 0.1, noise, label),
    }
    for what, other in others.items():
        changed = (other - out).flatten(1).abs().amax(1)
        assert (changed > 1e-4).all(), what


@every
def test_rows_do_not_see_each_other(name):
    network, (x, noise, label) = made(name), drawn(name)
    together = network(x, noise, label)
    alone = torch.cat([network(x[i : i + 1], noise[i : i + 1], label[i : i + 1]) for i in range(len(x))])
    assert torch.allclose(together, alone, rtol=0, atol=1e-12)


@every
def test_the_gradient_reaches_every_parameter(name):
    network, (x, noise, label) = made(name), drawn(name)
    out = network(x, noise, Condition(label, torch.ones(4, AUGMENTS)))
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 1e-9, key
        if parameter.ndim > 1 and "label" not in key:  # only some of the classes were there
            assert (parameter.grad.flatten(1).abs().amax(1) > 0).all(), f"some outputs of {key} go nowhere"


@every
def test_training_from_zero_wakes_every_parameter(name):
    """Two zeros in series (a shut gate before a projection at 0) would never open: neither has a gradient."""
    network, (x, noise, label) = made(name, stirred=False).train(), drawn(name)
    start = copy.deepcopy(dict(network.named_parameters()))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = (network(x, noise, Condition(label, torch.ones(4, AUGMENTS))) - x.tanh()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    for key, parameter in network.named_parameters():
        assert (parameter - start[key]).abs().max() > 1e-4, key


@every
def test_float32_agrees_with_float64(name):
    """A few tens of layers of float32 rounding, 6e-8 each, on outputs of order 1: 1e-4 leaves a factor of 50."""
    exact = made(name)(*drawn(name))
    x, noise, label = drawn(name)
    out = made(name, dtype=torch.float32)(x.float(), noise.float(), label)
    assert out.dtype == torch.float32
    assert (out - exact).abs().max() < 1e-4 * max(1.0, exact.abs().max().item())


@every
def test_bf16_autocast_stays_close(name):
    """bf16 keeps 8 bits, a relative rounding of 2^-9 per operation. Over some 20 roundings that add like independent
    errors the relative error is about 2^-9 sqrt(20) = 0.9 %; the bound is 5 %, in root mean square.
    """
    x, noise, label = drawn(name, dtype=torch.float32)
    network = made(name, dtype=torch.float32)
    exact = network(x, noise, label)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(x, noise, label)
        out.square().mean().backward()
    assert out.dtype == torch.float32  # reduced precision stays inside the network
    assert 0 < (out - exact).norm() / exact.norm() < 0.05
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


@every
def test_dropout_acts_in_training_only(name):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        network, (x, noise, label) = made(name), drawn(name)
        kept = network(x, noise, label)
        dropouts = [m for m in network.modules() if isinstance(m, nn.Dropout)]
        assert dropouts
        for module in dropouts:
            module.p = 0.5
        assert torch.equal(network(x, noise, label), kept)
        assert not torch.allclose(network.train()(x, noise, label), kept)


@every
def test_weights_alone_rebuild_the_function(name):
    """Fixed tables are not weights: a state dict of parameters is complete."""
    network, batch = made(name), drawn(name)
    other = BUILD[name]().double().eval()
    other.load_state_dict(network.state_dict())
    assert set(network.state_dict()) == {key for key, _ in network.named_parameters()}
    assert torch.equal(other(*batch), network(*batch))


def test_waves_tell_fine_structure_apart():
    """The stem sees `x` and, for wavelengths 8, 4 and 2, its sine and cosine: with the rest of the stem at 0 a shift by
    8 changes nothing, one by 4 changes the first wave only, which is then the only one that can tell. The table is kept
    in float32, so an angle of 8 x pi is off by 1e-6, and the output by that times its slope, of order 10.
    """
    network, (x, noise, label) = made("mlp"), drawn("mlp")
    weight = network.stem.weight.data
    weight[:, :6] = 0
    out = network(x, noise, label)
    assert torch.allclose(network(x + 8, noise, label), out, rtol=0, atol=1e-4)
    assert (network(x + 4, noise, label) - out).abs().max() > 1e-2
    weight[:, 6:].unflatten(1, (2, 6, 3))[..., 0] = 0  # sine and cosine, coordinates, wavelengths
    assert torch.allclose(network(x + 4, noise, label), network(x, noise, label), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["mlp", "unet-2d", "transformer-2d"])
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, in forward mode
def test_directional_derivatives(name):
    """Forward mode (a divergence, a consistency tangent) agrees with a central difference of error O(h^2)."""
    network, (x, noise, label) = made(name), drawn(name)
    v, h = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype), 1e-5
    with sdpa_kernel(SDPBackend.MATH):
        slope = torch.func.jvp(lambda x: network(x, noise, label), (x,), (v,))[1]
    difference = (network(x + h * v, noise, label) - network(x - h * v, noise, label)) / (2 * h)
    assert torch.allclose(slope, difference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "unet-2d", "transformer-2d"])
def test_second_derivatives(name):
    """What score matching needs, and guidance through a gradient: `d/dx <v, d<out, v>/dx>` by a central difference."""
    network, (x, noise, label) = made(name), drawn(name)
    v, h = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype), 1e-5

    def pull(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad((network(x, noise, label) * v).sum(), x)[0]

    with sdpa_kernel(SDPBackend.MATH):
        leaf = x.clone().requires_grad_()
        first = torch.autograd.grad((network(leaf, noise, label) * v).sum(), leaf, create_graph=True)[0]
        second = torch.autograd.grad((first * v).sum(), leaf)[0]
    difference = (pull(x + h * v) - pull(x - h * v)) / (2 * h)  # the second derivative is symmetric
    assert torch.allclose(second, difference, rtol=1e-5, atol=1e-5)


@every
@pytest.mark.parametrize("bad", ["rank", "size", "noise"])
def test_a_wrong_shape_is_named(name, bad):
    network, (x, noise, _) = made(name), drawn(name)
    if bad == "noise":
        with pytest.raises(ValueError, match=r"noise labels have shape \(B,\), got \(4, 1\)"):
            network(x, noise[:, None])
        return
    axis = 2 if name == "transformer-set" else 1
    wrong = x[..., None] if bad == "rank" else x.repeat_interleave(2, axis)
    with pytest.raises(ValueError, match=r"takes x of shape \(B, "):
        network(wrong, noise)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MLP((2,), width=0), "width must be a whole number of at least 1, got 0"),
        (lambda: MLP((2, 0)), r"shape\[1\] must be"),
        (lambda: MLP((2,), waves=-1), "waves must be at least 0, got -1"),
        (lambda: MLP((2,), dropout=1.0), r"must be in \[0, 1\), got 1.0"),
        (lambda: MLP((2,), classes=-1), "classes and augments must be at least 0"),
        (lambda: UNet((3,)), "1, 2 or 3 grid axes"),
        (lambda: UNet((1, 2, 2, 2, 2)), "1, 2 or 3 grid axes"),
        (lambda: UNet((1, 8, 3)), r"3 levels need at least 4 points along every axis, got a grid of \(8, 3\)"),
        (lambda: UNet((1, 28, 28), attention=(8,)), r"levels have sizes \[28, 14, 7\]"),
        (lambda: UNet((1, 8, 8), multipliers=()), "levels must be"),
        (lambda: UNet((1, 8, 8), blocks=1.5), "blocks must be a whole number"),
        (lambda: Transformer((1, 8, 8), patch=3), r"patch must divide the grid \(8, 8\) along every axis, got 3"),
        (lambda: Transformer((1, 8, 8), patch=(2,)), "patch must divide"),
        (lambda: Transformer((1, 8, 8), patch=-1), "patch must divide"),
        (lambda: Transformer((1, 8, 8), patch=0), r"a set has shape \(P, F\)"),
        (lambda: Transformer((8,)), "1, 2 or 3 grid axes"),
        (lambda: Transformer((1, 8), heads=3), "heads must divide the width 256, got 3"),
        (lambda: Transformer((1, 8, 8, 8), width=4, heads=1), "width must be at least 6 to tell 3 axes apart"),
    ],
)
def test_sizes_that_make_no_network_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_recipes_may_pass_lists():
    """JSON has no tuples."""
    x, noise = torch.ones(2, 1, 8, 8), torch.zeros(2)
    assert UNet([1, 8, 8], width=8, multipliers=[1, 2], attention=[4])(x, noise).shape == x.shape
    assert Transformer([1, 8, 8], patch=[2, 4], width=8)(x, noise).shape == x.shape
    assert MLP([1, 8, 8])(x, noise).shape == x.shape


def test_a_regression_is_learned():
    """A fixed toy: `y = x / (1 + e^noise)`, labels flip its sign. Predicting 0 leaves all; we ask for 2 %."""
    rng = torch.Generator().manual_seed(6)
    with torch.random.fork_rng():
        torch.manual_seed(6)
        network = MLP((2,), width=64, depth=2, classes=2)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(400):
        x, noise = torch.randn(256, 2, generator=rng), torch.randn(256, generator=rng)
        label = torch.randint(2, (256,), generator=rng)
        y = x / (1 + noise.exp())[:, None] * (2 * label - 1)[:, None]
        loss = (network(x, noise, label) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert math.isfinite(loss.item())
    assert loss < 0.02 * y.square().mean()
