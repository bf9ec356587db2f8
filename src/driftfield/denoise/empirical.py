"""The exact denoiser of a finite set of data: every datum, weighted by the kernel at `x`, streamed like attention.

Squared distances come from one matrix product per tile, `|x - a y|^2 = |z|^2 - 2 a z.u + a^2 |u|^2` with `z` and `u`
measured from the data's centre. Its rounding error, about `eps |z| |u|`, is divided by `sigma^2` in a log-weight, so
at small noise the product alone cannot rank near neighbours in float32. Hence, for every row,

1. the nearest few data are recomputed by differences in float64, which also *measures* the error of the product;
2. if, within that error, all other data together weigh less than rounding, the few are the whole posterior;
3. otherwise the streamed sums are used, if the measured error cannot move the mean by 1e-4 of the data's scale;
4. rows for which neither holds (a crowd of near-duplicates at tiny noise) run again in float64.

Step 4 makes the host wait for one flag per call; input in float64 needs no such flag. So does a condition, for the
check of its classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor

from ..process.base import Isotropic
from ..process.structured import GaussianProcess
from .observed import ObservedData

_NEAREST = 16  # data per row that are recomputed
_ROWS = 1024  # rows at a time: a tile of distances is then 8 MiB in float32
_CACHED = 1 << 18  # numbers converted at a time: 2 MiB in float64
_GATHER = 1 << 20  # numbers gathered at a time: 8 MiB in float64
_SAFETY = 4  # from the largest error among 16 to the largest among a million: normal errors give 5.2 / 1.8
_TOLERANCE = 400  # units of rounding: 5e-5 of the data's scale in float32


@dataclass(frozen=True, eq=False)
class Empirical:
    """The mean of `x_0` given `x_t = x`, when `x_0` is one of `data`, all equally likely.

    Shapes: `data` is `(M, *data)`; `labels`, if given, `(M,)` int64 classes >= 0; `x` is a state, `(B, *data)` unless
            the process adds to it; `t` is `()` or `(B,)` and not 0; `cond` is `()` or `(B,)` int64: only data of that
            class count, and -1 means all.
    Exact:  in float64 to rounding, in float32 to 1e-4 of the data's root mean square about its mean or to one rounding
            of the output, whichever is more, for any offset of the data and any noise. Memory beyond the data: a few
            tensors of 1024 x `tile` and of `tile` x N. CLD and Blur work in float64 throughout (`ObservedData`).
    Raises: TypeError for a process that is neither; ValueError for shapes, labels or conditions that do not fit.
    Source: Xu et al. 2023, App. A (STF); the law of each process in place of the Gaussian. [xu2023stf]
    """

    process: Isotropic | GaussianProcess
    data: Tensor
    labels: Tensor | None = None
    tile: int = 2048
    _origin: Tensor | None = field(init=False, repr=False)  # (N,) float64, or None where centring gains nothing
    _norms: Tensor = field(init=False, repr=False)  # (M,) float64, squared and from the origin
    _scale: Tensor = field(init=False, repr=False)  # (), root of the mean squared distance from the mean
    _counts: Tensor | None = field(init=False, repr=False)  # (C,) float64, data in each class
    _observed: ObservedData | None = field(init=False, repr=False)  # for what is not isotropic

    def __post_init__(self) -> None:
        if not any(hasattr(self.process, name) for name in ("log_drop", "observe")):
            raise TypeError(f"Empirical needs an isotropic or Gaussian process, got {type(self.process).__name__}")
        if self.data.ndim < 2 or not len(self.data) or not self.data.is_floating_point():
            raise ValueError(f"data must be real, (M, *data), M >= 1, got {self.data.dtype} {tuple(self.data.shape)}")
        if self.tile < 1:
            raise ValueError(f"a tile holds at least one datum, got tile={self.tile}")
        m = len(self.data)
        mean = torch.stack([rows.sum(0) for rows in self._double()]).sum(0) / m
        spread = self._squares(mean).sum() / m
        # Within two spreads of 0 the data are centred well enough, and no tile needs to be copied.
        off = bool(mean.square().sum() > 4 * spread)
        origin = mean.to(self.data.dtype).double() if off else None  # rounded: the same number in every precision
        norms = self._squares(torch.zeros_like(mean) if origin is None else origin)
        counts = None
        if self.labels is not None:
            if self.labels.shape != (m,) or self.labels.dtype != torch.int64 or bool((self.labels < 0).any()):
                shape = tuple(self.labels.shape)
                raise ValueError(f"labels must be ({m},) int64 and >= 0, got {self.labels.dtype} {shape}")
            counts = self.labels.bincount().double()
        general = None
        if not hasattr(self.process, "log_drop"):
            general = ObservedData(self.process, self.data, self.labels, counts, self.tile)
        self.__dict__.update(_origin=origin, _norms=norms, _scale=spread.sqrt(), _counts=counts, _observed=general)

    @property
    def _law(self) -> Isotropic:
        return cast(Isotropic, self.process)

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """`E[x_0 | x_t = x]`, shaped and typed like `x`; the arithmetic is in float32 or higher."""
        cond, n = self._check(x, t, cond), self.data[0].numel()
        if self._observed is not None:
            return self._observed.mean(x, t, cond).to(x.dtype)
        work = torch.promote_types(x.dtype, torch.float32)
        y, _, sound = self._posterior(x.to(work), t, cond, n)
        if work != torch.float64 and not bool(sound.all()):
            rows = (~sound).nonzero()[:, 0]
            at = (x[rows].double(), t[rows] if t.ndim else t, None if cond is None else cond[rows])
            y = y.index_copy(0, rows, self._posterior(*at, n)[0])
        return y.to(x.dtype).reshape(x.shape)

    def log_prob(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """The log-density of `x_t` at `x`, the mean of the kernels around the data: `(B,)`, nats, through float64."""
        cond, n = self._check(x, t, cond), self.data[0].numel()
        if self._observed is not None:
            return self._observed.log_prob(x, t, cond).to(x.dtype)
        return self._posterior(x.double(), t, cond, n)[1].to(x.dtype)

    def score(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """The gradient of `log_prob` in `x`, at any law of the noise, shaped and typed like `x`, through float64.

        The kernel of a mixture of Gaussians in `n` dimensions has the slope `k_n' = -pi k_(n+2)` in its squared
        radius, so the score is `-2 pi p_(n+2) / p_n (x - alpha y_(n+2))`: the same sums with two dimensions more.
        Source: Schoenberg 1938: laws isotropic in every dimension mix Gaussians. [schoenberg1938metric]
        """
        cond, n = self._check(x, t, cond), self.data[0].numel()
        if self._observed is not None:
            return self._observed.score(x, t, cond).to(x.dtype)
        x64, a = x.double().flatten(1), self._law.alpha(_column(t))
        y, above, _ = self._posterior(x64, t, cond, n + 2)
        _, below, _ = self._posterior(x64, t, cond, n)
        return (-2 * math.pi * (above - below).exp()[:, None] * (x64 - a * y)).to(x.dtype).reshape(x.shape)

    def _check(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor | None:
        """Refuse what does not fit; the condition comes back as `(B,)`."""
        if x.ndim < 2 or x.shape[1:] != (state := self.process.lift(self.data[:1]).shape[1:]):
            raise ValueError(f"x must be (B, {', '.join(map(str, state))}), got {tuple(x.shape)}")
        if t.ndim > 1 or (t.ndim and len(t) != len(x)):
            raise ValueError(f"t must be one time, or one for each of the {len(x)} rows, got shape {tuple(t.shape)}")
        if cond is None:
            return None
        if self._counts is None:
            raise ValueError("this Empirical was given no labels, so it takes no condition; pass labels=...")
        if cond.dtype != torch.int64 or cond.shape not in ((), (len(x),)):
            raise ValueError(f"a condition is () or ({len(x)},) int64, got {cond.dtype} {tuple(cond.shape)}")
        known = torch.cat((self._counts, self._counts.new_ones(1))) > 0  # index -1 is the last: every class
        inside = (cond >= -1) & (cond < len(self._counts))
        if not bool((inside & known[cond.where(inside, -1)]).all()):
            raise ValueError(f"a condition names a class without data: {sorted(set(cond.flatten().tolist()))}")
        return cond.expand(len(x))

    def _tiles(self, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
        """The first index of every tile and its rows less the origin, `(T, N)`: a view where there is no origin."""
        for start in range(0, len(self.data), self.tile):
            rows = self.data[start : start + self.tile].flatten(1)
            if self._origin is not None:  # subtracted in the finer of the two precisions
                rows = rows.to(torch.promote_types(rows.dtype, dtype)) - self._origin.to(rows.dtype)
            yield start, rows.to(dtype)

    def _double(self) -> Iterator[Tensor]:
        """All rows in float64, in pieces that stay in a processor's cache."""
        size = max(1, _CACHED // self.data[0].numel())
        for start in range(0, len(self.data), size):
            yield self.data[start : start + size].flatten(1).double()

    def _squares(self, centre: Tensor) -> Tensor:
        """The squared distances of the data from `centre`, `(M,)` float64."""
        return torch.cat([(rows - centre).square().sum(1) for rows in self._double()])

    def _posterior(self, x: Tensor, t: Tensor, cond: Tensor | None, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """`_rows` for any number of rows, in the precision of `x`, whatever autocast is in force around it."""
        with torch.autocast(x.device.type, enabled=False):
            parts = []
            for start in range(0, max(1, len(x)), _ROWS):
                part = slice(start, start + _ROWS)
                label = None if cond is None else cond[part]
                parts.append(self._rows(x[part].flatten(1), t[part] if t.ndim else t, label, n))
            y, log_prob, sound = (torch.cat(column) for column in zip(*parts, strict=True))
            return y, log_prob, sound

    def _rows(self, x: Tensor, t: Tensor, cond: Tensor | None, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """For the kernel in `n` dimensions: the mean `(B, N)` and log-density `(B,)` in float64, and what to trust."""
        process, m = self._law, len(self.data)
        time = _column(t)
        a = process.alpha(time)
        z = x.double() if self._origin is None else x.double() - a * self._origin
        base = z.square().sum(1, keepdim=True)
        sums = self._stream(z, base, time, cond, n, x.dtype)
        few = self._nearest(x, time, sums, n)
        with torch.no_grad():
            alone, sound = self._judge(base, time, sums, few, n, torch.finfo(x.dtype).eps)
        streamed = sums.mean.double() / sums.mass.double()
        if self._origin is not None:
            streamed = streamed + self._origin
        log_sum = torch.where(
            alone,
            process.log_profile(few.least, time, n) + few.log_weight.exp().sum(1, keepdim=True).log(),
            process.log_profile(sums.floor.double(), time, n) + sums.mass.double().log(),
        )
        count: Tensor | float = math.log(m)
        if cond is not None and self._counts is not None:
            count = torch.where(cond < 0, m, self._counts[cond.clamp(min=0)]).log()[:, None]
        log_prob = (log_sum + process.log_peak(time, n) - count)[:, 0]
        return torch.where(alone, few.mean, streamed), log_prob, sound[:, 0]

    def _stream(self, z: Tensor, base: Tensor, time: Tensor, cond: Tensor | None, n: int, dtype: torch.dtype) -> _Sums:
        """Sums over all data with running references; squared distances are kept less `base = |z|^2`."""
        t = time.to(dtype) if time.ndim else time
        a = self._law.alpha(time)
        key, square, base = (-2 * a * z).to(dtype), a.square().to(dtype), base.to(dtype)
        far, few = torch.finfo(dtype).max / 8, min(_NEAREST, len(self.data))
        mass, power, mean = torch.zeros_like(base), torch.zeros_like(base), torch.zeros_like(key)
        near, floor = torch.full_like(base, far).expand(-1, few), base
        which = torch.zeros(near.shape, dtype=torch.int64, device=z.device)
        for start, u in self._tiles(dtype):
            norms = self._norms[start : start + len(u)].to(dtype)
            rise = torch.addmm(square * norms, key, u.mT)
            ranked, match, low = rise.detach(), None, near[:, :1]
            if cond is not None and self.labels is not None:
                match = (cond[:, None] < 0) | (cond[:, None] == self.labels[start : start + len(u)])
                ranked = ranked.where(match, far)
            best, at = ranked.topk(min(few, len(u)), largest=False)
            near, pick = torch.cat((near, best), 1).topk(few, largest=False)
            which = torch.cat((which, at + start), 1).gather(1, pick)
            # The least distance so far carries the largest weight, because every kernel falls with distance.
            least = near[:, :1]
            floor = (base + least).clamp(min=0)  # a square, which rounding may take below 0
            rise = rise - least if match is None else (rise - least).where(match, 0)
            weight = self._law.log_drop(floor, rise, t, n).exp()
            if match is not None:
                weight = weight.where(match, 0)
            fade = self._law.log_drop(floor, (low - least).where(low < far, 0), t, n).exp()
            mass = mass * fade + weight.sum(1, keepdim=True)
            power = power * fade + (weight @ norms)[:, None]
            mean = mean * fade + weight @ u
        guess = self._law.log_drop(floor, near - near[:, :1], t, n)
        return _Sums(mass, power, mean, floor, near, which, guess)

    def _nearest(self, x: Tensor, time: Tensor, sums: _Sums, n: int) -> _Few:
        """The nearest few data again, by differences in float64.

        A squared distance less the least one is a product of a difference and a sum, `(r - r') . (r + r')`, which
        cancels neither close to the data nor very far from them.
        """
        parts = []
        size = max(1, _GATHER // (sums.which.shape[1] * x.shape[1]))
        for start in range(0, max(1, len(x)), size):
            part = slice(start, start + size)
            t = time[part] if time.ndim else time
            a = self._law.alpha(t)
            a = a[..., None] if a.ndim else a  # a number stays one: it may be on the CPU, the data elsewhere
            valid = sums.near[part] < torch.finfo(x.dtype).max / 8
            y = self.data[sums.which[part]].flatten(2).double()
            r = x[part, None].double() - a * y
            d2 = r.square().sum(2)
            at = d2.where(valid, math.inf).argmin(1)
            row = torch.arange(len(at), device=x.device)
            rise = -(a * (y - y[row, at][:, None]) * (r + r[row, at][:, None])).sum(2)
            least = d2[row, at][:, None]
            log_weight = self._law.log_drop(least, rise, t, n).where(valid, -math.inf)
            mean = (log_weight.softmax(1)[:, None] @ y)[:, 0]
            parts.append(_Few(mean, d2, least, log_weight))
        return _Few(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _judge(self, base: Tensor, time: Tensor, sums: _Sums, few: _Few, n: int, eps: float) -> tuple[Tensor, Tensor]:
        """`(B, 1)` each: whether the nearest few are the whole posterior, and whether the result is accurate."""
        drop, m, reach = self._law.log_drop, len(self.data), self._norms.max()
        unit = eps * self._law.alpha(time).abs() * (base * reach).sqrt()  # one rounding of the largest product
        valid = few.log_weight > -math.inf
        near = sums.near.double()
        error = (base + near - few.d2).abs().where(valid, 0).amax(1, keepdim=True)
        beyond = base + near[:, -1:] - torch.maximum(_SAFETY * error, unit) - few.least  # the others are no nearer
        alone = drop(few.least, beyond.clamp(min=0), time, n) < math.log(eps / m)
        if near.shape[1] == m:
            alone = torch.ones_like(alone)
        shift = sums.guess.double() - few.log_weight  # only its variation matters: weights are relative
        wander = _SAFETY * (shift.amax(1, keepdim=True) - shift.amin(1, keepdim=True))
        wander = torch.maximum(wander, -drop(few.least, unit, time, n))
        share = sums.mean.double() / sums.mass
        spread = (sums.power.double() / sums.mass - share.square().sum(1, keepdim=True)).clamp(min=0)
        width = (spread + 4 * eps * reach).sqrt()  # of the posterior, no less than rounding can show
        return alone, alone | ((wander <= 1) & (wander * width <= _TOLERANCE * eps * self._scale))


class _Sums(NamedTuple):
    """What the stream leaves, for each row: sums relative to the kernel at the least distance, and the nearest few."""

    mass: Tensor  # (B, 1), of weights
    power: Tensor  # (B, 1), of weights times squared norms
    mean: Tensor  # (B, N), of weights times data
    floor: Tensor  # (B, 1), the least squared distance
    near: Tensor  # (B, k), the least squared distances less `base`, in order
    which: Tensor  # (B, k), which data these are
    guess: Tensor  # (B, k), their log-weights relative to the first


class _Few(NamedTuple):
    """The nearest few data of each row, in float64."""

    mean: Tensor  # (B, N), weighted
    d2: Tensor  # (B, k), squared distances
    least: Tensor  # (B, 1), the least of them
    log_weight: Tensor  # (B, k), relative to the least; -inf where the condition leaves fewer data


def _column(t: Tensor) -> Tensor:
    """A time in float64, `()` or `(B, 1)`."""
    return t.double()[:, None] if t.ndim else t.double()
