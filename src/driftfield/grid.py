"""Grids of times, and the paths made from them.

A grid is a 1-d float64 tensor of the process's own times, on the CPU, from the most noise to the least. Builders take
the number of `steps`, the levels `high` and `low` (sigma / alpha; by default those of the process's span) and return
`steps + 1` times. Where the process reaches noise 0 at time 0, the last of them is 0 and `low` is the one before it;
else the last is `low`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .names import pick
from .process.base import Process


def _double(x: float) -> Tensor:
    return torch.tensor(float(x), dtype=torch.float64)


def _ends_at_zero(process: Process) -> bool:
    """Whether the process carries no noise at time 0: asked of its level, not of its class."""
    return bool(process.level(_double(0.0)) == 0)


def _levels(process: Process, high: float | None, low: float | None) -> tuple[float, float]:
    top, bottom = (process.level(_double(t)).item() for t in (process.span[1], process.span[0]))
    high, low = top if high is None else high, bottom if low is None else low
    if not 0 < low < high:
        raise ValueError(f"a grid runs from a level `high` down to a level `low` > 0, got high={high}, low={low}")
    if process.time(_double(low)) <= 0:
        least = process.level(_double(0.0)).item()
        raise ValueError(f"{type(process).__name__} has no level at or below {least:g}, got low={low}; raise low")
    return high, low


def _build(
    process: Process,
    steps: int,
    high: float | None,
    low: float | None,
    clock: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
) -> Tensor:
    """Even steps in `clock(level)`; `back` turns the clock into the process's own time."""
    if steps < 1:
        raise ValueError(f"a grid needs at least 1 step, got {steps}")
    high, low = _levels(process, high, low)
    zero = _ends_at_zero(process)
    count = steps if zero else steps + 1
    ends = clock(_double(high)), clock(_double(low))
    if not all(math.isfinite(e) for e in ends):
        raise ValueError(f"{type(process).__name__} keeps no signal at the level {high}; give a finite level as high=")
    fraction = torch.linspace(0, 1, count, dtype=torch.float64)
    times = back(ends[0] + fraction * (ends[1] - ends[0]))
    times[0] = process.time(_double(high))  # the ends exactly, not through the clock and back
    if count > 1:
        times[-1] = process.time(_double(low))
    return torch.cat((times, times.new_zeros(1))) if zero else times


def karras(
    process: Process, steps: int, *, high: float | None = None, low: float | None = None, rho: float = 7
) -> Tensor:
    """Even steps in `level^(1 / rho)`. Source: Karras et al. 2022, Eq. 5. [karras2022edm]"""
    if not rho > 0:
        raise ValueError(f"rho must be > 0, got {rho}")
    return _build(process, steps, high, low, lambda v: v ** (1 / rho), lambda c: process.time(c**rho))


def geometric(process: Process, steps: int, *, high: float | None = None, low: float | None = None) -> Tensor:
    """Even steps in the logarithm of the level, that is in log-SNR."""
    return _build(process, steps, high, low, torch.log, lambda c: process.time(c.exp()))


def uniform(process: Process, steps: int, *, high: float | None = None, low: float | None = None) -> Tensor:
    """Even steps in the process's own time."""
    return power(process, steps, high=high, low=low, kappa=1)


def power(
    process: Process, steps: int, *, high: float | None = None, low: float | None = None, kappa: float = 2
) -> Tensor:
    """Even steps in `t^(1 / kappa)`, `t` the process's own time. Source: Zhang and Chen 2023, code. [zhang2023deis]"""
    if not kappa > 0:
        raise ValueError(f"kappa must be > 0, got {kappa}")
    return _build(process, steps, high, low, lambda v: process.time(v) ** (1 / kappa), lambda c: c**kappa)


