"""The exact denoiser of a finite set of data: every datum, weighted by the kernel at `x`, streamed like attention.

Squared distances come from one matrix product per tile, `|x - a y|^2 = |z|^2 - 2 a z.u + a^2 |u|^2` with `z` and `u`
measured from the data's centre. Its rounding error, about `eps |z| |u|`, is divided by `sigma^2` in a log-weight, so
at small noise the product alone cannot rank near neighbours in float32. Hence, for every row,

1. the nearest few data are recomputed by differences in float64, which also *measures* the error of the product;
2. if, within that error, all other data together weigh less than rounding, the few are the whole posterior;
3. otherwise the streamed sums are used, if the measured error cannot move the mean by 1e-4 of the data's scale;
4. rows for which neither holds (a crowd of near-duplicates at tiny noise) run again in float64.

Step 4 makes the host wait for one flag per call; input in float64 needs no such flag. So does a condition, for the
check of its classes. Laws whose target is not the datum (`Isotropic.pull`) run in float64 throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple, cast

import torch
from torch import Tensor

from ..process.base import Isotropic
from ..process.structured import GaussianProcess
from .observed import ObservedData
from .stream import Lean, Points, Sums, stream

_NEAREST = 16  # data per row that are recomputed
_FEW = 64  # dimensions up to which an accelerator takes differences, in one kernel
_ROWS = 1024  # rows at a time: a tile of distances is then 8 MiB in float32
_GATHER = 1 << 20  # numbers gathered at a time: 8 MiB in float64
_SAFETY = 4  # from the largest error among 16 to the largest among a million: normal errors give 5.2 / 1.8
_TOLERANCE = 400  # units of rounding: 5e-5 of the data's scale in float32


@dataclass(frozen=True, eq=False)
class Empirical:
    """The mean of the target given `x_t = x`, when `x_0` is one of `data`, all equally likely.

    The target is the datum itself, or `x - pull (x - x_0)` for a law that changes shape (`Isotropic.pull`).

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
    compiled: bool = False
    _points: Points = field(init=False, repr=False)
    _counts: Tensor | None = field(init=False, repr=False)  # (C,) float64, data in each class
    _observed: ObservedData | None = field(init=False, repr=False)  # for what is not isotropic
    _pulls: bool = field(init=False, repr=False)  # whether the target is not the datum
    _known: bool = field(init=False, repr=False)  # whether the noise is Gaussian or Student's t

    def __post_init__(self) -> None:
        if not any(hasattr(self.process, name) for name in ("log_drop", "observe")):
            raise TypeError(f"Empirical needs an isotropic or Gaussian process, got {type(self.process).__name__}")
        if self.data.ndim < 2 or not len(self.data) or not self.data.is_floating_point():
            raise ValueError(f"data must be real, (M, *data), M >= 1, got {self.data.dtype} {tuple(self.data.shape)}")
        if self.tile < 1:
            raise ValueError(f"a tile holds at least one datum, got tile={self.tile}")
        m = len(self.data)
        counts = None
        if self.labels is not None:
            if self.labels.shape != (m,) or self.labels.dtype != torch.int64 or bool((self.labels < 0).any()):
                shape = tuple(self.labels.shape)
                raise ValueError(f"labels must be ({m},) int64 and >= 0, got {self.labels.dtype} {shape}")
            counts = self.labels.bincount().double()
        points, general = Points.of(self.data, self.labels, self.tile), None
        if not hasattr(self.process, "log_drop"):
            general = ObservedData(self.process, self.data, self.labels, counts, self.tile)
        pulls = False
        if general is None:
            at = torch.tensor(self.process.span[1], dtype=torch.float64)
            pulls = self._law.pull(torch.zeros((), dtype=torch.float64), at, self.data[0].numel()) is not None
        known = general is None and not pulls and _has_freedom(self._law)
        self.__dict__.update(_points=points, _counts=counts, _observed=general, _pulls=pulls, _known=known)

    @property
    def _law(self) -> Isotropic:
        return cast(Isotropic, self.process)

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """`E[target | x_t = x]`, shaped and typed like `x`; the arithmetic is in float32 or higher."""
        cond, n = self._check(x, t, cond), self.data[0].numel()
        if self._observed is not None:
            return self._observed.mean(x, t, cond).to(x.dtype)
        work = torch.float64 if self._pulls else torch.promote_types(x.dtype, torch.float32)
        if self._fits(x, n, cond) and work == torch.float32:
            y, sound = self._kernel(x.to(work).flatten(1), t)
        else:
            y, _, sound, _ = self._posterior(x.to(work), t, cond, n, self._rest if self._pulls else None)
        if work != torch.float64 and not bool(sound.all()):
            rows = (~sound).nonzero()[:, 0]
            at = (x[rows].double(), t[rows] if t.ndim else t, None if cond is None else cond[rows])
            y = y.index_copy(0, rows, self._posterior(*at, n)[0])
        return y.to(x.dtype).reshape(x.shape)

    def _fits(self, x: Tensor, n: int, cond: Tensor | None) -> bool:
        """Whether the kernel of `fused` serves: few dimensions, Student's t or Gaussian, on an NVIDIA accelerator."""
        plain = cond is None and not (x.requires_grad and torch.is_grad_enabled())
        return plain and x.is_cuda and torch.version.cuda is not None and n <= _FEW and self._known and _has_triton()

    def _kernel(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        from .fused import fused_mean

        return fused_mean(self._law, self._points, x, t)

    def log_prob(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """The log-density of `x_t` at `x`, the mean of the kernels around the data: `(B,)`, nats, through float64."""
        cond, n = self._check(x, t, cond), self.data[0].numel()
        if self._observed is not None:
            return self._observed.log_prob(x, t, cond).to(x.dtype)
        return self._posterior(x.double(), t, cond, n)[1].to(x.dtype)

    def rate(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """Births for each particle at `x` and unit of time, the mean of those by each datum: `(B,)`, through float64.

        Negative numbers are deaths. The logarithm of a particle's weight grows at this rate as time does.
        Raises: TypeError for a process that keeps its mass.
        """
        cond, n = self._check(x, t, cond), self.data[0].numel()
        if self._observed is not None or self._law.rate(t.new_zeros(()), t.flatten()[:1].double(), n) is None:
            raise TypeError(f"{type(self.process).__name__} keeps its mass: it has no births or deaths")
        return self._posterior(x.double(), t, cond, n, self._births)[3].to(x.dtype)

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
        y, above, _, _ = self._posterior(x64, t, cond, n + 2)
        _, below, _, _ = self._posterior(x64, t, cond, n)
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

    def _rest(self, d2: Tensor, t: Tensor, n: int) -> Tensor:
        return 1 - cast(Tensor, self._law.pull(d2, t, n))

    def _births(self, d2: Tensor, t: Tensor, n: int) -> Tensor:
        return cast(Tensor, self._law.rate(d2, t, n))

    def _posterior(
        self, x: Tensor, t: Tensor, cond: Tensor | None, n: int, lean: Lean | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`_rows` for any number of rows, in the precision of `x`, whatever autocast is in force around it."""
        with torch.autocast(x.device.type, enabled=False):
            parts = []
            for start in range(0, max(1, len(x)), _ROWS):
                part = slice(start, start + _ROWS)
                label = None if cond is None else cond[part]
                parts.append(self._rows(x[part].flatten(1), t[part] if t.ndim else t, label, n, lean))
            y, log_prob, sound, leaning = (torch.cat(column) for column in zip(*parts, strict=True))
            return y, log_prob, sound, leaning

    def _rows(
        self, x: Tensor, t: Tensor, cond: Tensor | None, n: int, lean: Lean | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """For the kernel in `n` dimensions: means `(B, N)`, log-densities `(B,)`, what to trust, means of `lean`.

        The first mean is that of `(1 - lean) x_0 + lean x`; all are float64.
        """
        process, m, points = self._law, len(self.data), self._points
        time = _column(t)
        a = process.alpha(time)
        z = x.double() if points.origin is None else x.double() - a * points.origin
        base = z.square().sum(1, keepdim=True)
        fuse = self.compiled and x.dtype == torch.float32 and not x.requires_grad
        sums = stream(process, points, z, time, cond, n=n, few=_NEAREST, dtype=x.dtype, lean=lean, compiled=fuse)
        few = self._nearest(x, time, sums, n, lean)
        with torch.no_grad():
            alone, sound = self._judge(base, time, sums, few, n, torch.finfo(x.dtype).eps)
        streamed, leaning = sums.mean.double() / sums.mass.double(), sums.lean.double() / sums.mass.double()
        if lean is not None:
            streamed = streamed + leaning * z
        if points.origin is not None:
            streamed = streamed + points.origin
        log_sum = torch.where(
            alone,
            process.log_profile(few.least, time, n) + few.log_weight.exp().sum(1, keepdim=True).log(),
            process.log_profile(sums.floor.double(), time, n) + sums.mass.double().log(),
        )
        count: Tensor | float = math.log(m)
        if cond is not None and self._counts is not None:
            count = torch.where(cond < 0, m, self._counts[cond.clamp(min=0)]).log()[:, None]
        log_prob = (log_sum + process.log_peak(time, n) - count)[:, 0]
        leaning = torch.where(alone, few.lean, leaning)[:, 0]
        return torch.where(alone, few.mean, streamed), log_prob, sound[:, 0], leaning

    def _nearest(self, x: Tensor, time: Tensor, sums: Sums, n: int, lean: Lean | None) -> _Few:
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
            weight, leaning = log_weight.softmax(1), torch.zeros_like(least)
            if lean is not None:
                tilted = weight * lean(d2, t, n)
                leaning, weight = tilted.sum(1, keepdim=True), weight - tilted
            mean = (weight[:, None] @ y)[:, 0] + leaning * x[part].double()
            parts.append(_Few(mean, leaning, d2, least, log_weight))
        return _Few(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _judge(self, base: Tensor, time: Tensor, sums: Sums, few: _Few, n: int, eps: float) -> tuple[Tensor, Tensor]:
        """`(B, 1)` each: whether the nearest few are the whole posterior, and whether the result is accurate."""
        drop, m, reach = self._law.log_drop, len(self.data), self._points.norms.max()
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
        return alone, alone | ((wander <= 1) & (wander * width <= _TOLERANCE * eps * self._points.scale))


class _Few(NamedTuple):
    """The nearest few data of each row, in float64."""

    mean: Tensor  # (B, N), weighted
    lean: Tensor  # (B, 1), the weighted mean of a function of the squared distances, or 0
    d2: Tensor  # (B, k), squared distances
    least: Tensor  # (B, 1), the least of them
    log_weight: Tensor  # (B, k), relative to the least; -inf where the condition leaves fewer data


def _has_freedom(law: Isotropic) -> bool:
    try:
        return law.freedom > 0
    except TypeError:
        return False


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _column(t: Tensor) -> Tensor:
    """A time in float64, `()` or `(B, 1)`."""
    return t.double()[:, None] if t.ndim else t.double()
