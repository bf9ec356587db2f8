"""A run as a report sees it: its weights and recipe, its log, its data if they can be had, what is known."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.base import Info, Source
from ..denoise.learned import Learned
from ..generation import plan
from ..recipe import Recipe
from ..train.checkpoint import read, save
from ..train.load import find, home, load
from .device import device_named
from .figures import History
from .score import opened

_FORMAT = 1  # of what is kept: another number, and everything is measured anew
_VERSIONS = 3  # of the weights, for which results are kept

Result = tuple[Mapping[str, Tensor], Mapping[str, Any]]


@dataclass(eq=False)
class Subject:
    """An opened run. `step` is that of its weights, None where the file does not say; `folder` keeps results."""

    run: str
    name: str
    recipe: Recipe
    denoiser: Learned
    device: torch.device
    step: int | None
    digest: str
    folder: Path | None
    log: list[dict[str, Any]]
    proposal: dict[str, Any] | None
    data: str | None = None
    _source: list[Source] = field(default_factory=list)

    @property
    def info(self) -> Info:
        """What a sample is in the user's own terms."""
        assert self.recipe.info is not None
        return self.recipe.info

    @property
    def nfe(self) -> int:
        """The evaluations of the network that a sample of the recipe takes at most."""
        how = self.recipe.sampling
        return plan(self.recipe.objective.process, solver=how.solver, nfe=how.nfe, grid=how.grid).nfe

    @property
    def source(self) -> Source:
        """The data of the run, opened when first needed. Raises: ValueError or OSError where they are not to be had."""
        if not self._source:
            self._source.append(opened(self.recipe, self.run, self.data))
        return self._source[0]

    def kept(self, piece: str, settings: Mapping[str, Any], make: Callable[[], Result]) -> Result:
        """What `make` returns, tensors and notes; from the run's folder if these weights and settings had it before.

        Each piece is one file, written whole, so an interrupted report goes on where it stopped.
        """
        from .. import __version__

        if self.folder is None:
            return make()
        text = json.dumps([_FORMAT, __version__, dict(settings)], sort_keys=True)
        path = self.folder / f"{piece}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.safetensors"
        if path.exists():
            try:
                return read(path)
            except ValueError:  # torn by something else; it is measured again and replaced
                pass
        tensors, notes = make()
        save(path, tensors, notes)
        return tensors, notes

    def history(self) -> History | None:
        """The log as curves, None where the run has none."""
        batch = self.recipe.training.batch
        lines = [line for line in self.log if "loss" in line]
        if not lines:
            return None
        judged = [
            (batch * line["step"], *(tuple(line["by_level"][k]) for k in ("levels", "held", "train")))
            for line in lines
            if "by_level" in line
        ]
        return History(
            tuple(batch * line["step"] for line in lines), tuple(line["loss"] for line in lines), tuple(judged)
        )


def subjects(
    runs: Sequence[str | Path], device: str | None = None, trust: Sequence[str] = (), data: str | None = None
) -> list[Subject]:
    """The runs opened, each with the shortest name that tells it from the others.

    Raises: ValueError for no run or the same one twice; FileNotFoundError for one without weights.
    """
    if not runs:
        raise ValueError("nothing to report on; give the folder of at least one run")
    weights = [find(run) for run in runs]
    twice = [str(run) for i, run in enumerate(runs) if weights[i].resolve() in [w.resolve() for w in weights[:i]]]
    if twice:
        raise ValueError(f"the run {twice[0]} is given twice; give each run once")
    names = _names(
        [w.resolve().parent if Path(r).is_dir() else w.resolve() for r, w in zip(runs, weights, strict=True)]
    )
    return [_open(str(r), w, n, device, trust, data) for r, w, n in zip(runs, weights, names, strict=True)]


def _open(run: str, path: Path, name: str, device: str | None, trust: Sequence[str], data: str | None) -> Subject:
    _, denoiser, recipe = load(run, trust)
    if recipe.info is None:
        raise ValueError(f"{path} holds weights of a recipe that never met its data, so nothing can be drawn from it")
    notes, where = read(path)[1], device_named(device)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    place = home(run) / "report" / digest[:12]
    folder = place if writable(place) else None
    if folder is not None:
        _forget(folder)
    beside = path.parent if (path.parent / "recipe.json").exists() else None  # a run, not a file by itself
    return Subject(
        run=run,
        name=name,
        recipe=recipe,
        denoiser=denoiser.to(where),
        device=where,
        step=notes.get("step"),
        digest=digest,
        folder=folder,
        log=[] if beside is None else _lines(beside / "log.jsonl"),
        proposal=None if beside is None else _proposal(beside / "proposal.json"),
        data=data,
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as it takes to tell them apart."""
    for depth in range(1, max(len(p.parts) for p in paths) + 1):
        names = ["/".join(p.parts[-depth:]) for p in paths]
        if len(set(names)) == len(names):
            break
    return names


def writable(folder: Path) -> bool:
    """Whether the folder, or the one it would be made in, is one and can be written."""
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return there.is_dir() and os.access(there, os.W_OK)


def _forget(folder: Path) -> None:
    """Make room for results of these weights: of other weights, keep those of the latest few."""
    others = [p for p in folder.parent.glob("*") if p.is_dir() and p != folder]
    for old in sorted(others, key=lambda p: p.stat().st_mtime, reverse=True)[_VERSIONS - 1 :]:
        shutil.rmtree(old, ignore_errors=True)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, without a last one that is being written."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found


def _proposal(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, and the report does without") from None
    return found if isinstance(found, dict) else None