def logistic(
    process: Process,
    steps: int,
    *,
    high: float | None = None,
    low: float | None = None,
    centre: float = 2.0,
    width: float = 1.5,
) -> Tensor:
    """Even steps of `u` down to 0, where the level is `centre (u / (1 - u))^width`: most of them near `centre`.

    The levels are quantiles of a logistic law in their logarithm; with `centre` and `width` 1, `u` is the time of
    rectified flow. Few steps are spent where the estimate hardly changes, above and below the deviations of the data
    (about 1/2 is assumed), and the last level before 0 is as low as the number of steps allows, at least `low`.
    Raises: ValueError for a `centre` or a `width` not above 0.
    """
    if not (0 < centre < math.inf and 0 < width < math.inf):
        raise ValueError(f"centre and width must be finite and > 0, got {centre} and {width}")
    top, bottom = (process.level(_double(t)).item() for t in (process.span[1], process.span[0]))
    high, low = top if high is None else high, bottom if low is None else low
    if steps < 1 or not 0 < low < high:
        return _build(process, steps, high, low, torch.log, lambda c: process.time(c.exp()))  # says what is wrong

    def share(level: float) -> float:
        return 1 - 1 / (1 + math.pow(level / centre, 1 / width))  # 1 at an infinite level

    zero = _ends_at_zero(process)
    begin, least = share(high), share(low)
    even = zero and begin / steps >= least
    u = torch.linspace(begin, 0 if even else least, steps + 1 if even or not zero else steps, dtype=torch.float64)
    inner = u[1:-1] if even or not zero else u[1:]
    levels = [centre * (inner / (1 - inner)) ** width, *([] if zero else [_double(low)[None]])]
    first = process.time(_double(high)) if math.isfinite(high) else _double(process.span[1])
    times = torch.cat((first[None], process.time(torch.cat(levels))))
    return torch.cat((times, times.new_zeros(1))) if zero else times


def natural(process: Process, steps: int, *, high: float | None = None, low: float | None = None) -> Tensor:
    """The grid used where none is named: `karras`; `uniform` down to 0 where the process keeps no signal at its top."""
    top = process.level(_double(process.span[1])).item()
    if high is not None or math.isfinite(top):
        return karras(process, steps, high=high, low=low)
    if low is None and steps > 1:
        low = process.level(_double(process.span[1] / steps)).item()
    return uniform(process, steps, low=low)


_MAIN = 18  # steps of a descent that published paths spend before they add restarts


