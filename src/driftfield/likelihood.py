"""The density of a point under a model: along the flow to the prior, adding up the divergence.

Along the deterministic flow a density changes by `d log p_t(x_t) / dt = -div v(x_t, t)`, so that
`log p(x) = log p_T(x_T) + integral of div v from t_0 to T`, with `x` at the time `t_0` of least noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .batches import bar, rows_of
from .denoise.base import Denoiser, evaluations
from .field.reverse import Reverse
from .field.wrap import Counted, WithDivergence
from .linear import Block, flat
from .names import pick
from .process.base import Process
from .process.structured import GaussianProcess
from .rng import Rng, integers, normal, rows, seeded, uniform
from .solve.adaptive import DormandPrince
from .solve.base import Solver, sample
from .solve.rk import RK4

SMALL = 64  # numbers in a state, up to which the divergence is exact unless said otherwise
PIXEL = 1 / 127.5  # the step between neighbouring values of an 8-bit image, in the units of images in [-1, 1]
_CELLS = 0x43454C4C  # the key of the stream that spreads values over their cells
_VELOCITIES = 0x56454C  # and of that which completes states

_NOISES: dict[str, Callable[[Tensor, Rng], Tensor]] = {
    "rademacher": lambda like, rng: integers(like, 2, rng).to(like) * 2 - 1,
    "gaussian": normal,
}


def log_prob(
    process: Process,
    denoiser: Denoiser,
    x: Tensor,
    *,
    cond: Any = None,
    divergence: str = "auto",
    probes: int = 1,
    noise: str = "rademacher",
    seed: int = 0,
    first: int = 0,
    grid: Tensor | None = None,
    solver: Solver | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    prior: Callable[[Tensor], Tensor] | None = None,
    batch: int = 256,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
    progress: bool = False,
) -> Tensor:
    """The log-density of the model at `x` `(B, *data)`, `(B,)` in nats: that of its law at the least noise, `span[0]`.

    It is that of data carrying this little noise, not of the data; and it begins at the process's prior, not at the
    law that the data have become at the most noise, unless `prior` is the log-density there, `(B, ...) -> (B,)`. Both
    differences are of the model and not of the numbers; the guide to likelihood says how large they are.

    `divergence` is "exact", a gradient for each number of `x`; "hutchinson", an unbiased estimate by a gradient for
    each of the `probes`, random directions whose `noise` is "rademacher" (signs) or "gaussian"; or "auto", exact for
    up to 64 numbers. Probes stay the same along a path and depend on `(seed, first + i)` in row `i`, whatever the
    `batch`. The denoiser must be differentiable in `x`.

    Under CLD, whose states are positions and velocities, it is a lower bound in the mean: `log p(x, v) - log q(v | x)`
    for one velocity, drawn by `(seed, first + i)`; `log p(x)` is above the mean of it by the divergence of `q` from
    the model's own law of velocities.

    The path goes from `span[0]` to `span[1]` by `DormandPrince(rtol, atol, clock="log")`; with `grid`, by RK4 along its
    times, in whichever order (a last time 0 is left out), unless `solver` says otherwise; the density is then that at
    the least of them. `cond` is passed to the denoiser, tensors of length B split with the batch. States and densities
    are of `dtype`; a `Preconditioned` network still runs in its own.

    The result has two attributes: `error` `(B,)`, the standard error over the probes, 0 if exact, NaN for one probe;
    and `nfe`, the evaluations of the denoiser for each row (of an adaptive solver, the most of any).
    Raises: ValueError for bad options or data; TypeError for a denoiser without gradients; FloatingPointError where
            the result is not finite.
    Source: Song et al. 2021, Sec. 4.3 and App. D.2; Grathwohl et al. 2019. [song2021score] [grathwohl2019ffjord]
    """
    pick(divergence, {k: k for k in ("auto", "exact", "hutchinson")}, "divergence")
    draw = pick(noise, _NOISES, "noise")
    if probes < 1 or batch < 1:
        raise ValueError(f"probes and batch must be at least 1, got probes={probes} and batch={batch}")
    if x.ndim < 2 or not bool(x.isfinite().all()):
        raise ValueError(f"x should be finite and (B, *data), got {'values that are not' if x.ndim > 1 else x.shape}")
    path, solver = _route(process, grid, solver, rtol, atol)
    if prior is None:
        if abs(path[-1].item() - process.span[1]) > 1e-9 * process.span[1]:
            raise ValueError(
                f"the prior is the law at time span[1]={process.span[1]:g} but the path ends at {path[-1]:g}; "
                "give the log-density there as prior="
            )
        prior = process.prior_log_prob
    exact = divergence == "exact" or (divergence == "auto" and math.prod(x.shape[1:]) <= SMALL)
    found, errors, spent = torch.empty(len(x), dtype=dtype), torch.zeros(len(x), dtype=dtype), 0
    with bar("log-density", len(x), 1, progress) as advance:
        for i in range(0, len(x), batch):
            j = min(i + batch, len(x))
            part, beside = _state(process, x[i:j].to(device, dtype), path[0], seed, first + i)
            signs = None
            if not exact:
                like = part.new_empty(j - i, probes, *part.shape[1:])
                signs = draw(like, rows(seed, first + i, first + j, device))
            counted = Counted(denoiser)
            field = Reverse(process, counted, rows_of(cond, i, j, len(x)))
            if i == 0:
                _differentiable(field, part, path[0])
                counted.calls = 0
            flow = WithDivergence(field, tuple(part.shape[1:]), signs)
            top, gained = flow.unpack(sample(flow, flow.pack(part), path, solver, seeded(seed, device=device)))
            with torch.no_grad():
                start = prior(top)
                _within_reach(process, top, start, i)
                found[i:j] = (start + gained.mean(1) - beside).cpu()
            if not exact:
                errors[i:j] = (gained.std(1) / math.sqrt(probes)).cpu() if probes > 1 else math.nan
            spent = max(spent, counted.calls * evaluations(denoiser))
            advance(j - i)
    if not bool(found.isfinite().all()):
        row = int((~found.isfinite()).nonzero()[0])
        raise FloatingPointError(
            f"the log-density of row {row} is {found[row]}; check the denoiser, or use a finer grid"
        )
    found.error, found.nfe = errors, spent  # type: ignore[attr-defined]
    return found


def _route(
    process: Process, grid: Tensor | None, solver: Solver | None, rtol: float, atol: float
) -> tuple[Tensor, Solver]:
    """The times from least to most, and what walks them."""
    if grid is None:
        if solver is not None and not solver.adaptive:
            raise ValueError(f"{type(solver).__name__} takes the steps of a grid; give grid=, or no solver")
        return torch.tensor(process.span, dtype=torch.float64), solver or DormandPrince(rtol, atol, clock="log")
    path = grid.flip(0) if grid.ndim == 1 and len(grid) and grid[0] > grid[-1] else grid
    path = path[path != 0] if grid.ndim == 1 else path
    if path.ndim != 1 or len(path) < 2 or not bool((path[1:] > path[:-1]).all()) or not path[0] > 0:
        raise ValueError(
            "a path for a log-density is a grid of two times > 0 or more that rises or falls all the way; "
            "take one of more steps, or raise nfe"
        )
    return path, solver or RK4()


def _state(process: Process, x: Tensor, t: Tensor, seed: int, first: int) -> tuple[Tensor, Tensor]:
    """The state at `t` with the data `x`, and the log-density `(B,)` of what was drawn to complete it.

    Of Langevin's position and velocity, one combination holds noise alone whatever the datum; it is drawn, which is the
    exact law of the velocity at this position if data vary little over the position's noise.
    """
    state = process.lift(x)
    if state.shape == x.shape:
        return x, x.new_zeros(len(x))
    if not isinstance(process, GaussianProcess) or not isinstance(covariance := process.covariance(t), Block):
        raise TypeError(f"the density of data under {type(process).__name__}, whose states hold more, is not known")
    (xx, xv), (_, vv) = covariance.m.tolist()
    place, speed = process.signal(t)(process.lift(torch.ones(1, dtype=torch.float64))).flatten().tolist()
    slope = speed / place
    deviation = math.sqrt(vv - 2 * slope * xv + slope**2 * xx)
    g = normal(x, [seeded(seed, _VELOCITIES, first + i, device=x.device) for i in range(len(x))])
    log_q = -(flat(g).square().sum(1) / 2 + x[0].numel() * (math.log(deviation) + math.log(2 * math.pi) / 2))
    return torch.stack((x, slope * x + deviation * g), 1), log_q


def _differentiable(field: Reverse, x: Tensor, t: Tensor) -> None:
    """Raise a TypeError where the denoiser's estimate depends on `x` but carries no gradient."""
    with torch.enable_grad():
        y = field.predict(x.clone().requires_grad_(), t)
    if not y.requires_grad and not torch.equal(y, field.predict(x + t.item() * 0.1 + 0.1, t)):
        raise TypeError(
            "the estimate of this denoiser carries no gradient in x, which a divergence needs; remove no_grad and "
            "detach from it"
        )


