"""The objective of PFGM: regression on the direction of the field of a large batch of charges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..denoise.empirical import Empirical
from ..denoise.field import FieldNetwork
from ..linear import expand, flat
from ..network.embed import condition
from ..process.base import Process
from ..process.poisson import PFGM
from ..rng import Rng, normal, uniform
from .base import Batch, Regression

_SHARE = 0.75  # of the logarithm of the greatest distance that the condition on the far field allows, as published


@dataclass(frozen=True)
class PoissonField(Regression):
    """`|network(x, z) - v|^2`, averaged over its `N + 1` components; `v` is the normalised field of a reference batch.

    Each of the `reference` items drawn is a charge in the plane `z = 0`; the first of them are the sources. A source
    `x_0` moves to `x = x_0 + sigma (1 + tau)^m g` and `z = |sigma (1 + tau)^m h|`, with `g` and `h` standard normal and
    `m` uniform from 0 to `M`; where `|h| < 1/2`, only to `restrict M`, because large displacements at small `z` lie
    where no path leads (1 leaves them as they are). There, with weights `w_i` in proportion to
    `(|x - x_i|^2 + z^2)^(-(N + 1) / 2)`,

        E = (x - sum_i w_i x_i, z),        v = -sqrt(N) E / (|E| + gamma):

    `gamma` is added to the length, outside any root, and turns a direction that jumps near the data into a field that
    fades there. A finite reference biases `v`, made of a ratio of two means, towards its own items; less, the larger
    it is. Rows with a class label see the charges of that class alone; of a share `label_dropout` the label is dropped,
    and then all charges count.

    What is None is filled in when training starts, from the deviation `s` of the data, whose mean squared norm is taken
    to be `N s^2` (they should be centred): `sigma = 0.02 s`, `gamma = 0.1 sqrt(N) s`, and
    `M = 3/4 ln(N s^2 / (2 sqrt(N) sigma^2)) / ln(1 + tau)`. A process with the default span and no clip gets
    `span = (0.002 s, sqrt(2 / pi) sigma (1 + tau)^M)` and `clip = sqrt(N) sigma (1 + tau)^M`, the means of `z` and of
    `|x - x_0|` at the greatest `m`; `PFGM(clip=inf)` keeps its span, and its prior whole. `z_sub` is that of
    `FieldNetwork`. Published for CIFAR-10 in [-1, 1]: `sigma` 0.01, `tau` 0.03, `M` 291, `gamma` 5, `z` up to 40,
    `clip` 3000, a reference of 4096 for batches of 128.

    Raises: ValueError for parameters out of range; TypeError for a process other than PFGM.
    Source: Xu et al. 2022, Alg. 1 and 2, App. B.1.1. [xu2022pfgm]
    """

    process: PFGM = field(default_factory=PFGM)
    reference: int = 1024
    sigma: float | None = None
    tau: float = 0.03
    M: float | None = None
    gamma: float | None = None
    restrict: float = 0.7
    z_sub: float | None = None
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.process, PFGM):
            raise TypeError(
                f"PoissonField trains PFGM, whose field has one more dimension, not {self.process}; "
                "Matching trains any process"
            )
        for name in ("sigma", "tau", "M", "gamma"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and > 0, got {value}")
        if not 0 <= self.restrict <= 1 or not 0 <= self.label_dropout <= 1:
            raise ValueError(
                f"restrict and label_dropout are from 0 to 1, got {self.restrict} and {self.label_dropout}"
            )
        if self.reference < 1:
            raise ValueError(f"the reference contains the batch, so it is at least 1, got {self.reference}")
        if self.z_sub is not None and not self.z_sub >= 0:
            raise ValueError(f"z_sub is a time of at least 0, got {self.z_sub}")

    def resolved(self, sigma_data: float, shape: Sequence[int]) -> PoissonField:
        """With what is None filled in, for data of deviation `sigma_data` and of `shape`.

        Raises: ValueError where `sigma` is so large that no `M` above 0 is left.
        """
        n = math.prod(shape)
        sigma = 0.02 * sigma_data if self.sigma is None else self.sigma
        gamma = 0.1 * math.sqrt(n) * sigma_data if self.gamma is None else self.gamma
        M = self.M
        if M is None:
            M = _SHARE * math.log(math.sqrt(n) * sigma_data**2 / (2 * sigma**2)) / math.log1p(self.tau)
            if not M > 0:
                raise ValueError(f"sigma={sigma:g} is too large for data of deviation {sigma_data:g}; lower it")
        process, top = self.process, sigma * (1 + self.tau) ** M
        if process.clip is None and process.span == PFGM.span:
            span = (0.002 * sigma_data, math.sqrt(2 / math.pi) * top)
            process = replace(process, span=span, clip=math.sqrt(n) * top)
        return replace(self, process=process, sigma=sigma, gamma=gamma, M=M)

    def denoiser(
        self,
        build: Callable[..., nn.Module],
        shape: Sequence[int],
        sigma_data: float,
        scaling: str | None,
        autocast: torch.dtype | None,
    ) -> FieldNetwork:
        """The network for data of `shape` with a channel more. Raises: ValueError for a `scaling`: it has its own."""
        if scaling is not None:
            raise ValueError(f"PoissonField scales the network's input by itself; leave scaling={scaling!r} out")
        (gamma,) = self._numbers("gamma")
        network = build(shape=(shape[0] + 1, *shape[1:]))
        return FieldNetwork(network, self.process, sigma_data, gamma, self.z_sub, autocast)

    def __call__(self, models: Mapping[str, Any], batch: Batch, rng: Rng) -> Tensor:
        """Losses `(b,)` of `models["denoiser"]`, a `FieldNetwork`; the batch carries its reference."""
        reference, label, labels = _charges(batch)
        if label is not None and self.label_dropout > 0:
            keep = uniform(torch.empty(len(batch.x), device=batch.x.device), rng) >= self.label_dropout
            label = torch.where(keep, label, -1)
        z, scale = self._draw(batch.x, rng)
        x = batch.x + expand(scale, batch.x) * normal(batch.x, rng)
        return self._losses(models["denoiser"], x, z, label, reference, labels)

    def times(self, process: Process, like: Tensor, rng: Rng) -> Tensor:
        """One `z` per row of `like`, `(B,)`, from their law in training."""
        return self._draw(like, rng)[0]

    def at(self, denoiser: Any, batch: Batch, t: Tensor, rng: Rng) -> Tensor:
        """Losses `(b,)` at given times `(b,)`, each from the exact law there; the charges are the batch's reference."""
        reference, label, labels = _charges(batch)
        return self._losses(denoiser, self.process.perturb(batch.x, t, rng), t, label, reference, labels)

    def target(self, x: Tensor, z: Tensor, reference: Tensor, labels: Tensor | None = None, cond: Any = None) -> Tensor:
        """The `v` of the charges `reference` at `x` `(B, *data)` and `z` `(B,)`: `(B, N + 1)`.

        With `labels` and a condition `(B,)`, a row sees the charges of its class; all of them at -1.
        """
        (gamma,) = self._numbers("gamma")
        if labels is not None:  # a charge without a label is of no class: of one that nobody asks for
            labels = torch.where(labels >= 0, labels, labels.max() + 1)
        y = Empirical(self.process, reference, None if cond is None else labels)(x, z, cond)
        e = torch.cat((flat(x - y), z[:, None].to(x.dtype)), 1)
        v: Tensor = -math.sqrt(e.shape[1] - 1) * e / (e.norm(dim=1, keepdim=True) + gamma)
        return v

    def _losses(
        self, denoiser: Any, x: Tensor, z: Tensor, label: Tensor | None, reference: Tensor, labels: Tensor | None
    ) -> Tensor:
        with torch.no_grad():
            target = self.target(x, z, reference, labels, label)
        error = denoiser(x, z, label, field=True) - target
        losses: Tensor = error.square().mean(1)
        return losses

    def _draw(self, like: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """`z` and the deviation of `x - x_0`, `(B,)` each; in float64 until the end, where no `z` is 0."""
        sigma, M = self._numbers("sigma", "M")
        rows = like.new_empty(len(like), dtype=torch.float64)
        h, m = normal(rows, rng).abs(), M * uniform(rows, rng)
        scale = sigma * (math.log1p(self.tau) * torch.where(h < 0.5, self.restrict * m, m)).exp()
        return (h * scale).to(like.dtype), scale.to(like.dtype)

    def _numbers(self, *names: str) -> list[float]:
        found = [getattr(self, name) for name in names]
        if None in found:
            raise ValueError(f"PoissonField needs {names[found.index(None)]}; resolved(sigma_data, shape) fills it in")
        return found


def _charges(batch: Batch) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The reference of a batch, the class labels of its rows, and those of the reference."""
    if batch.reference is None:
        raise ValueError("PoissonField needs the reference of the batch; Batch.of(x, label, b, reference) makes one")
    return batch.reference, condition(batch.cond).label, condition(batch.reference_cond).label
