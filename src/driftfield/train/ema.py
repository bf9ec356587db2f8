"""A running average of weights, its memory measured in samples."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn


def average_of(model: nn.Module) -> Any:
    """A frozen copy of `model`, the start of its average."""
    return deepcopy(model).requires_grad_(False).eval()


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, seen: int, batch: int, halflife: float, rampup: float) -> None:
    """Move `average` towards `model` after a batch that brought the samples seen to `seen`.

    Its half-life is `halflife` samples, and at most the share `rampup` of those seen, so that the start is forgotten.
    Source: Karras et al. 2022, App. F. [karras2022edm]
    """
    keep = 0.5 ** (batch / min(halflife, max(rampup * seen, 1e-9)))
    slow: list[torch.Tensor] = list(average.parameters())
    fast = [p.detach() for p in model.parameters()]
    if slow:
        torch._foreach_lerp_(slow, fast, 1 - keep)
    for kept, new in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(new)
