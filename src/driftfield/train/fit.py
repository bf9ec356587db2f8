"""Training in one call."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from ..data.base import Data, Info, Source
from ..data.memory import InMemory
from ..data.recognise import find
from ..denoise.preconditioned import Preconditioned
from ..plain import Build, packages_in, settled, to_plain
from ..process.base import Isotropic, Process
from ..recipe import Recipe
from .defaults import recipe_for
from .interrupt import Interrupted, interruptible
from .load import load
from .session import Report, session


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model and the folder it lives in."""

    folder: Path
    process: Process
    denoiser: Preconditioned
    recipe: Recipe

    @property
    def info(self) -> Info:
        """What a sample is in the user's own terms."""
        assert self.recipe.info is not None
        return self.recipe.info

    def sample(
        self, n: int, *, seed: int = 0, cond: Tensor | None = None, nfe: int | None = None, solver: str | None = None
    ) -> np.ndarray:
        """`n` samples in the user's units and layout; `cond` are class labels `(n,)`. As the recipe's `sampling` says,
        unless told otherwise."""
        device = next(self.denoiser.parameters()).device
        x = self.recipe.sample(self.denoiser, n, solver=solver, nfe=nfe, seed=seed, cond=cond, device=device)
        return self.info.to_user(x)


def follow(
    recipe: Recipe,
    source: Source,
    folder: Path,
    watch: Callable[[Report], None],
    warn: Callable[[str], None],
    device: str = "",
) -> Run:
    """Train `recipe` on its opened data in `folder`, calling `watch` after every step, and open the result.

    Raises: Interrupted after Ctrl-C, when the step in progress is done and saved; what `session` raises.
    """
    with interruptible() as stop:
        steps = session(recipe, source, folder, warn, device)
        for report in steps:
            watch(report)
            if stop.is_set() and report.step < report.steps:
                steps.close()
                raise Interrupted(
                    f"stopped at step {report.step} of {report.steps}; the same command goes on from here"
                )
    process, denoiser, kept = load(folder, trust=packages_in(to_plain(recipe)))
    return Run(folder, process, denoiser, kept)


def fit(
    data: Tensor | np.ndarray | str | Path,
    *,
    process: Isotropic | None = None,
    labels: Tensor | np.ndarray | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    network: Build | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    settings: Sequence[str] = (),
    device: str = "",
    progress: bool = True,
) -> Run:
    """Train a model of `data`: an array of samples `(M, ...)`, or a path that `driftfield train --data` would take.

    `process` is `PFGMPP(D=128)` unless given. Trains for `minutes` (5 unless `steps` or `minutes` is given). `labels`
    `(M,)` are class indices of an array. `folder` keeps the run (a new temporary folder unless given); calling again
    with the same arguments and folder goes on where it stopped. `settings` are recipe fields, as `--set` takes them.
    `device` is "cpu", "cuda", or "" for the best there is.
    Raises: ValueError for data or settings that cannot be used; Interrupted after Ctrl-C, with the state saved.
    """
    if isinstance(data, str | Path) and labels is not None:
        raise ValueError("labels go with an array; a path brings its own")
    found: Data = find(str(data)) if isinstance(data, str | Path) else InMemory.of(data, labels)
    value: Data = settled(found, [s.removeprefix("data.") for s in settings if s.startswith("data.")])
    source = value.load()
    recipe = recipe_for(value, source.info)
    if process is not None:
        recipe = replace(recipe, objective=replace(recipe.objective, process=process))
    if network is not None:
        recipe = replace(recipe, network=network)
    recipe = replace(recipe, training=replace(recipe.training, steps=steps, minutes=minutes, seed=seed))
    recipe = recipe.with_fields([s for s in settings if not s.startswith("data.")])
    where = Path(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="driftfield-"))
    if not progress:
        return follow(recipe, source, where, lambda report: None, warnings.warn, device)
    from .bar import training_bar

    with training_bar() as watch:
        return follow(recipe, source, where, watch, warnings.warn, device)
