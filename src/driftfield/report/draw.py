"""Samples from a run, written to a folder: pictures and a grid of them, or arrays, as fits the data."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from .. import ranks
from ..data.base import Info
from ..data.given import Given, given_label, given_values, rows_to_fill
from ..data.table import read_table
from ..files import part_of
from ..generation import plan
from ..names import unknown
from ..network.embed import Condition
from ..recipe import Recipe, Sampling
from ..train.load import home, load
from .device import device_named
from .files import write_samples
from .paths import grid_of
from .shard import shared


@ranks.joined()
def draw(
    run: str | Path,
    *,
    n: int = 64,
    out: str | Path | None = None,
    cond: str | None = None,
    given: Sequence[str] = (),
    impute: str | Path | None = None,
    draws: int = 1,
    seed: int = 0,
    nfe: int | None = None,
    solver: str | None = None,
    grid: str | None = None,
    start: str | Path | None = None,
    level: float | None = None,
    batch: int = 256,
    device: str | None = None,
    force: bool = False,
    trust: Sequence[str] = (),
    progress: bool = False,
) -> dict[str, Any]:
    """Draw `n` samples of `run` into the folder `out` and return the record that is written beside them.

    Images become one PNG each and `grid.png`, recordings one WAV file each and `grid.png`; points and vectors
    `samples.npz` and `samples.csv`; other arrays `samples.npz`; tables `samples.csv`, in the user's columns. Options
    left out are the recipe's. Of a table, `given` are values of columns, as `column=value`, and `impute` is a file
    whose missing cells are filled, each row `draws` times, in place of `n` rows. Nothing is left behind if it fails,
    and a folder is replaced only if it holds nothing but earlier samples and `force` is given. Started by `torchrun`,
    the processes share the rows and rank 0 writes the files.
    Raises: ValueError, FileNotFoundError or FileExistsError with one sentence.
    """
    process, denoiser, recipe = load(run, trust)
    info = recipe.info
    assert info is not None
    if n < 1:
        raise ValueError(f"the number of samples must be at least 1, got {n}")
    asked: dict[str, Any] = {"solver": solver, "grid": grid}
    how = replace(recipe.sampling, **{k: v for k, v in asked.items() if v is not None})
    how = replace(how, nfe=recipe.sampling.budget(solver, nfe))
    where = device_named(device)
    if start is not None and info.kind == "table":
        raise ValueError("the rows of a table have no sample to start from; fix values of columns with --given instead")
    told = _given(info, cond, given, impute, draws, n)
    labels = classes_of(cond, info, n) if told is None else None
    n = n if told is None else told.n
    condition = _condition(labels, told, recipe, where)
    begin = None if start is None else read_start(Path(start), info)
    if start is not None and level is None:
        raise ValueError("--start needs --level: how much noise to add before denoising, such as --level 1")
    folder = (Path(out) if out is not None else home(run) / f"samples-{seed}").resolve()
    _check_folder(folder, force)
    path = grid_of(run, how.grid, how.solver, how.nfe)
    plan(process, solver=how.solver, nfe=how.nfe, grid=path, level=level)  # refuses what cannot be
    part = ranks.first(part_of, folder)
    begun = time.perf_counter()
    try:
        ranks.first(partial(part.mkdir, parents=True))
        one = partial(
            replace(recipe, sampling=how).sample,
            denoiser.to(where),
            n,
            grid=path,
            seed=seed,
            cond=condition,
            start=begin,
            level=level,
            device=where,
            progress=progress,
        )
        samples, spent = shared(one, (n, *info.shape), batch=batch, to=part / "drawn.npy")
        record = _record(run, n, cond, seed, how, spent, start, level)
        if info.kind == "table":
            record |= {"given": list(given), "impute": None if impute is None else str(impute), "draws": draws}
        record["seconds"] = round(time.perf_counter() - begun, 3)

        def written() -> dict[str, Any]:
            assert samples is not None
            record["files"] = write_samples(samples, labels, info, part, told)
            (part / "drawn.npy").unlink()
            (part / "record.json").write_text(json.dumps(record, indent=2))
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(part, folder)
            return {**record, "out": str(folder)}

        return ranks.first(written)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


_OURS = re.compile(r"\d+\.(png|wav)|grid\.png|samples\.(npz|csv|parquet)|record\.json")


def _check_folder(folder: Path, force: bool) -> None:
    """Refuse to write where something is: with `force`, only earlier samples of ours may go."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; samples go into a folder, so choose another --out")
    there = sorted(p.name for p in folder.iterdir()) if folder.exists() else []
    if not there:
        return
    foreign = [name for name in there if not _OURS.fullmatch(name)]
    if foreign or "record.json" not in there:
        raise FileExistsError(
            f"{folder} holds files that are not samples ({(foreign or there)[0]}); choose another --out"
        )
    if not force:
        raise FileExistsError(f"{folder} already holds samples; choose another --out, or replace them with --force")


