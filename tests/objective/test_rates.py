"""Births learned by regression: the minimiser, the network's scale, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from driftfield.denoise.empirical import Empirical
from driftfield.denoise.rates import RateNetwork
from driftfield.network.mlp import MLP
from driftfield.objective.base import Batch
from driftfield.objective.laws import LogUniform
from driftfield.objective.rates import RateMatching
from driftfield.process.gaussian import EDM
from driftfield.process.heat import Blur
from driftfield.process.langevin import CLD
from driftfield.process.screened import ScreenedPoisson
from driftfield.rng import integers, seeded

PROCESS = ScreenedPoisson(1.0, (0.05, 4.0))


def data() -> Tensor:
    return torch.tensor([[-1.0, 0.0], [0.5, 0.3], [0.8, -0.9]], dtype=torch.float64)


def test_the_exact_rate_is_the_minimiser():
    """No function of the state and the time lowers the loss of the exact rate: its error is uncorrelated with any.

    60,000 draws, five standard errors.
    """
    count = 60000
    x0 = data()[integers(torch.empty(count), 3, seeded(1))]
    exact = Empirical(PROCESS, data())
    seen = {}

    def model(x, t, cond):
        seen.update(x=x, t=t, rate=exact.rate(x, t))
        return seen["rate"]

    objective = RateMatching(PROCESS, LogUniform(0.1, 3.0))
    losses = objective({"rate": model}, Batch(x0), seeded(2))
    assert losses.shape == (count,)
    rate = PROCESS.rate((seen["x"] - x0).square().sum(1), seen["t"], 2)
    error = seen["t"] * (seen["rate"] - rate)
    torch.testing.assert_close(losses, error.square())
    for test in (torch.ones(count), seen["x"][:, 0], seen["x"].square().sum(1).sqrt(), seen["t"]):
        product = error * test
        assert abs(float(product.mean())) < 5 * float(product.std()) / math.sqrt(count)


@pytest.mark.slow
def test_a_network_learns_the_rate():
    """300 steps bring the loss above that of the exact rate to a tenth of that of no births."""
    torch.manual_seed(0)
    model = RateNetwork(MLP((2,), width=64, depth=2), PROCESS, sigma_data=0.8)
    objective = RateMatching(PROCESS, LogUniform(0.1, 3.0))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(300):
        x0 = data().float()[integers(torch.empty(512), 3, seeded(3, step))]
        loss = objective({"rate": model}, Batch(x0), seeded(4, step)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    exact = Empirical(PROCESS, data())
    x0 = data()[integers(torch.empty(8000), 3, seeded(5))]
    t = torch.rand(8000, generator=seeded(6), dtype=torch.float64) * 2 + 0.2
    x = PROCESS.perturb(x0, t, seeded(7))
    with torch.no_grad():
        error = (t * (model(x.float(), t.float()) - exact.rate(x, t))).square().mean()
    assert error < 0.1 * (t * exact.rate(x, t)).square().mean()


def test_a_fresh_network_says_no_births():
    model = RateNetwork(MLP((2,), width=16, depth=1), PROCESS, sigma_data=0.8)
    rate = model(torch.ones(5, 2), torch.tensor(0.5))
    assert torch.equal(rate, torch.zeros(5))

    class One(nn.Module):
        def forward(self, x: Tensor, noise: Tensor, cond: object) -> Tensor:
            return torch.ones_like(x)

    t = torch.tensor([0.5, 2.0])
    rho = (t.square() + 2 + 2 * 0.64).sqrt()
    torch.testing.assert_close(RateNetwork(One(), PROCESS, 0.8, None)(torch.ones(2, 2), t), rho / t)


def test_a_process_that_keeps_its_mass_is_refused():
    for process in (EDM(), CLD(), Blur()):
        with pytest.raises(TypeError, match=f"{type(process).__name__} keeps its mass"):
            RateMatching(process)({"rate": lambda x, t, cond: t}, Batch(torch.zeros(3, 1, 2)), seeded(0))
