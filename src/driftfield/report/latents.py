"""Held-out items of a run as latents, what lies between or around those, and a picture of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..data.base import Info
from ..files import write
from ..latent import decode, encode, interpolate, temper
from ..solve.adaptive import DormandPrince
from ..train.load import home, load
from .device import device_named
from .nll import items
from .pictures import mosaic
from .score import opened
from .style import FAINT, INK, RUNS, blank, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def latents(
    run: str | Path,
    *,
    n: int = 6,
    between: int | None = None,
    temperatures: Sequence[float] | None = None,
    split: str = "held-out",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    nfe: int = 2000,
    seed: int = 0,
    out: str | Path | None = None,
    force: bool = False,
    data: str | None = None,
    device: str | None = None,
    trust: Sequence[str] = (),
    progress: bool = False,
) -> dict[str, Any]:
    """Carry `n` items of a `split` to their latents and back, and draw what lies `between` them, or around them.

    With `between`, as many points from each item to the next of its pair, both ends included (`n` rows take `2 n`
    items); with `temperatures`, each item with the length of its latent times each; with neither, each item beside what
    came back. Labels are not told, so that a path may lead from one class to another. `out.npz` keeps the arrays
    `items`, `latents` and `drawn`, rows by columns, in the user's units but for the latents; of images and of points in
    the plane there is a picture `out.png`. The record that is returned has the greatest and the root mean square
    difference of `items` from what came back, in the model's units.
    Raises: ValueError, OSError or FileExistsError with one sentence.
    """
    if between is not None and temperatures is not None:
        raise ValueError("ask for points between items or for temperatures, not both")
    if n < 1 or (between is not None and between < 2):
        raise ValueError(f"at least one row, and two points with the ends between items; got n={n} and {between}")
    process, denoiser, recipe = load(run, trust)
    info = recipe.info
    assert info is not None
    if info.kind == "table":
        raise ValueError("the rows of a table are not drawn along latents; df.encode and df.decode work on their codes")
    kind = "between" if between is not None else "latents" if temperatures is None else "temperatures"
    stem = Path(out) if out is not None else home(run) / kind
    stem = stem.with_suffix("") if stem.suffix in (".npz", ".png") else stem
    arrays, picture = (stem.with_name(stem.name + suffix) for suffix in (".npz", ".png"))
    there = [p for p in (arrays, picture) if p.exists()]
    if there and not force:
        raise FileExistsError(f"{there[0]} is already there; choose another --out, or replace it with --force")
    where = device_named(device)
    denoiser = denoiser.to(where)
    denoiser.autocast = None  # half precision would drown the differences that a step is judged by
    wanted = n if between is None else 2 * n
    x = items(opened(recipe, run, data), split, wanted, seed)[0].double()
    if len(x) < wanted:
        raise ValueError(f"{n} rows take {wanted} items, but the split {split!r} has {len(x)}; ask for fewer rows")
    solver = DormandPrince(rtol, atol, nfe, "log")

    def back(z: Tensor) -> Tensor:
        rows = z.flatten(0, 1)
        y = decode(process, denoiser, rows, solver=solver, device=where, progress=progress)
        return y.reshape(*z.shape[:2], *y.shape[1:]).transpose(0, 1)  # an item for each row, what was asked in columns

    if temperatures is not None:
        temper(x[:0], temperatures)  # refuses what cannot be before anything is computed
    z = encode(process, denoiser, x, solver=solver, device=where, progress=progress)
    again = back(z[None])[:, 0]
    if between is not None:
        drawn = back(interpolate(z[0::2], z[1::2], torch.linspace(0, 1, between)))
    elif temperatures is not None:
        drawn = back(temper(z, temperatures))
    else:
        drawn = torch.stack((x, again), 1)
    shown = info.seen
    kept = {"items": _seen(info, x), "latents": z.numpy(), "drawn": _grid(info, drawn)}
    write(arrays, lambda part: _save(part, kept))
    files = [str(arrays)]
    figure = _figure(shown, kept["drawn"], between, temperatures)
    if figure is not None:
        write(picture, lambda part: figure.savefig(part, dpi=200, format="png"))
        files.append(str(picture))
    gap = (again - x).flatten(1)
    return {
        "run": str(run),
        "n": n,
        "split": split,
        "between": between,
        "temperatures": None if temperatures is None else list(temperatures),
        "seed": seed,
        "rtol": rtol,
        "atol": atol,
        "round_trip_max": gap.abs().max().item(),
        "round_trip_rms": gap.square().mean().sqrt().item(),
        "files": files,
    }


def _save(path: Path, arrays: dict[str, Any]) -> None:
    with open(path, "wb") as file:  # by its handle: a name would be given another suffix
        np.savez(file, **arrays)


def _seen(info: Info, x: Tensor) -> Any:
    """Samples as the user sees them."""
    return info.seen.to_user(info.decode(x.float()))


def _grid(info: Info, drawn: Tensor) -> Any:
    """Samples `(rows, columns, *shape)` as the user sees them."""
    flat = _seen(info, drawn.flatten(0, 1))
    return flat.reshape(*drawn.shape[:2], *flat.shape[1:])


def _figure(info: Info, drawn: Any, between: int | None, temperatures: Sequence[float] | None) -> Figure | None:
    rows, columns = drawn.shape[:2]
    if info.kind == "image":
        return mosaic(drawn.reshape(rows * columns, *drawn.shape[2:]), columns)
    if info.kind != "points":
        return None
    with styled():
        figure, (axes,) = blank(4.5)
        names = [f"{t:g}" for t in temperatures] if temperatures is not None else ["item", "and back"]
        for path in drawn:
            axes.plot(path[:, 0], path[:, 1], color=FAINT, linewidth=0.8, zorder=1)
            if between is not None:
                axes.scatter(path[1:-1, 0], path[1:-1, 1], s=9, color=RUNS[0], linewidths=0, zorder=2)
                axes.scatter(path[[0, -1], 0], path[[0, -1], 1], s=16, color=INK, linewidths=0, zorder=3)
        if between is None:
            for column, name in enumerate(names):
                points, colour = drawn[:, column], RUNS[column % len(RUNS)]
                axes.scatter(points[:, 0], points[:, 1], s=14, color=colour, linewidths=0, label=name, zorder=2)
            axes.legend(title="temperature" if temperatures is not None else None, loc="upper left", fontsize=7)
        axes.set_aspect("equal")
    return figure