def restarted(
    process: Process,
    steps: int,
    *,
    high: float | None = None,
    low: float | None = None,
    sigma_data: float = 0.5,
    points: int = 3,
) -> Tensor:
    """`natural` with restarts near its end, `steps` downward moves in all, 18 of which at most are the descent itself.

    What is above 18 goes into restarts between the levels 0.28 and 0.6 of `sigma_data` (0.14 and 0.3 at the published
    0.5), each of `points - 1` moves; below, there is one restart, and none below `points + 2` moves or where no time of
    the grid lies below the upper level. With Heun's method
    and 22 moves it is the published path of 43 evaluations.
    Raises: ValueError for fewer than 2 `points`, a `sigma_data` not above 0, or `steps` below 1.
    Source: Xu et al. 2023, Sec. 4 and Table 6; the split is ours. [xu2023restart]
    """
    if points < 2 or not 0 < sigma_data < math.inf:
        raise ValueError(f"a restart needs points >= 2 and a finite sigma_data > 0, got {points} and {sigma_data}")
    loop = points - 1
    times = max(1, (steps - _MAIN) // loop) if steps >= points + 2 else 0
    bottom, top = 0.28 * sigma_data, 0.6 * sigma_data
    grid = natural(process, steps - times * loop, high=high, low=low)
    inside = process.level(grid[1:-1])
    inside = inside[(inside > 0) & (inside < top)]
    if times == 0 or not len(inside) or process.level(grid[0]) < top:
        return natural(process, steps, high=high, low=low)
    nearest = inside[(inside - bottom).abs().argmin()].item()
    return restart(grid, [(points, times, nearest, top)], process=process)


GRIDS: dict[str, Callable[..., Tensor]] = {
    "karras": karras,
    "geometric": geometric,
    "log-snr": geometric,
    "uniform": uniform,
    "power": power,
    "logistic": logistic,
    "natural": natural,
    "restart": restarted,
}


def named_grid(name: str) -> Callable[..., Tensor]:
    """The builder called `name`. Raises: ValueError for an unknown name."""
    return pick(name, GRIDS, "grid")


def _clocks(process: Process | None) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    if process is None:
        return (lambda t: t), (lambda level: level)
    return process.level, process.time


def churn(
    grid: Tensor, amount: float, *, low: float = 0.0, high: float = math.inf, process: Process | None = None
) -> Tensor:
    """Before each step that starts at a level inside `[low, high]`, climb by the factor `1 + amount / steps`.

    The factor is at most `sqrt(2)`; nothing is above an infinite level, the start of a path from noise without signal.
    `low` and `high` are levels; without `process`, times are taken to be levels, as
    they are for EDM and PFGM++. Source: Karras et al. 2022, Alg. 2. [karras2022edm]
    """
    if amount < 0:
        raise ValueError(f"the amount of churn must be >= 0, got {amount}")
    level, time = _clocks(process)
    gain = 1 + min(amount / (len(grid) - 1), math.sqrt(2) - 1)
    path: list[Tensor] = []
    for t in grid[:-1]:
        inside = gain > 1 and low <= level(t).item() <= high and math.isfinite(level(t).item())
        path += [t, time(level(t) * gain)] if inside else [t]
    return torch.stack([*path, grid[-1]])


def restart(
    grid: Tensor,
    levels: Sequence[tuple[int, int, float, float]],
    *,
    process: Process | None = None,
    round: str = "nearest",
    rho: float = 7,
) -> Tensor:
    """On reaching a level `low`, climb to `high` and come down again, `times` over; then go on.

    `levels` lists `(points, times, low, high)` in the order of the published tables: `points` counts both ends of the
    inner grid, so a descent has `points - 1` steps, even in `level^(1 / rho)`. `low` moves to a point of the grid:
    the "nearest" one, or the one "below" or "above" it; `high` is used as given. Levels on one point run in the order
    given. Without `process`, times are taken to be levels, as they are for EDM and PFGM++.
    Raises: ValueError where `low` meets the start or the end of the grid, or `high` is not above it or above the grid.
    Source: Xu et al. 2023, Alg. 1. [xu2023restart]
    """
    level, time = _clocks(process)
    at = level(grid)
    loops: dict[int, list[Tensor]] = {}
    for points, times, low, high in levels:
        if points < 2 or times < 0:
            raise ValueError(f"a restart needs points >= 2 and times >= 0, got points={points}, times={times}")
        index = _round(at, low, round)
        if not 0 < index < len(grid) - 1 or at[index] <= 0:
            raise ValueError(f"the restart level low={low} meets an end of the grid; choose one strictly inside it")
        bottom = at[index]
        if not bottom < high < math.inf:
            raise ValueError(
                f"a restart climbs from {bottom:.4g} (low={low} on the grid) to a higher level, got {high}"
            )
        if high > at[0] and not math.isclose(high, at[0].item(), rel_tol=1e-9):  # a level that was a time is rounded
            raise ValueError(f"the restart level high={high} is above {at[0]:.4g}, where the grid begins")
        fraction = torch.linspace(0, 1, points, dtype=torch.float64)
        inner = time((high ** (1 / rho) + fraction * (bottom ** (1 / rho) - high ** (1 / rho))) ** rho)
        inner[0], inner[-1] = time(_double(high)), grid[index]
        loops.setdefault(index, []).extend([inner] * times)
    pieces: list[Tensor] = []
    for i, t in enumerate(grid):
        pieces += [t[None], *loops.get(i, [])]
    return torch.cat(pieces)


def _round(at: Tensor, low: float, how: str) -> int:
    rules = {
        "nearest": lambda: int((at - low).abs().argmin()),
        "below": lambda: int((at <= low).nonzero()[0]) if bool((at <= low).any()) else len(at) - 1,
        "above": lambda: int((at >= low).nonzero()[-1]) if bool((at >= low).any()) else 0,
    }
    return pick(how, rules, "rounding")()
