"""The published rounding of weights: its formula, what it leaves alone, and what it costs. spec/pfgmpp.md 3.5, 8.14."""

from __future__ import annotations

import pytest
import torch

import driftfield as df
from driftfield.deploy.export import difference
from driftfield.deploy.quantize import affine, rounded
from driftfield.plain import Build
from driftfield.rng import integers, normal, seeded

from .common import NETWORKS, recipe, stirred

F64 = torch.float64
WEIGHTS = {
    "wide": normal(torch.empty(400, dtype=F64), seeded(1)),
    "mostly above": normal(torch.empty(400, dtype=F64), seeded(2)) + 1.5,
    "mostly below": 0.01 * normal(torch.empty(400, dtype=F64), seeded(3)) - 0.02,
}


@pytest.mark.parametrize("bits", [1, 2, 4, 5, 8, 9])
@pytest.mark.parametrize("name", WEIGHTS)
def test_the_formula_as_published(name, bits):
    """Number by number, in Python's own arithmetic; a product rounded otherwise is allowed for."""
    weight = WEIGHTS[name]
    values, top = weight.tolist(), 2**bits - 1
    step = (max(values) - min(values)) / top
    zero = int(min(max(0 - min(values) / step, 0), top))
    expected = [step * (round(min(max(zero + w / step, 0), top)) - zero) for w in values]
    torch.testing.assert_close(affine(weight, bits), torch.tensor(expected, dtype=F64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8])
def test_a_weight_that_can_be_said_stays(bits):
    """Multiples of a power of 2 that take every number of the range, 0 among them: nothing moves."""
    top = 2**bits - 1
    for zero in {0, 1, top // 2, top}:
        numbers = torch.cat((integers(torch.empty(50), top + 1, seeded(4)), torch.tensor([0, top])))
        weight = (numbers - zero) / 64
        assert torch.equal(affine(weight, bits), weight)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("name", WEIGHTS)
def test_how_far_a_weight_moves(name, bits):
    """Half a step inside the range, and below one step at its ends, where the number of 0 was rounded down."""
    weight = WEIGHTS[name]
    step = (weight.max() - weight.min()) / (2**bits - 1)
    moved = (affine(weight, bits) - weight) / step
    low = -step * (-weight.min() / step).clamp(0, 2**bits - 1).trunc()
    inside = (weight >= low) & (weight <= low + step * (2**bits - 1))
    assert bits == 1 or inside.double().mean() > 0.4
    assert moved[inside].abs().max() <= 0.5 + 1e-9
    assert moved.abs().max() < 1
    assert len(affine(weight, bits).unique()) <= 2**bits


def worst_grid(bits: int, zero: int, seed: int, dtype=torch.float32) -> torch.Tensor:
    """All the values of a grid with a random step: multiples of it, each rounded once."""
    step = (0.1 + normal(torch.empty(1, dtype=dtype), seeded(6, seed)).abs()) * 0.01
    return step * (torch.arange(2**bits, dtype=dtype) - zero)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 8])
def test_a_grid_of_any_step_stays(bits, dtype):
    """spec/pfgmpp.md 8.14, for every number of 0 and 20 random steps each (4 at 8 bits): bit for bit."""
    for zero in range(2**bits):
        for seed in range(4 if bits == 8 else 20):
            weight = worst_grid(bits, zero, seed, dtype)
            assert torch.equal(affine(weight, bits), weight), (zero, seed)


def test_a_grid_of_many_values_stays():
    """At 16 bits the number of 0 is known to 0.008 only, from float32 weights."""
    for zero in (1, 1000, 21845, 32767, 40000, 65534):
        for seed in range(10):
            weight = worst_grid(16, zero, seed)
            assert torch.equal(affine(weight, 16), weight), (zero, seed)


