"""Samples from a process and a denoiser, within a budget, one seed per sample."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .batches import bar, rows_of
from .denoise.base import Denoiser, evaluations
from .field.reverse import Reverse
from .field.wrap import Counted
from .files import part_of
from .grid import named_grid, restarted
from .process.base import Process
from .rng import device_of, rows
from .solve.auto import named_solver
from .solve.base import Solver, cost, integrate, longest, moves

Builder = Callable[..., Tensor]
USUAL = 20  # evaluations, where nobody says


@dataclass(frozen=True, eq=False)
class Plan:
    """A path of times, the solver that walks it, and the evaluations per sample that it costs at most."""

    path: Tensor
    solver: Solver
    again: Solver | None
    nfe: int


def plan(
    process: Process,
    *,
    solver: str | Solver = "auto",
    nfe: int | None = None,
    grid: str | Builder | Tensor = "natural",
    level: float | None = None,
    again: Solver | None = None,
    each: int = 1,
    shape: Sequence[int] = (),
) -> Plan:
    """The longest path whose cost is at most `nfe` evaluations (20 unless given), if one estimate costs `each`.

    `grid` is a builder, called as `grid(process, steps, high=level)` (without `high` where `level` is None), the name
    of one, or a path itself, which is taken whole. `level` is the level to start from. Of an adaptive solver `nfe` is
    the ceiling (its own unless given), shared by the moves of the path, which is the shortest that the builder makes.
    `shape` is that of a datum, where it is known: "auto" goes by it.
    Raises: ValueError where not even one step fits, a given path costs more than `nfe`, or a multistep solver that is
            given by value remembers more evaluations than there are steps.
    """
    if isinstance(solver, str):
        chosen, own = named_solver(solver, process, max(1, (USUAL if nfe is None else nfe) // each), shape)
        grid = own if isinstance(grid, str) and grid == "natural" else grid
    else:
        chosen = solver
    found = _planned(process, chosen, nfe, grid, level, again, each)
    steps = longest(found.path, found.solver, again)
    if not isinstance(solver, str) and steps < chosen.remembered:  # a name means at most its order
        raise ValueError(
            f"{solver} remembers {chosen.remembered} evaluations, but the longest descent of this path has {steps} "
            f"step{'s' if steps > 1 else ''}; lower its order, or raise nfe"
        )
    return found


def _planned(
    process: Process,
    solver: Solver,
    nfe: int | None,
    grid: str | Builder | Tensor,
    level: float | None,
    again: Solver | None,
    each: int,
) -> Plan:
    if nfe is not None and nfe < each:
        per = f"; one estimate of this denoiser costs {each}" if each > 1 else ""
        raise ValueError(f"nfe counts evaluations of the denoiser and must be at least {each}, got {nfe}{per}")
    nfe = None if nfe is None else nfe // each  # from here on, estimates
    if isinstance(grid, Tensor):
        if level is not None:
            raise ValueError("give either a path of times or a level to start from, not both")
        if solver.adaptive:
            return _capped(grid, solver, again, nfe)
        spent = cost(grid, solver, again)
        if nfe is not None and spent > nfe:
            short = f"this path costs {spent * each} evaluations but nfe={nfe * each}"
            raise ValueError(f"{short}; shorten it or raise nfe")
        return Plan(grid, solver, again, spent)
    build = named_grid(grid) if isinstance(grid, str) else grid
    high = {} if level is None else {"high": level}
    if solver.adaptive:
        return _capped(build(process, 1, **high), solver, again, nfe)
    nfe = max(1, USUAL // each) if nfe is None else nfe
    steps = nfe
    while True:
        path = build(process, steps, **high)
        spent = cost(path, solver, again)
        if spent <= nfe:
            return Plan(path, solver, again, spent)
        if steps == 1:
            break
        dearest = max(move.evaluations for move in moves(path, solver, again))
        steps = max(1, steps - -(-(spent - nfe) // dearest))  # each step less saves at most this much: none is missed
    least = f"one step of {type(solver).__name__} on this grid costs {spent * each} evaluations"
    raise ValueError(f"{least}, more than nfe={nfe * each}")


def _capped(path: Tensor, solver: Solver, again: Solver | None, nfe: int | None) -> Plan:
    """A path for an adaptive solver, which may spend `nfe` evaluations on it."""
    if nfe is not None:
        own = [move.by is solver for move in moves(path, solver, again)]
        others = cost(path, solver, again) - sum(own) * solver.evaluations(path[0], path[1], True)
        solver = solver.within((nfe - others) // max(1, sum(own)))
    return Plan(path, solver, again, cost(path, solver, again))


def plan_restart(
    process: Process, nfe: int, *, solver: str | Solver = "heun", sigma_data: float = 0.5, again: Solver | None = None
) -> Plan:
    """The longest path with restarts near its end, `restarted`, that costs at most `nfe` evaluations.

    `sigma_data` is the deviation of the data, which says where restarts mix; `again` solves inside them.
    Raises: ValueError where not even one step fits.
    """
    return plan(process, solver=solver, nfe=nfe, grid=partial(restarted, sigma_data=sigma_data), again=again)


def _start(start: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    start = start.to(dtype)
    if tuple(start.shape) == tuple(shape[1:]):
        start = start[None]
    if tuple(start.shape[1:]) != tuple(shape[1:]) or len(start) not in (1, shape[0]):
        raise ValueError(
            f"start has shape {tuple(start.shape)}; it must be one sample {tuple(shape[1:])} or {shape[0]} of them"
        )
    if not bool(start.isfinite().all()):
        raise ValueError("start holds values that are not finite")
    return start


def generate(
    process: Process,
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    solver: str | Solver = "auto",
    nfe: int | None = None,
    seed: int = 0,
    cond: Any = None,
    grid: str | Builder | Tensor = "natural",
    start: Tensor | None = None,
    level: float | None = None,
    again: Solver | None = None,
    s_noise: float = 1.0,
    first: int = 0,
    part: range | None = None,
    batch: int = 256,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    to: str | Path | Tensor | None = None,
    progress: bool = False,
) -> Tensor:
    """Draw samples of `shape` `(n, *data)`; row `i` depends on `(seed, first + i)` alone, whatever the `batch`.

    Spends at most `nfe` evaluations of the denoiser per sample (20 unless given; a path given as `grid` is walked
    whole); the result's attribute `nfe` says how many it spent. "auto" is the library's choice of a solver and, where
    none is named, of a grid (`solve.auto`). `start` holds clean data, one for all rows or one
    each, which are noised to the path's first time in place of a draw from the prior (a path that begins below the
    process's far end, with no `start`, begins at the noise of its first time alone); `level` is the level to start
    from (SDEdit). `cond` is passed to the denoiser, tensors of length n split with the batch. `to` is a `.npy` file
    to write while drawing, for more samples than memory holds (the result is then a view of that file), or a tensor
    to fill. `part` are the rows to draw of the `n`, all unless given: the rows of another call are the same.
    Raises: ValueError for a bad budget, shape or name; FloatingPointError naming the first step whose state was not
    finite.
    Source: Meng et al. 2022, for `start`. [meng2022sdedit]
    """
    n, *event = (int(v) for v in shape)
    if n < 1 or batch < 1:
        raise ValueError(f"need at least one sample and a batch of at least one, got n={n}, batch={batch}")
    if level is not None and start is None:
        raise ValueError("a level to start from goes with clean data to start from: give start=")
    each = evaluations(denoiser)
    route = plan(process, solver=solver, nfe=nfe, grid=grid, level=level, again=again, each=each, shape=event)
    if start is None and route.path[-1] > route.path[0]:
        raise ValueError("a path that ends above its start encodes data; give the data as start=")
    if start is not None:
        start = _start(start, shape, dtype).to(device)
    part, spent = range(n) if part is None else part, 0 if route.solver.adaptive else route.nfe
    if part.step != 1 or not 0 <= part.start <= part.stop <= n:
        raise ValueError(f"part is a range of rows within 0 to {n}, got {part}")
    with _Output(len(part), event, dtype, to) as out, bar("sampling", len(part), len(route.path), progress) as advance:
        for i in part[::batch]:
            j = min(i + batch, part.stop)
            rng = rows(seed, first + i, first + j, device)
            if start is None:
                x = first_state(process, route.path[0], (j - i, *event), rng, dtype)
            else:
                clean = start.expand(n, *event)[i:j]
                x = process.perturb(clean, route.path[0], rng)
            counted = Counted(denoiser) if route.solver.adaptive else None
            field = Reverse(process, counted or denoiser, rows_of(cond, i, j, n), s_noise)
            out.put(i - part.start, j - part.start, _walk(field, x, route, rng, partial(advance, j - i)))
            spent = max(spent, counted.calls) if counted else route.nfe
    result = out.result
    result.nfe = spent * each  # type: ignore[attr-defined]
    return result


def first_state(process: Process, t: Tensor, shape: tuple[int, ...], rng: Any, dtype: torch.dtype) -> Tensor:
    """The prior; or, for a path that begins below the process's far end, the noise of its first time."""
    if abs(t.item() - process.span[1]) <= 1e-9 * process.span[1]:
        return process.prior(shape, rng, dtype)
    return process.perturb(torch.zeros(shape, dtype=dtype, device=device_of(rng)), t, rng)