def _within_reach(process: Process, top: Tensor, log_p: Tensor, first: int) -> None:
    """Raise a FloatingPointError for a finite latent at which the prior's density is 0."""
    beyond = (log_p == -math.inf) & flat(top).isfinite().all(1)
    if bool(beyond.any()):
        raise FloatingPointError(
            f"row {first + int(beyond.nonzero()[0])} has its latent beyond the reach of the noise of "
            f"{type(process).__name__}, where the prior's density is 0; train the denoiser longer, or take a process "
            "whose noise reaches further (Helmholtz: a smaller wavenumber)"
        )


def dequantized(x: Tensor, *, step: float = PIXEL, seed: int = 0, first: int = 0) -> Tensor:
    """Values on a lattice, spread evenly over their cells of width `step`: float64, row `i` by `(seed, first + i)`.

    With it a density says something about discrete values: `log P(x) >= E log p(dequantized(x)) + N log(step)`.
    Source: Theis et al. 2016, Sec. 3.1. [theis2016note]
    """
    rng = [seeded(seed, _CELLS, first + i, device=x.device) for i in range(len(x))]
    x = x.double()
    return x + step * (uniform(x, rng) - 0.5)


def bits_per_dim(nats: Tensor, n: int, *, step: float = PIXEL) -> Tensor:
    """The bits that each of the `n` numbers of a datum takes on a lattice of this `step`, from its log-density."""
    return -(nats / n + math.log(step)) / math.log(2)
