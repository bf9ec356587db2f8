"""How uncertain a training target is at each level of noise, and how much of that a reference takes away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..linear import flat
from ..process.base import Isotropic, Process
from ..rng import integers, seeded
from .laws import Times

ROWS = 16  # noisy samples that are compared with each reference
_DRAWS = 1 << 16  # of training times, whose shares are then known to 0.2 %
_SHARED = 1.05  # data that share a target, from which on a reference is worth its cost


@dataclass(frozen=True)
class Phases:
    """Variances of training targets by level of noise, for data that are all equally likely.

    Variances are of the target in units of the score, `Tr Cov / level^4`: `single` that of `Matching`'s target given
    `x_t`, and `stable[i]` that of the stable target with a reference of `sizes[i]`, with their standard errors.
    Numbers of data that share a target, `1 / sum w^2` on average: `among_all` of the `items`, `among[i]` in a reference
    of `sizes[i]`, where what was drawn twice is one. `divergence` is how far the posterior is from even (`uneven`).
    """

    items: int
    sizes: tuple[int, ...]
    levels: tuple[float, ...]
    single: tuple[float, ...]
    single_error: tuple[float, ...]
    stable: tuple[tuple[float, ...], ...]
    stable_error: tuple[tuple[float, ...], ...]
    among_all: tuple[float, ...]
    among: tuple[tuple[float, ...], ...]
    divergence: tuple[float, ...]

    @property
    def phase(self) -> tuple[int, ...]:
        """1 where one datum could have made `x_t`, 2 where several could that differ, 3 where many could, much alike.

        The second is where the variance of the noise that a network is asked for, `level^2 single`, is at least a tenth
        of its largest: that is independent of the units of the data.
        """
        noise = [v * level**2 for v, level in zip(self.single, self.levels, strict=True)]
        top = noise.index(max(noise))
        return tuple(2 if v >= max(noise) / 10 else 1 if i < top else 3 for i, v in enumerate(noise))

    def onset(self, size: int) -> float:
        """The level from which on more than 1.05 data share a target, in a reference of this size; inf where none is.

        Raises: ValueError for a size that was not measured.
        """
        if size not in self.sizes:
            raise ValueError(f"references of {', '.join(map(str, self.sizes))} were measured, not of {size}")
        shared = self.among[self.sizes.index(size)]
        last = max((i for i, n in enumerate(shared) if n < _SHARED), default=-1)
        if last < 0 or last + 1 == len(shared):
            return self.levels[0] if last < 0 else math.inf
        low, high = math.log(self.levels[last]), math.log(self.levels[last + 1])
        part = (_SHARED - shared[last]) / (shared[last + 1] - shared[last])
        return math.exp(low + part * (high - low))

    def share(self, process: Process, times: Times, size: int) -> float:
        """The share of the training times of a law at which a reference of this size helps, at or above its `onset`."""
        drawn = times(process, torch.empty(_DRAWS, 1, dtype=torch.float64), seeded(0))
        return float((process.level(drawn) >= self.onset(size)).double().mean())

    def __str__(self) -> str:
        """A line for each level, variances with the standard error of the first."""
        heads = ["level", "phase", "V_DSM", "+-", *(f"V_STF({n})" for n in self.sizes), "N_eff", "D"]
        columns = [self.single, self.single_error, *self.stable, self.among_all, self.divergence]
        lines = ["".join(f"{h:>{12 if i > 1 else 9}}" for i, h in enumerate(heads))]
        for i, (level, phase) in enumerate(zip(self.levels, self.phase, strict=True)):
            cells = "".join(f"{_short(column[i]):>12}" for column in columns)
            lines.append(f"{level:>9.3g}{phase:>9}{cells}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """All fields by name, and `phase`, as plain values that JSON keeps."""
        return {**asdict(self), "phase": self.phase}


def _short(v: float) -> str:
    return "0" if v < 1e-99 else f"{v:.3g}"


def phases(
    process: Isotropic,
    data: Tensor,
    levels: Sequence[float],
    sizes: Sequence[int] = (256, 1024, 4096),
    groups: int = 16,
    seed: int = 0,
) -> Phases:
    """Measure `data` `(M, *shape)` at the `levels`, lowest first, with references of the `sizes`, drawn with `seed`.

    16 noisy samples for each of as many references as there are `groups`, whose means give the standard errors; the
    same ones at every level. Where two data seldom compete, few samples or none show it, and the error is one of order
    1. Products are in the precision of the data, weights in float64; the memory is that of a few `(16, M)`. Sizes above
    `M` are left out.
    Raises: ValueError for fewer than 2 data or groups, or levels that do not rise from above 0.
    Source: Xu et al. 2023, Sec. 3 and Theorem 2. [xu2023stf]
    """
    if data.ndim < 2 or len(data) < 2:
        raise ValueError(f"phases are of two data or more, (M, *shape), got shape {tuple(data.shape)}")
    if groups < 2:
        raise ValueError(f"a standard error takes two groups or more, got groups={groups}")
    if not levels or not all(a < b for a, b in zip((0.0, *levels), levels, strict=False)):
        raise ValueError(f"levels must rise from above 0, got {list(levels)}")
    x = flat(data).to(torch.promote_types(data.dtype, torch.float32))
    x = x - x.double().mean(0).to(x.dtype)
    kept = tuple(n for n in sizes if 1 <= n <= len(x))
    means: list[list[list[float]]] = [[] for _ in levels]  # by level, then group: the columns of `_row`
    norms = x.double().square().sum(1)
    for group in range(groups):
        rng = seeded(seed, group, device=x.device)
        source = integers(torch.empty(ROWS, device=x.device), len(x), rng)
        others = integers(torch.empty(max(kept, default=1) - 1, device=x.device), len(x), rng)
        centre = x[source].double()
        gaps = torch.cat([norms[i : i + len(part)] - 2 * centre @ part.double().mT for i, part in _tiles(x)], 1)
        gaps = (gaps + norms[source, None]).clamp(min=0)  # a square, which rounding may take below 0
        gaps[torch.arange(ROWS), source] = 0
        for i, level in enumerate(levels):
            t = process.time(torch.tensor(level, dtype=torch.float64, device=x.device))
            far = process.perturb(torch.zeros_like(centre), t, seeded(seed, group, 0, device=x.device))
            means[i].append(_group(_Seen(process, t, far, source, gaps), x, others, kept))
    table = torch.tensor(means, dtype=torch.float64)  # (levels, groups, columns)
    mean, error = table.mean(1).T.tolist(), (table.std(1) / math.sqrt(groups)).T.tolist()
    first, second = 3, 3 + len(kept)
    return Phases(
        items=len(x),
        sizes=kept,
        levels=tuple(levels),
        single=tuple(mean[0]),
        single_error=tuple(error[0]),
        stable=tuple(map(tuple, mean[first:second])),
        stable_error=tuple(map(tuple, error[first:second])),
        among_all=tuple(mean[1]),
        among=tuple(map(tuple, mean[second:])),
        divergence=tuple(mean[2]),
    )


def uneven(weights: Tensor) -> Tensor:
    """`sum_j w_j f(1 / M w_j)`, `(B,)`, of weights `(B, M)`: 0 where all are equal, `(M - 1)^2` where one is 1.

    `f(y)` is `(1/y - 1)^2` below 1.5 and its tangent there above, `8 y / 27 - 1 / 3`.
    Source: Xu et al. 2023, Theorem 2. [xu2023stf]
    """
    m = weights.shape[1]
    near = weights * (m * weights - 1).square()
    return torch.where(1.5 * m * weights > 1, near, 8 / (27 * m) - weights / 3).sum(1)


class _Seen(NamedTuple):
    """Noisy samples `alpha x_s + far` of the data `source`, `(B,)`, and how far those are from all data, squared."""

    process: Isotropic
    t: Tensor  # ()
    far: Tensor  # (B, N), float64
    source: Tensor
    gaps: Tensor  # (B, M), float64


def _tiles(x: Tensor) -> list[tuple[int, Tensor]]:
    size = max(1, (1 << 22) // x.shape[1])
    return [(i, x[i : i + size]) for i in range(0, len(x), size)]


def _group(seen: _Seen, x: Tensor, others: Tensor, sizes: tuple[int, ...]) -> list[float]:
    """Means over the samples: variance, data that share a target, divergence; then by size variances, and numbers."""
    process, t, far, source, gaps = seen
    n, a = x.shape[1], process.alpha(t)
    d2 = far.square().sum(1, keepdim=True)
    along = (far.to(x.dtype) @ x.mT).double()
    along = along - along.gather(1, source[:, None])
    rise = a.square() * gaps - 2 * a * along
    log = process.log_drop(d2, rise, t, n)
    unit = process.level(t).double().item() ** 4
    pull = process.pull((d2 + rise).clamp(min=0), t, n)
    own = None if pull is None else pull.gather(1, source[:, None])

    def moved(weights: Tensor, which: Tensor | None) -> Tensor:
        """By how much the mean of the targets of `which` data lies from the source's own one, `(B, N)`."""
        some, apart, pulled = (x, gaps, pull) if which is None else (x[which], gaps[:, which], pull)
        weights = weights.where(apart > 0, 0)  # the source itself, drawn again, moves nothing
        back = torch.zeros_like(far)
        if pulled is not None and own is not None:
            part = weights * (pulled if which is None else pulled[:, which])
            back, weights = (weights.sum(1, keepdim=True) * own - part.sum(1, keepdim=True)) * far, part
        return back + (weights.to(x.dtype) @ some).double() - weights.sum(1, keepdim=True) * x[source].double()

    square = gaps
    if pull is not None and own is not None:
        apart = own - pull
        square = apart.square() * d2 + 2 * apart * pull * along + pull.square() * gaps
    weights = log.softmax(1)
    mean = moved(weights, None)
    variance = (weights * square).sum(1) - mean.square().sum(1)
    columns = [variance / unit, weights.square().sum(1).reciprocal(), uneven(weights)]
    found, shared = [], []
    for size in sizes:
        which = others[: size - 1]
        part = torch.cat((torch.zeros_like(d2), log[:, which]), 1).softmax(1)  # the source comes first
        found.append((moved(part[:, 1:], which) - mean).square().sum(1) / unit)
        once = torch.zeros_like(log).index_add(1, which, part[:, 1:]).scatter_add(1, source[:, None], part[:, :1])
        shared.append(once.square().sum(1).reciprocal())
    return [float(c.mean()) for c in (*columns, *found, *shared)]