def _record(run: Any, n: int, cond: Any, seed: int, how: Sampling, nfe: int, start: Any, level: Any) -> dict[str, Any]:
    from .. import __version__

    return {
        "run": str(run),
        "n": n,
        "cond": cond,
        "seed": seed,
        "solver": how.solver,
        "grid": how.grid,
        "nfe": nfe,
        "start": None if start is None else str(start),
        "level": level,
        "version": __version__,
    }


def _given(
    info: Info, cond: str | None, given: Sequence[str], impute: str | Path | None, draws: int, n: int
) -> Given | None:
    """What of a table's rows is given beforehand. Raises: ValueError for what cannot go together."""
    asked = [name for name, value in (("--cond", cond), ("--given", given), ("--impute", impute)) if value]
    if draws != 1 and impute is None:
        raise ValueError("--draws is how often each row of a file is filled, so it goes with --impute FILE")
    if not asked or (info.kind != "table" and asked == ["--cond"]):
        return None
    if len(asked) > 1:
        raise ValueError(f"give one of {' and '.join(asked)}: each says by itself what is known of the rows")
    if impute is not None:
        return rows_to_fill(read_table(impute), info, draws, str(impute))
    return given_values(given, info, n) if cond is None else given_label(cond, info, n)


def _condition(labels: Tensor | None, told: Given | None, recipe: Recipe, where: torch.device) -> Any:
    if told is None:
        return None if labels is None else labels.to(where)
    known: Condition = recipe.told(told.values, told.n)
    return known.to(where)


def classes_of(cond: str | None, info: Info, n: int) -> Tensor | None:
    """Labels `(n,)` from what was asked: names or indices of classes, comma-separated, cycled through.

    Raises: ValueError for an unknown class, or for any class of a model without classes.
    """
    if cond is None:
        return None
    if not info.classes:
        raise ValueError(f"this model was trained without classes, so --cond {cond} means nothing to it")
    found = []
    for part in (p.strip() for p in cond.split(",")):
        if part in info.classes:
            found.append(info.classes.index(part))
        elif part.isdigit() and int(part) < len(info.classes):
            found.append(int(part))
        else:
            raise ValueError(unknown(part, info.classes, "class"))
    return torch.tensor(found)[torch.arange(n) % len(found)]


def read_start(path: Path, info: Info) -> Tensor:
    """One clean sample `(1, *shape)` in the model's units, from an image or a `.npy` file in the user's units.

    Raises: FileNotFoundError, or ValueError where the file cannot be read or has another shape.
    """
    seen = info.seen
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path} to start from")
    if path.suffix.lower() == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path} is not a .npy file that can be read ({error})") from None
        one = len(seen.shape) + (seen.kind != "image" or seen.shape[0] > 1)
        return info.to_model(values[None] if values.ndim < one else values)
    if seen.kind != "image":
        raise ValueError(f"{path} is not a .npy file, and this model's samples are arrays of shape {seen.shape}")
    try:
        with Image.open(path) as file:
            image = file.convert("L" if seen.shape[0] == 1 else "RGB")
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not an image that can be read") from None
    if image.size != (seen.shape[2], seen.shape[1]):
        raise ValueError(
            f"{path} is {image.size[0]}x{image.size[1]} but the model draws {seen.shape[2]}x{seen.shape[1]}; "
            "resize it first"
        )
    return info.to_model(np.asarray(image)[None])
