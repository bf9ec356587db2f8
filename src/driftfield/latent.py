"""Data as points of the prior and back: the deterministic flow is a map that can be inverted.

At the most noise a datum has become its latent; what is done to latents (points between two of them, another length)
is seen in the data that they flow back to. Every process with a flow will do; none of it draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .batches import bar, rows_of
from .denoise.base import Denoiser
from .field.reverse import Reverse
from .linear import flat
from .process.base import Process
from .rng import seeded
from .solve.adaptive import DormandPrince
from .solve.base import Solver, sample


def encode(
    process: Process,
    denoiser: Denoiser,
    x: Tensor,
    *,
    cond: Any = None,
    grid: Tensor | None = None,
    solver: Solver | None = None,
    batch: int = 256,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
    progress: bool = False,
) -> Tensor:
    """The latents of data `x` `(B, *data)`: where the flow takes them from the least noise, `span[0]`, to the most.

    The result is a state at `span[1]`, on the CPU and of `dtype`. The path is walked by `DormandPrince(clock="log")`,
    each row with steps of its own, unless another adaptive `solver` is given; or along the times of a `grid` (a last
    time 0 is left out) by a `solver` of steps. `decode` with the same arguments is the inverse, as far as the steps are
    exact. `cond` is passed to the denoiser, tensors of length B split with the `batch`.
    Raises: ValueError for data or paths that cannot be used; FloatingPointError where a latent is not finite.
    Source: Song et al. 2021, Sec. 4.3 and App. D.4; Xu et al. 2022, Sec. 4.3. [song2021score] [xu2022pfgm]
    """
    if x.ndim < 2 or not bool(x.isfinite().all()):
        raise ValueError(f"x should be finite and (B, *data), got {'values that are not' if x.ndim > 1 else x.shape}")
    path, solver = _route(process, grid, solver)
    state = process.lift(x.to(dtype))
    return _carried(process, denoiser, state, path.flip(0), solver, cond, batch, device, progress)


def decode(
    process: Process,
    denoiser: Denoiser,
    latent: Tensor,
    *,
    cond: Any = None,
    grid: Tensor | None = None,
    solver: Solver | None = None,
    batch: int = 256,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
    progress: bool = False,
) -> Tensor:
    """The data `(B, *data)` at the other end of the flow, from their latents at `span[1]`: the inverse of `encode`.

    They carry the least noise, of the level `span[0]`: there is no last step to the estimate, which has no inverse.
    The options and errors are those of `encode`.
    """
    if latent.ndim < 2 or not bool(latent.isfinite().all()):
        found = "values that are not" if latent.ndim > 1 else latent.shape
        raise ValueError(f"latents should be finite states (B, *data), got {found}")
    path, solver = _route(process, grid, solver)
    return process.data(_carried(process, denoiser, latent.to(dtype), path, solver, cond, batch, device, progress))


def interpolate(a: Tensor, b: Tensor, share: Tensor | Sequence[float]) -> Tensor:
    """Latents between `a` and `b`, `(B, ...)` each, at each of the `share` of the way, `(K,)`: `(K, B, ...)`.

    Directions go along the great circle and lengths evenly, so that what lies between is as long as the ends are: the
    middle of a straight line between two draws of a prior in many dimensions is far too short for that prior.
    Raises: ValueError for latents of different shapes, of length 0, or opposite to each other, joined by many circles;
            for shares that are not a list of finite numbers.
    Source: Xu et al. 2022, App. D. [xu2022pfgm]
    """
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"latents should be two batches of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    s = torch.as_tensor(share, dtype=torch.float64, device=a.device)
    if s.ndim != 1 or not bool(s.isfinite().all()):
        raise ValueError(f"shares of the way should be a list of finite numbers, got {s.tolist()}")
    s = s[:, None]
    rows = [flat(v.double()) for v in (a, b)]
    lengths = [v.norm(dim=1) for v in rows]
    if not all(bool(((v > 0) & v.isfinite()).all()) for v in lengths):
        raise ValueError("a latent of length 0, or of none that is finite, has no direction; leave it out")
    u, v = (row / length[:, None] for row, length in zip(rows, lengths, strict=True))
    angle = 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))
    if bool((angle > math.pi - 1e-6).any()):
        raise ValueError("two latents are opposite to each other, so many great circles join them; move one of them")
    whole = torch.sinc(angle / math.pi)  # sin(angle) / angle, 1 at 0
    of_u = (1 - s) * torch.sinc((1 - s) * angle / math.pi) / whole
    of_v = s * torch.sinc(s * angle / math.pi) / whole
    direction = of_u[..., None] * u + of_v[..., None] * v
    length = (1 - s) * lengths[0] + s * lengths[1]
    found: Tensor = (length[..., None] * direction).to(a.dtype)
    return found.reshape(s.shape[0], *a.shape)


def temper(latent: Tensor, temperature: Tensor | Sequence[float]) -> Tensor:
    """The latents `(B, ...)` with their lengths times each `temperature`, `(K,)`, directions kept: `(K, B, ...)`.

    Below 1 they lie nearer to where the prior is dense, and decode to data that are more alike.
    Raises: ValueError for a temperature that is not finite and above 0.
    Source: Xu et al. 2022, App. D. [xu2022pfgm]
    """
    factor = torch.as_tensor(temperature, dtype=torch.float64, device=latent.device)
    if factor.ndim != 1 or not bool(((factor > 0) & (factor < math.inf)).all()):
        raise ValueError(f"temperatures should be a list of finite numbers > 0, got {factor.tolist()}")
    return (factor.reshape(-1, *[1] * latent.ndim) * latent).to(latent.dtype)


def _route(process: Process, grid: Tensor | None, solver: Solver | None) -> tuple[Tensor, Solver]:
    """The times from most to least, and what walks them."""
    if solver is not None and (solver.noisy or (grid is None and not solver.adaptive)):
        why = "adds noise, so nothing inverts it" if solver.noisy else "takes the steps of a grid; give grid="
        raise ValueError(f"{type(solver).__name__} {why}")
    if grid is None:
        return torch.tensor(process.span[::-1], dtype=torch.float64), solver or DormandPrince(clock="log")
    path = grid[grid != 0] if grid.ndim == 1 else grid
    if path.ndim != 1 or len(path) < 2 or not bool((path[1:] < path[:-1]).all()) or not path[-1] > 0:
        raise ValueError("a path between data and latents is a grid of two times > 0 or more that falls all the way")
    if abs(path[0].item() - process.span[1]) > 1e-9 * process.span[1]:
        raise ValueError(f"latents are states at span[1]={process.span[1]:g}, but the path begins at {path[0]:g}")
    return path, solver or DormandPrince(clock="log")


def _carried(
    process: Process,
    denoiser: Denoiser,
    x: Tensor,
    path: Tensor,
    solver: Solver,
    cond: Any,
    batch: int,
    device: torch.device | str,
    progress: bool,
) -> Tensor:
    """The states `x` at `path[0]`, moved along the flow to its end."""
    if batch < 1:
        raise ValueError(f"batch counts rows and must be at least 1, got {batch}")
    found = torch.empty_like(x, device="cpu")
    with bar("following the flow", len(x), 1, progress) as advance:
        for i in range(0, len(x), batch):
            j = min(i + batch, len(x))
            field = Reverse(process, denoiser, rows_of(cond, i, j, len(x)))
            found[i:j] = sample(field, x[i:j].to(device), path, solver, seeded(0, device=device))
            advance(j - i)
    if not bool(found.isfinite().all()):
        row = int((~flat(found).isfinite().all(1)).nonzero()[0])
        raise FloatingPointError(f"row {row} is not finite at the end of the flow; check the denoiser there")
    return found
