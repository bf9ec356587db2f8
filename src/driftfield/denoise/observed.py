"""Exact denoisers under any Gaussian process: data, or mixtures of Gaussians, seen through `observe`.

A state says of its datum what an observation `w = g modes(x_0) + N(0, I)` says, one number `g` per mode. The density of
the state is that of pure noise there, times the ratio of the densities of `w` with the datum and without. All
arithmetic is in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear import flat
from ..process.structured import GaussianProcess

_ROWS = 1024  # rows at a time
_NUMBERS = 1 << 22  # held at a time: 32 MiB in float64


def _seen(process: GaussianProcess, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """`observe` in float64, flattened: `w` `(B, N)`, and `g` `(1, 1)`, `(1, N)`, `(B, 1)` or `(B, N)`."""
    w, g = process.observe(x.double(), t.double())
    if g.ndim == 0:
        return flat(w), g.reshape(1, 1).to(w)
    return flat(w), flat(g if g[0].numel() == 1 else g.expand(len(g), *w.shape[1:]))


@dataclass(frozen=True, eq=False)
class ObservedData:
    """The posterior over data `(M, *data)`, all equally likely, given a state; streamed like attention.

    `labels` are `(M,)` classes; `counts` how many data are in each.
    Exact:  in float64: log-weights to about 1e-16 times the largest squared distance of data from their mean, in units
            of the noise. Memory beyond the data: a few tensors of 1024 x `tile` and of `tile` x N.
    """

    process: GaussianProcess
    data: Tensor
    labels: Tensor | None
    counts: Tensor | None
    tile: int

    def mean(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """`E[x_0 | x_t = x]`, `(B, *data)` float64; `cond` is `(B,)`, -1 for all data."""
        z, _ = self._posterior(x, t, cond)
        return self.process.from_modes(z.reshape(len(x), *self.data.shape[1:]))

    def log_prob(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """The log-density of the state, `(B,)` float64, nats."""
        x, t = x.double(), t.double()
        _, log_ratio = self._posterior(x, t, cond)
        centre = self.process.signal(t)(self.process.lift(self._centre().expand(len(x), *self.data.shape[1:])))
        return self.process.log_noise(x - centre, t) + log_ratio

    def score(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """The gradient of `log_prob` in the state, float64."""
        return self.process.score(x.double(), t.double(), self.mean(x, t, cond))

    def _centre(self) -> Tensor:
        return self.data.double().mean(0, keepdim=True)

    def _posterior(self, x: Tensor, t: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """The posterior mean in modes, `(B, N)`, and the log of the mean likelihood ratio to the centre, `(B,)`."""
        w, g = _seen(self.process, x, t)
        centre = flat(self.process.modes(self._centre()))
        parts = []
        for i in range(0, max(1, len(w)), _ROWS):
            rows = slice(i, i + _ROWS)
            scale = g[rows] if len(g) > 1 else g
            parts.append(self._rows(w[rows] - scale * centre, scale, centre, None if cond is None else cond[rows]))
        z, log_ratio = (torch.cat(column) for column in zip(*parts, strict=True))
        return z, log_ratio

    def _rows(self, w: Tensor, g: Tensor, centre: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        top = w.new_full((len(w), 1), -math.inf)
        mass, mean = torch.zeros_like(top), torch.zeros_like(w)
        for start in range(0, len(self.data), self.tile):
            u = flat(self.process.modes(self.data[start : start + self.tile].double())) - centre
            energy = g.square() * u.square().sum(1) if g.shape[1] == 1 else g.square() @ u.square().mT
            log = (g * w) @ u.mT - energy / 2
            if cond is not None and self.labels is not None:
                match = (cond[:, None] < 0) | (cond[:, None] == self.labels[start : start + len(u)])
                log = log.where(match, -math.inf)
            best = torch.maximum(top, log.amax(1, keepdim=True))
            known = best > -math.inf  # none of the class so far
            weight, fade = (log - best).exp().where(known, 0), (top - best).exp().where(known, 0)
            mass, mean, top = mass * fade + weight.sum(1, keepdim=True), mean * fade + weight @ u, best
        count: Tensor | float = float(len(self.data))
        if cond is not None and self.counts is not None:
            count = torch.where(cond < 0, count, self.counts[cond.clamp(min=0)])[:, None]
        return centre + mean / mass, (top + (mass / count).log())[:, 0]


@dataclass(frozen=True, eq=False)
class ObservedMixture:
    """The posterior of a mixture of Gaussians given a state: `means` are `(K, *data)`, the rest is as for `Mixture`."""

    process: GaussianProcess
    log_weights: Tensor
    means: Tensor
    covariances: Tensor

    def mean(self, x: Tensor, t: Tensor) -> Tensor:
        """`E[x_0 | x_t = x]`, `(B, *data)` float64."""
        log, z = self._components(x, t)
        z = (log.softmax(1)[..., None] * z).sum(1)
        return self.process.from_modes(z.reshape(len(x), *self.means.shape[1:]))

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """The log-density of the state, `(B,)` float64, nats."""
        log, _ = self._components(x, t)
        return self.process.log_noise(x.double(), t.double()) + log.logsumexp(1)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """The gradient of `log_prob` in the state, float64."""
        return self.process.score(x.double(), t.double(), self.mean(x, t))

    def _components(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Log-weights, `(B, K)`, as ratios to pure noise, and means in modes, `(B, K, N)`, of the posterior."""
        w, g = _seen(self.process, x, t)
        n = w.shape[1]
        like = self.means.shape[1:]
        mu = flat(self.process.modes(self.means))
        # The covariance between modes: the transform of its rows, then of its columns.
        c = self.covariances.reshape(-1, *like)
        c = flat(self.process.modes(c)).reshape(-1, n, n).mT
        c = flat(self.process.modes(c.reshape(-1, *like))).reshape(-1, n, n)
        size = len(w) if len(g) == 1 else max(1, _NUMBERS // (len(mu) * n * n))
        parts = []
        for i in range(0, max(1, len(w)), max(1, size)):
            rows, scale = w[i : i + size], (g[i : i + size] if len(g) > 1 else g).expand(-1, n)
            total = torch.eye(n).to(c) + scale[:, None, :, None] * c * scale[:, None, None, :]  # (1 or B, K, N, N)
            root = torch.linalg.cholesky(total)
            off = (rows[:, None] - scale[:, None] * mu)[..., None]
            half = torch.linalg.solve_triangular(root, off, upper=False)
            whole = torch.linalg.solve_triangular(root.mT, half, upper=True)
            z = mu + (c @ (scale[:, None, :, None] * whole))[..., 0]
            log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            log = (rows.square().sum(1)[:, None] - half.square().sum((2, 3))) / 2 - log_det
            parts.append((self.log_weights + log, z))
        log, z = (torch.cat(column) for column in zip(*parts, strict=True))
        return log, z
