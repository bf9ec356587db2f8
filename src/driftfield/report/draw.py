"""Samples from a run, written to a folder: pictures and a grid of them, or arrays, as fits the data."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..data.base import Info
from ..data.picture import picture
from ..files import part_of
from ..generation import plan
from ..names import unknown
from ..recipe import Sampling
from ..train.load import home, load
from .device import device_named

_IN_GRID = 100
_CSV_COLUMNS = 100


def draw(
    run: str | Path,
    *,
    n: int = 64,
    out: str | Path | None = None,
    cond: str | None = None,
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

    Images become one PNG each and `grid.png`; points and vectors `samples.npz` and `samples.csv`; other arrays
    `samples.npz`. Options left out are the recipe's. Nothing is left behind if it fails, and a folder is replaced only
    if it holds nothing but earlier samples and `force` is given.
    Raises: ValueError, FileNotFoundError or FileExistsError with one sentence.
    """
    process, denoiser, recipe = load(run, trust)
    info = recipe.info
    assert info is not None
    if n < 1:
        raise ValueError(f"the number of samples must be at least 1, got {n}")
    asked: dict[str, Any] = {"solver": solver, "nfe": nfe, "grid": grid}
    how = replace(recipe.sampling, **{k: v for k, v in asked.items() if v is not None})
    where = device_named(device)
    labels = classes_of(cond, info, n)
    begin = None if start is None else read_start(Path(start), info)
    if start is not None and level is None:
        raise ValueError("--start needs --level: how much noise to add before denoising, such as --level 1")
    folder = (Path(out) if out is not None else home(run) / f"samples-{seed}").resolve()
    _check_folder(folder, force)
    spent = plan(process, solver=how.solver, nfe=how.nfe, grid=how.grid, level=level).nfe
    part = part_of(folder)
    begun = time.perf_counter()
    try:
        part.mkdir(parents=True)
        samples = replace(recipe, sampling=how).sample(
            denoiser.to(where),
            n,
            seed=seed,
            cond=None if labels is None else labels.to(where),
            start=begin,
            level=level,
            batch=batch,
            device=where,
            to=part / "drawn.npy",
            progress=progress,
        )
        record = _record(run, n, cond, seed, how, spent, start, level)
        record["seconds"] = round(time.perf_counter() - begun, 3)
        record["files"] = _write(samples, labels, info, part)
        del samples
        (part / "drawn.npy").unlink()
        (part / "record.json").write_text(json.dumps(record, indent=2))
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return {**record, "out": str(folder)}


_OURS = re.compile(r"\d+\.png|grid\.png|samples\.(npz|csv)|record\.json")


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
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path} to start from")
    if path.suffix.lower() == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path} is not a .npy file that can be read ({error})") from None
        values = values[None] if values.ndim < len(info.shape) + (info.kind != "image" or info.shape[0] > 1) else values
        return info.to_model(values)
    if info.kind != "image":
        raise ValueError(f"{path} is not a .npy file, and this model's samples are arrays of shape {info.shape}")
    try:
        with Image.open(path) as file:
            image = file.convert("L" if info.shape[0] == 1 else "RGB")
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not an image that can be read") from None
    if image.size != (info.shape[2], info.shape[1]):
        raise ValueError(
            f"{path} is {image.size[0]}x{image.size[1]} but the model draws {info.shape[2]}x{info.shape[1]}; "
            "resize it first"
        )
    return info.to_model(np.asarray(image)[None])


def _write(samples: Tensor, labels: Tensor | None, info: Info, folder: Path) -> list[str]:
    """Write the samples in the user's units, a part at a time where they are many; the names of the files."""
    files = []
    image = picture(samples[: _IN_GRID if info.kind == "image" else None], info)
    if image is not None:
        image.save(folder / "grid.png")
        files.append("grid.png")
    if info.kind == "image":
        digits = max(5, len(str(len(samples) - 1)))
        for i in range(0, len(samples), 1024):
            for j, one in enumerate(info.to_user(samples[i : i + 1024]), i):
                Image.fromarray(one).save(folder / f"{j:0{digits}d}.png")
        return [*files, f"{0:0{digits}d}.png ... {len(samples) - 1:0{digits}d}.png"]
    values = info.to_user(samples)
    extra: dict[str, Any] = {} if labels is None else {"labels": labels.numpy()}
    np.savez(folder / "samples.npz", x=values, **extra)
    files.append("samples.npz")
    if values.ndim == 2 and values.shape[1] <= _CSV_COLUMNS:
        header = ",".join(f"x{i}" for i in range(values.shape[1]))
        np.savetxt(folder / "samples.csv", values, delimiter=",", header=header, comments="", fmt="%.9g")
        files.append("samples.csv")
    return files
