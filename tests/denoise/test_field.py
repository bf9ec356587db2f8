"""A network of PFGM's field as a denoiser: what it predicts is read back exactly, and never divided by nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import driftfield as df
from driftfield.rng import seeded

F64 = torch.float64


class Answer(nn.Module):
    """A network with `out` on top of nothing, that remembers what it was asked."""

    def __init__(self, out=None):
        super().__init__()
        self.out, self.seen = out, None

    def forward(self, x, noise, cond=None):
        self.seen = x, noise
        return torch.zeros_like(x) if self.out is None else self.out(x)


class Exactly(df.FieldNetwork):
    """The network that says `v` at every point."""

    def __init__(self, v, gamma, z_sub):
        super().__init__(Answer(), df.PFGM(), 1.0, gamma, z_sub)
        self.v = v

    def _field(self, x, z, cond):
        return self.v[:, :-1].reshape(x.shape), self.v[:, -1]


def points(n: int = 40, N: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    x = 2 * torch.randn(n, N, generator=seeded(1), dtype=F64)
    return x, torch.logspace(-3, 1.5, n, dtype=F64)


@pytest.mark.parametrize("gamma", [0.1, 5.0])
@pytest.mark.parametrize("z_sub", [0.0, 0.5, math.inf])
def test_either_reading_of_the_exact_field_is_the_posterior_mean(gamma, z_sub):
    """8.2 and 8.9: by `v_z`, by the length of `v_x` with the whole root in it, and by both."""
    data = torch.randn(20, 3, generator=seeded(0), dtype=F64)
    x, z = points()
    v = df.PoissonField(gamma=gamma).resolved(1.0, (3,)).target(x, z, data)
    y = Exactly(v, gamma, z_sub)(x, z)
    torch.testing.assert_close(y, df.Empirical(df.PFGM(), data)(x, z), rtol=1e-7, atol=1e-7)


def test_the_second_reading_is_the_published_one_near_the_data():
    """2.11: `e = gamma a / (1 - a)` where `e >> z`, and `v_z` follows with gamma outside the root."""
    gamma, z = 5.0, torch.tensor([1e-6], dtype=F64)
    v_x = torch.tensor([[0.3, -0.2, 0.1]], dtype=F64)
    a = v_x.norm().item() / math.sqrt(3)
    e = gamma * a / (1 - a)
    v_z = -math.sqrt(3) * z / (math.hypot(e, z.item()) + gamma)
    expected = -z[:, None] * v_x / v_z[:, None]
    got = Exactly(torch.cat((v_x, torch.zeros(1, 1, dtype=F64)), 1), gamma, None)(torch.zeros(1, 3, dtype=F64), z)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)


def test_a_network_of_zeros_is_the_field_of_cauchy_data():
    """8.3: `E_x = x z / (z + s)`, at every z and on both sides of z_sub."""
    x, z = points()
    for z_sub in (0.0, None, 100.0):
        y = df.FieldNetwork(Answer(), df.PFGM(), 0.7, 0.4, z_sub)(x, z)
        torch.testing.assert_close(y, x * 0.7 / (z + 0.7)[:, None])


@pytest.mark.parametrize("z_sub", [0.0, math.inf])
@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 1e3, 1e8])
def test_no_output_of_a_network_divides_by_nothing(z_sub, size):
    """Pitfalls 5 and 6: `v_z` of either sign, `a` beyond 1; `|x - y|` is at most `|x|` plus four root mean squares."""
    x, z = points(400)
    v = size * torch.randn(400, 4, generator=seeded(2), dtype=F64)
    y = Exactly(v, 0.5, z_sub)(x.requires_grad_(), z)
    assert y.isfinite().all()
    if z_sub:
        assert ((x - y).norm(dim=1) <= (x.norm(dim=1) + 4 * 3**0.5) * (1 + 1e-9)).all()
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert slope.isfinite().all()


def test_the_readings_blend_so_that_the_flow_can_be_followed_both_ways():
    """Of a network whose `v_x` and `v_z` disagree: continuous at `z_sub`, and 1e-4 there and back.

    A jump of one reading to the other at `z_sub` moves the estimate by 0.02 or more here.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = df.MLP((3,), width=16, depth=1)
        nn.init.normal_(net.out.weight, std=0.03)
    process = df.PFGM(span=(0.01, 10.0))
    model = df.FieldNetwork(net.double(), process, 1.0, 0.3).requires_grad_(False)
    x = torch.randn(6, 2, generator=seeded(4), dtype=F64)
    at = torch.tensor(0.3, dtype=F64)
    either = [df.FieldNetwork(net, process, 1.0, 0.3, z_sub)(x, at) for z_sub in (0.0, math.inf)]
    assert (either[0] - either[1]).abs().max() > 0.02
    torch.testing.assert_close(model(x, at * (1 - 1e-9)), model(x, at * (1 + 1e-9)), rtol=0, atol=1e-7)
    z = df.encode(process, model, x)
    torch.testing.assert_close(df.decode(process, model, z), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(5,), (2, 4), (3, 4, 4)])
def test_data_get_one_channel_more_and_it_is_averaged(shape):
    net = Answer(lambda x: torch.ones_like(x).cumsum(-1))
    model = df.FieldNetwork(net, df.PFGM(), 0.5, 1.0)
    x, t = torch.randn(6, *shape, generator=seeded(0)), torch.tensor(0.3, dtype=F64)
    v = model(x, t, field=True)
    inner, noise = net.seen
    assert inner.shape == (6, shape[0] + 1, *shape[1:])
    assert v.shape == (6, math.prod(shape) + 1)
    zero = df.FieldNetwork(Answer(), df.PFGM(), 0.5, 1.0)(x, t, field=True)
    last = torch.ones(shape[1:]).cumsum(-1).mean() if shape[1:] else torch.tensor(float(shape[0] + 1))
    torch.testing.assert_close(v[:, -1] - zero[:, -1], last.expand(6))
    torch.testing.assert_close(noise, torch.full((6,), math.log(0.3) / 4))
    square = x.flatten(1).square().mean(1)
    torch.testing.assert_close(inner[:, :-1].flatten(1).square().mean(1), square / (square + 0.25 + 0.09))
    assert model(x, t).dtype == torch.float32
    assert model(x, t.expand(6)).dtype == torch.float32


def test_what_is_no_field_of_pfgm_is_refused():
    with pytest.raises(TypeError, match="PFGMPP\\(D=1\\)"):
        df.FieldNetwork(Answer(), df.PFGMPP(D=2.0))
    assert df.FieldNetwork(Answer(), df.PFGMPP(D=1.0)).z_sub == 5.0
    with pytest.raises(ValueError, match="gamma must be finite"):
        df.FieldNetwork(Answer(), df.PFGM(), gamma=0.0)
    with pytest.raises(ValueError, match="sigma_data"):
        df.FieldNetwork(Answer(), df.PFGM(), sigma_data=0.0)
    with pytest.raises(ValueError, match="takes data"):
        df.FieldNetwork(Answer(), df.PFGM())(torch.zeros(3), torch.tensor(1.0))
