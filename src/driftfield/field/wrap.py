"""Around a denoiser or a field: how often it is evaluated, and what its flow does to a density."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..denoise.base import Denoiser
from ..linear import flat
from ..rng import Rng
from .base import Field


class Counted:
    """A denoiser, and in `calls` how often it was called."""

    def __init__(self, denoiser: Denoiser):
        self.denoiser, self.calls = denoiser, 0

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """The estimate of the denoiser, shaped like `x`."""
        self.calls += 1
        return self.denoiser(x, t, cond)


class WithDivergence(Field):
    """The flow of `field` together with integrals of its divergence, one evaluation for both.

    A state is `(B, N + P)`: the field's own, flattened, then `P` numbers whose velocities are estimates of the
    divergence. With `probes`, `(B, P, *shape)`, estimate `p` is `e_p . J e_p`, `J` the Jacobian of the velocity: its
    mean is the divergence if the entries of `e` are independent with mean 0 and variance 1. Without, `P = 1` and the
    divergence is exact, at a gradient for each of the `N` numbers in place of one for each probe. The probes stay the
    same along a path, so that what is integrated is smooth.

    `shape` is that of one state of `field`. Along a path log-density falls by the integral of the divergence.
    Raises: ValueError for probes of another shape; TypeError from `diffuse`: noise moves no single density value.
    Source: Grathwohl et al. 2019, Sec. 3.1; Hutchinson 1990. [grathwohl2019ffjord] [hutchinson1990trace]
    """

    def __init__(self, field: Field, shape: tuple[int, ...], probes: Tensor | None = None):
        if probes is not None and (probes.ndim < 2 or tuple(probes.shape[2:]) != tuple(shape) or not probes.shape[1]):
            raise ValueError(f"probes should be (B, P, {', '.join(map(str, shape))}), got {tuple(probes.shape)}")
        self.field, self.shape, self.probes = field, tuple(shape), probes
        self.columns = 1 if probes is None else probes.shape[1]

    def pack(self, x: Tensor) -> Tensor:
        """The states `(B, *shape)` with integrals that begin at 0."""
        return torch.cat((flat(x), x.new_zeros(len(x), self.columns)), 1)

    def unpack(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The states `(B, *shape)` and the integrals `(B, P)`."""
        return z[:, : -self.columns].reshape(len(z), *self.shape), z[:, -self.columns :]

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            inner = self.unpack(x.detach())[0].clone().requires_grad_()
            v = self.field.velocity(inner, t)
        rates = [(flat(e) * flat(g)).sum(1) for e, g in _pulled(v, inner, self._directions(inner))]
        total = torch.stack(rates, 1) if self.probes is not None else torch.stack(rates).sum(0)[:, None]
        return torch.cat((flat(v.detach()), total), 1)

    def size(self, error: Tensor) -> Tensor:
        """The larger of the field's own and of the integrals' root mean square: many numbers do not hide a few."""
        inner, integrals = self.unpack(error)
        return torch.maximum(self.field.size(inner), integrals.square().mean(1).sqrt())

    def diffuse(self, x: Tensor, s: Tensor, t: Tensor, rng: Rng) -> Tensor:
        raise TypeError("a density is followed along the flow, and a path that climbs by noise leaves it; use no churn")

    def _directions(self, x: Tensor) -> Iterable[Tensor]:
        if self.probes is not None:
            yield from self.probes.to(x).unbind(1)
            return
        for i in range(x[0].numel()):
            one = torch.zeros_like(flat(x))
            one[:, i] = 1
            yield one.reshape(x.shape)


def _pulled(v: Tensor, x: Tensor, directions: Iterable[Tensor]) -> Iterable[tuple[Tensor, Tensor]]:
    """Each direction `e` with the gradient of `v . e` in `x`."""
    for e in directions:
        if not v.requires_grad:  # a velocity that is the same everywhere
            yield e, torch.zeros_like(x)
        else:
            (g,) = torch.autograd.grad(v, x, e.to(v), retain_graph=True, materialize_grads=True)
            yield e, g
