import math

import pytest
import torch

from driftfield.denoise.exact import Normal, Point
from driftfield.denoise.mixture import Mixture
from driftfield.process.gaussian import EDM, VE, VP, Rectified, SubVP
from driftfield.process.poisson import PFGMPP
from driftfield.rng import normal, seeded

GAUSSIAN = [EDM(), VE(), VP(), SubVP(), Rectified(), PFGMPP(D=math.inf)]


def test_point_returns_its_datum():
    x0, x = torch.randn(2, 3, dtype=torch.float64, generator=seeded(1)), torch.zeros(5, 2, 3)
    for datum in (x0, x0[None], x0.expand(5, 2, 3)):
        y = Point(datum)(x, torch.ones(5))
        assert y.dtype == x.dtype
        assert torch.equal(y, x0.float().expand(5, 2, 3))


@pytest.mark.parametrize("process", GAUSSIAN, ids=repr)
def test_normal_is_a_mixture_of_one(process):
    """In any data shape, with a mean and a standard deviation for each coordinate, one of them known."""
    rng = seeded(2)
    mean, std = (normal(torch.empty(2, 3, dtype=torch.float64), rng) for _ in range(2))
    std = std.abs()
    std[1, 2] = 0
    mixture = Mixture(process, torch.ones(1), mean.reshape(1, 6), torch.diag(std.flatten() ** 2)[None])
    x = normal(torch.empty(7, 2, 3, dtype=torch.float64), rng)
    t = torch.linspace(*process.span, 7, dtype=torch.float64)
    y = Normal(process, mean, std)(x, t)
    torch.testing.assert_close(y.flatten(1), mixture(x.flatten(1), t), rtol=1e-11, atol=1e-12)
    got = Normal(process, mean, std)(x.float(), t[3].float())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), Normal(process, mean, std)(x.float().double(), t[3].float()))


def test_normal_shrinks_as_wiener_says():
    """`s^2 / (s^2 + sigma^2)` of the state; the state itself without noise, the mean without signal."""
    x, t = torch.tensor([[0.3], [2.0]], dtype=torch.float64), torch.tensor([0.5, 3.0], dtype=torch.float64)
    torch.testing.assert_close(Normal(EDM(), 0.0, 0.7)(x, t), x * (0.49 / (0.49 + t**2))[:, None])
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    assert torch.equal(Normal(EDM(), 0.4, 0.7)(x, zero), x)
    assert torch.equal(Normal(EDM(), 0.4, 0.0)(x, zero), torch.full_like(x, 0.4))
    assert torch.equal(Normal(Rectified(), 0.4, 0.7)(x, one), torch.full_like(x, 0.4))


def test_normal_works_in_float64_at_one_time_per_row():
    """A float32 state far from its mean: the posterior is rounded once, at the end, as it is at a shared time."""
    x, t = torch.tensor([[1000.1], [999.7]]), torch.full((2,), 0.5, dtype=torch.float64)
    y = Normal(VP(), 1000.0, 1e-3)(x, t)
    assert torch.equal(y, Normal(VP(), 1000.0, 1e-3)(x, t[0]))
    assert torch.equal(y, Normal(VP(), 1000.0, 1e-3)(x.double(), t).float())


def test_bad_input_is_refused():
    with pytest.raises(TypeError, match="use Mixture"):
        Normal(PFGMPP(D=3.0))
    with pytest.raises(TypeError, match="isotropic"):
        Normal(object())
    for std in (-1.0, math.nan, torch.tensor([1.0, math.inf])):
        with pytest.raises(ValueError, match="std must be"):
            Normal(EDM(), 0.0, std)