@torch.no_grad()
def _walk(field: Reverse, x: Tensor, route: Plan, rng: Any, advance: Callable[[], None]) -> Tensor:
    """Walk the path; the first bad step is noted on the device and read once, at the end."""
    bad = torch.full((), -1, dtype=torch.int64, device=x.device)
    for k, (_, state) in enumerate(integrate(field, x, route.path, route.solver, rng, route.again)):
        x = state
        bad = torch.where((bad < 0) & ~x.isfinite().all(), k, bad)
        advance()
    if (k := int(bad)) >= 0:
        raise FloatingPointError(
            f"the state is not finite after step {k} of {len(route.path) - 1} (time {route.path[k]:.6g}); "
            "check the denoiser there, or use a finer grid"
        )
    return field.process.data(x)


def claim(path: Path, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> None:
    """Make a `.npy` file of zeros, to be mapped and filled. Raises: OSError where there is no room for it."""
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    try:
        np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=tuple(shape))
        with open(path, "rb+") as file:  # claim the space now: a full disk would kill a mapped write
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(f"cannot write {path}: {error}; free some space or choose another folder") from error


class _Output:
    """Where samples go: a tensor, or a file that takes its name only when it is whole."""

    def __init__(self, n: int, event: list[int], dtype: torch.dtype, to: str | Path | Tensor | None):
        if isinstance(to, Tensor) and (tuple(to.shape), to.dtype) != ((n, *event), dtype):
            raise ValueError(f"to should be {dtype} of shape {(n, *event)}, got {to.dtype} of {tuple(to.shape)}")
        self.path = None if to is None or isinstance(to, Tensor) else Path(to)
        if self.path is not None and self.path.suffix != ".npy":
            raise ValueError(f"samples stream to a .npy file, got {str(to)!r}")
        self.part = None if self.path is None else part_of(self.path)
        if isinstance(to, Tensor):
            self.tensor = to
        elif self.part is None:
            self.tensor = torch.empty(n, *event, dtype=dtype)
        else:
            claim(self.part, (n, *event), dtype)
            self.tensor = torch.from_numpy(np.load(self.part, mmap_mode="r+"))

    def put(self, i: int, j: int, x: Tensor) -> None:
        if tuple(x.shape[1:]) != tuple(self.tensor.shape[1:]):
            raise ValueError(f"the walk ended in shape {tuple(x.shape[1:])}, not {tuple(self.tensor.shape[1:])}")
        self.tensor[i:j] = x.to("cpu", non_blocking=False)

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if self.part is None or self.path is None:
            return
        if kind is not None:
            self.part.unlink(missing_ok=True)
            return
        os.replace(self.part, self.path)

    @property
    def result(self) -> Tensor:
        return self.tensor
