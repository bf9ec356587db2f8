"""Training in one call."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .. import ranks
from ..data.base import Data, Info, Source
from ..data.given import rows_to_fill
from ..data.memory import InMemory
from ..data.recognise import find
from ..denoise.learned import Learned
from ..network.embed import Condition
from ..plain import Build, packages_in, to_plain
from ..process.base import Process
from ..recipe import Recipe, whole_objective
from ..settings import settled
from .interrupt import Interrupted, interruptible
from .load import load
from .propose import proposed
from .session import Report, session
from .track import tracking


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model and the folder it lives in."""

    folder: Path
    process: Process
    denoiser: Learned
    recipe: Recipe

    @property
    def info(self) -> Info:
        """What a sample is in the user's own terms."""
        assert self.recipe.info is not None
        return self.recipe.info

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        cond: Tensor | None = None,
        given: Mapping[str, Any] | None = None,
        nfe: int | None = None,
        solver: str | None = None,
    ) -> Any:
        """`n` samples in the user's units and layout, a NumPy array or for a table a DataFrame; `cond` are class labels
        `(n,)`. Of a table, `given` maps columns to a value that all rows hold, or to `n` values. As the recipe's
        `sampling` says, unless told otherwise."""
        told: Any = cond if given is None else self.recipe.told(given, n)
        x = self._drawn(n, told, seed, nfe, solver)
        return self.info.to_user(x) if given is None else self.info.filled(x, given)

    def impute(
        self, rows: Any, *, draws: int = 1, seed: int = 0, nfe: int | None = None, solver: str | None = None
    ) -> Any:
        """The rows of a DataFrame, each `draws` times in succession, with draws in place of its missing cells.

        Raises: ValueError where nothing is missing, a value is none that its column could hold, or the run learned
        without a reveal.
        """
        given = rows_to_fill(rows, self.info, draws)
        return given.rows(self._drawn(given.n, self.recipe.told(given.values, given.n), seed, nfe, solver), self.info)

    def _drawn(self, n: int, cond: Any, seed: int, nfe: int | None, solver: str | None) -> Tensor:
        device = next(self.denoiser.parameters()).device
        if isinstance(cond, Condition):
            cond = cond.to(device)
        return self.recipe.sample(self.denoiser, n, solver=solver, nfe=nfe, seed=seed, cond=cond, device=device)


def follow(
    recipe: Recipe,
    source: Source,
    folder: Path,
    watch: Callable[[Report], None],
    warn: Callable[[str], None],
    device: str = "",
    fsdp: bool = False,
    log: Sequence[str] = (),
) -> Run:
    """Train `recipe` on its opened data in `folder`, calling `watch` after every step, and open the result.

    Started by `torchrun`, the processes share every batch, rank 0 alone watches, and all stop together; `fsdp` splits
    the weights over them too (see `train`). `log` names what else is told of the run (see `track`).
    Raises: Interrupted after Ctrl-C or SIGTERM to any of them, when the step in progress is done and saved;
    ConnectionError where one has ended; what `session` raises.
    """
    with interruptible() as stop, ranks.joined(), tracking(log, folder) as track:
        steps = session(recipe, source, folder, warn, device, fsdp, track)
        try:
            for report in steps:
                if ranks.rank() == 0:
                    watch(report)
                if ranks.agree(stop.is_set()) and report.step < report.steps:
                    steps.close()
                    raise Interrupted(
                        f"stopped at step {report.step} of {report.steps}; the same command goes on from here"
                    )
        except BaseException as error:
            if ranks.count() > 1:  # the others may know nothing of it: end without the saving that needs them
                with suppress(type(error)):
                    steps.throw(error)
            raise
        process, denoiser, kept = load(folder, trust=packages_in(to_plain(recipe)))
        return Run(folder, process, denoiser, kept)


def fit(
    data: Tensor | np.ndarray | str | Path | Data,
    *,
    process: Process | None = None,
    labels: Tensor | np.ndarray | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    network: Build | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    settings: Sequence[str] = (),
    device: str = "",
    fsdp: bool = False,
    progress: bool = True,
) -> Run:
    """Train a model of `data`: an array of samples `(M, ...)`, a path that `driftfield train --data` would take, or a
    data set such as `Latent(...)`.

    `process` and all else that is not given is as proposed from the data (see `propose`). Trains for `minutes` (5
    unless `steps` or `minutes` is given). `labels` `(M,)` are class indices of an array. `folder` keeps the run (a new
    temporary folder unless given); calling again with the same arguments and folder goes on where it stopped.
    `settings` are recipe fields, as `--set` takes them.
    `device` is "cpu", "cuda", or "" for the best there is. A script that `torchrun` starts trains with all its
    processes, each of which gets the run back; `fsdp` splits weights and optimiser memory over them.
    Raises: ValueError for data or settings that cannot be used; Interrupted after Ctrl-C, with the state saved.
    """
    if isinstance(data, str | Path | Data):
        if labels is not None:
            raise ValueError("labels go with an array; a path or a data set brings its own")
        found = data if isinstance(data, Data) else find(str(data))
    else:
        found = InMemory.of(data, labels)
    value: Data = settled(found, [s.removeprefix("data.") for s in settings if s.startswith("data.")])
    source = value.load()
    name = str(data) if isinstance(data, str | Path) else "the data set"
    proposal = proposed(source, None if folder is None else Path(folder), minutes, device, name)
    first, then = whole_objective([s for s in settings if not s.startswith("data.")])
    recipe = proposal.recipe(value, source.info).with_fields(first)
    if process is not None:
        objective: Any = recipe.objective
        recipe = replace(recipe, objective=replace(objective, process=process))
    if network is not None:
        recipe = replace(recipe, network=network)
    recipe = replace(recipe, training=replace(recipe.training, steps=steps, minutes=minutes, seed=seed))
    recipe = recipe.with_fields(then)
    with ranks.joined():
        where = Path(folder if folder is not None else ranks.first(tempfile.mkdtemp, None, "driftfield-"))
        if not progress or ranks.rank() > 0:
            quiet = proposal.noting(lambda report: None, where)
            return follow(recipe, source, where, quiet, warnings.warn, device, fsdp)
        from .bar import training_bar

        with training_bar() as watch:
            return follow(recipe, source, where, proposal.noting(watch, where), warnings.warn, device, fsdp)
