"""Paths of times searched for one run, kept with it, and used as the grid "searched"."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import write_text
from ..search import Found, search_grid
from ..train.load import find, home, load
from .device import device_named

FILE = "paths.json"
SEARCHED = "searched"


def search(
    run: str | Path,
    *,
    solver: str | None = None,
    nfe: int | None = None,
    n: int = 64,
    seed: int = 0,
    fine: int = 60,
    device: str | None = None,
    trust: Sequence[str] = (),
    watch: Callable[[str, float], None] = lambda name, error: None,
) -> Found:
    """Search a path for the run's weights by `n` trajectories, and keep it beside them for the grid "searched".

    `solver` and `nfe` are the recipe's unless given; otherwise as `search_grid`. A model with classes is walked with
    every class in turn. Raises: as `search_grid` and `load`; ValueError for fewer than 2 trajectories.
    """
    process, denoiser, recipe = load(run, trust)
    info, how = recipe.info, recipe.sampling
    assert info is not None
    if n < 2:
        raise ValueError(f"the number of trajectories must be at least 2, got {n}")
    where = device_named(device)
    solver, nfe = solver or how.solver, how.budget(solver, nfe)
    if nfe is None:
        raise ValueError(f"{solver} chooses its own steps, so there is no path to search for it; name another solver")
    cond = torch.arange(n, device=where) % len(info.classes) if info.classes else None
    found = search_grid(
        process,
        denoiser.to(where),
        (n, *info.shape),
        nfe=nfe,
        solver=solver,
        cond=cond,
        seed=seed,
        fine=fine,
        device=where,
        watch=watch,
    )
    path = home(run) / FILE
    kept = _kept(path)
    kept[f"{solver} {nfe}"] = {
        "weights": _digest(run),
        "times": found.path.tolist(),
        "error": found.error,
        "tried": found.tried,
        "trajectories": n,
        "seed": seed,
        "fine": fine,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(kept, indent=2))
    return found


def grid_of(run: str | Path, grid: str, solver: str, nfe: int | None) -> str | Tensor:
    """`grid` itself; for "searched" the path that was searched for this solver and budget.

    Raises: ValueError where none was, or for other weights than these, with the command that does it.
    """
    if grid != SEARCHED:
        return grid
    path = home(run) / FILE
    found = _kept(path).get(f"{solver} {nfe}")
    command = f"driftfield search {run} --solver {solver} --nfe {nfe}"
    if found is None:
        raise ValueError(f"no path was searched for {solver} with nfe={nfe}; {command} finds one in minutes")
    if found["weights"] != _digest(run):
        raise ValueError(f"the path in {path} was searched for other weights than these; run {command} again")
    return torch.tensor(found["times"], dtype=torch.float64)


def _kept(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} cannot be read ({error}); remove it, and search again") from None
    return kept


def _digest(run: str | Path) -> str:
    return hashlib.sha256(find(run).read_bytes()).hexdigest()
