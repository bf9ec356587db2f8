"""A network that learns the rate of births, brought to unit scale."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..linear import expand, flat
from ..process.base import Process
from .learned import Learned


class RateNetwork(Learned):
    """A network as a rate of births: `rate = rho / t mean(network(c_in x, ln(level) / 4, cond))`.

    `rho^2 = t^2 + |x|^2 + N sigma_data^2` is about the squared distance to the data, with which births grow far away;
    `c_in = 1 / sqrt(level^2 + sigma_data^2)`. The mean is over all that the network returns for a sample, so a network
    for data of any shape serves.
    """

    def __init__(
        self, network: nn.Module, process: Process, sigma_data: float = 0.5, autocast: torch.dtype | None = None
    ):
        """As for `Preconditioned`."""
        super().__init__(network, process, sigma_data, autocast)

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Births for each particle and unit of time at the state `x` `(B, *data)`, `(B,)`; `t` is `()` or `(B,)`."""
        rows, variance = flat(x), self.sigma_data**2
        rho = (t.to(x.dtype).square() + rows.square().sum(1) + rows.shape[1] * variance).sqrt()
        level = self.process.level(t)
        out = self._call(expand((level.square() + variance).rsqrt(), x) * x, level.log() / 4, cond)
        return rho / t.to(x.dtype) * flat(out).mean(1)