def test_rounded_twice_is_rounded_once_where_the_ends_are_kept():
    """Where rounding the number of 0 down costs no value at the upper end, a second time changes nothing."""
    kept = 0
    for seed in range(300):
        weight = normal(torch.empty(64, 64), seeded(7, seed))
        once = affine(weight, 4)
        if len(once.unique()) == 16:
            kept += 1
            assert torch.equal(affine(once, 4), once)
    assert kept > 100  # half of them; the deviation is 9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_floats_are_rounded_too(dtype):
    """The number of 0 is at most one from that of the same weights in float64."""
    weight = normal(torch.empty(4000), seeded(8)).to(dtype)
    made = affine(weight, 5)
    step = (weight.max() - weight.min()).double() / 31
    assert made.dtype == dtype
    assert len(made.unique()) <= 32
    assert (made.double() - weight.double()).abs().max() < (1 + 32 * torch.finfo(dtype).eps) * step


def test_what_the_published_range_cannot_say():
    """Values of one sign: those beyond a range from 0 are clipped, as published. A tensor of one value stays."""
    assert torch.equal(affine(torch.tensor([1.0, 1.5, 2.0]), 2), torch.tensor([1.0, 1.0, 1.0]))
    assert torch.equal(affine(torch.full((3,), -0.7), 4), torch.full((3,), -0.7))
    for bits in (0, 17):
        with pytest.raises(ValueError, match=f"1 to 16 bits, got bits={bits}"):
            affine(torch.ones(2), bits)


def changed(name: str, bits: int = 4, process=None) -> tuple[set[str], df.Recipe]:
    plan = recipe(name, process)
    denoiser = stirred(plan)
    before = {k: v.clone() for k, v in denoiser.state_dict().items()}
    small = rounded(denoiser, bits, plan.info.shape)
    after = small.state_dict()
    assert all(torch.equal(v, before[k]) for k, v in denoiser.state_dict().items()), "the model itself is left alone"
    assert set(after) == set(before)
    for k in after:
        assert torch.equal(after[k], before[k]) or torch.equal(after[k], affine(before[k], bits))
    return {k.removeprefix("network.") for k in after if not torch.equal(after[k], before[k])}, plan


def test_of_a_u_net_what_is_below_the_full_resolution_is_rounded():
    found, _ = changed("unet")
    at = {"conv0", "conv1", "attend.read", "attend.write"}
    expected = {f"{way}.1.0.{layer}.weight" for way in ("down", "up") for layer in at}
    assert found == expected | {"down.1.0.skip.weight"}


def test_of_a_transformer_every_token_and_of_vectors_every_layer():
    found, _ = changed("transformer")
    assert not any("modulate" in k or "condition" in k or "bias" in k for k in found)
    assert {"stem.weight", "blocks.0.attend.read.weight", "out.weight"} <= found
    found, _ = changed("mlp")
    assert {"stem.weight", "blocks.0.into.weight", "blocks.0.modulate.weight", "out.weight"} <= found


@pytest.mark.parametrize("name", ["unet", "mlp"])
def test_states_of_more_than_data_round_the_same_layers(name):
    """CLD's position and velocity: twice the numbers, at the same points."""
    assert changed(name, process=df.CLD())[0] == changed(name)[0]


def test_the_output_moves_less_with_every_bit():
    """Errors halve with each bit: by 16 from 4 bits to 8 and by 256 from there to 16; a factor of 4 is asked."""
    plan = recipe("unet")
    denoiser = stirred(plan)
    moved = [difference(rounded(denoiser, bits, plan.info.shape), denoiser, plan) for bits in (4, 8, 16)]
    assert moved[0] > 4 * moved[1] > 16 * moved[2]


def test_a_network_of_one_resolution_is_refused(monkeypatch):
    options = {"width": 8, "multipliers": (1,)}
    monkeypatch.setitem(NETWORKS, "flat", (Build("driftfield.network.unet:UNet", options), (1, 8, 8), ()))
    plan = recipe("flat")
    with pytest.raises(ValueError, match=r"below the full resolution of \(1, 8, 8\), and this network has none"):
        rounded(stirred(plan), 8, plan.info.shape)
