"""What every network that is a denoiser carries, however its output is read."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..process.base import Process


class Learned(nn.Module):
    """A network as a denoiser of `process`, for data of standard deviation `sigma_data`.

    `network(x, noise, cond)` is called with `noise` of shape `(B,)`, and `autocast` is the dtype it runs in
    (`torch.bfloat16`); everything outside it stays in the dtype of `x`.
    Raises: ValueError for a `sigma_data` that is not a finite number above 0.
    """

    def __init__(self, network: nn.Module, process: Process, sigma_data: float, autocast: torch.dtype | None):
        """A subclass says how the network's output becomes an estimate, in `forward(x, t, cond)`."""
        super().__init__()
        if not 0 < sigma_data < math.inf:
            raise ValueError(f"sigma_data is the standard deviation of the data and must be > 0, got {sigma_data}")
        self.network, self.process = network, process
        self.sigma_data, self.autocast = sigma_data, autocast

    def skip(self, x: Tensor, t: Tensor) -> Tensor:
        """The part of the estimate at `x` that does not come from the network: rounding is relative to it, too."""
        return torch.zeros_like(x)

    def _call(self, inner: Tensor, label: Tensor, cond: Any) -> Tensor:
        """The network's output for an input of unit scale, shaped and typed like it."""
        dtype = next((p.dtype for p in self.network.parameters()), inner.dtype)
        # A sum, because a 0-dim tensor on the CPU reaches any device in it, without a copy and without waiting.
        rows = torch.zeros(len(inner), dtype=dtype, device=inner.device) + label.to(dtype)
        if self.autocast is None:
            out = self.network(inner.to(dtype), rows, cond)
        else:
            with torch.autocast(inner.device.type, self.autocast):
                out = self.network(inner.to(dtype), rows, cond)
        typed: Tensor = out.to(inner.dtype)
        return typed
