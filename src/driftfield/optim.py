"""Optimisers as frozen values: what a recipe can write down."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn


class Optimizer(ABC):
    """A frozen description of an optimiser."""

    lr: float
    elementwise: ClassVar[bool] = False  # whether each weight's update looks at that weight's history alone

    @abstractmethod
    def build(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Optimisers of the model's parameters; their learning rates are `lr` at full strength."""


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay. Source: Loshchilov and Hutter 2019. [loshchilov2019adamw]"""

    elementwise: ClassVar[bool] = True

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def build(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        return [self.on(model.parameters())]

    def on(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of some parameters."""
        return torch.optim.AdamW(
            list(parameters), lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay, fused=True
        )


class _Flat(torch.optim.Muon):
    """Muon on kernels of any rank, seen as matrices (outputs, inputs x positions) that share their memory."""

    def __init__(self, kernels: list[nn.Parameter], lr: float, momentum: float, weight_decay: float):
        self.kernels = kernels
        flat = [nn.Parameter(_matrix(k.detach())) for k in kernels]
        super().__init__(flat, lr=lr, momentum=momentum, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self.flat = flat

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for kernel, flat in zip(self.kernels, self.flat, strict=True):
            flat.grad = None if kernel.grad is None else _matrix(kernel.grad)
        super().step()  # type: ignore[no-untyped-call]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for kernel in self.kernels:
            kernel.grad = None


def _matrix(kernel: Tensor) -> Tensor:
    """A view `(outputs, rest)` of a kernel in either memory format; the order of columns is immaterial to Muon."""
    if kernel.ndim > 2 and not kernel.is_contiguous():
        kernel = kernel.movedim(1, -1)
    return kernel.view(len(kernel), -1)


@dataclass(frozen=True)
class Muon(Optimizer):
    """Orthogonalised momentum for the hidden kernels, AdamW for the rest (embeddings, norms, biases, last layer).

    The update is scaled to the root mean square of AdamW's, so that one learning rate suits both.
    Source: Jordan et al. 2024; Liu et al. 2025, Eq. 4. [jordan2024muon] [liu2025muon]
    """

    lr: float = 1e-3
    momentum: float = 0.95
    weight_decay: float = 0.0
    rest: AdamW = field(default_factory=AdamW)

    def build(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        named = [p for p in model.parameters() if p.requires_grad]
        last = id([p for p in named if p.ndim > 1][-1])
        kernels = [p for p in named if p.ndim > 1 and id(p) not in tables and id(p) != last]
        chosen = {id(p) for p in kernels}
        return [
            _Flat(kernels, self.lr, self.momentum, self.weight_decay),
            self.rest.on(p for p in named if id(p) not in chosen),
        ]
