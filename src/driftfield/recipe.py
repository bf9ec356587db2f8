"""A whole experiment as one frozen value: data, network, objective, training and sampling."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .data.base import Data, Info
from .denoise.base import Denoiser
from .denoise.learned import Learned
from .generation import generate
from .objective.base import Regression
from .optim import AdamW, Optimizer
from .plain import Build, from_plain, to_plain
from .settings import settled
from .solve.base import Solver
from .solve.named import adaptive

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
WIDEST = 12**-0.5  # the relative width of the plain mean of all weights so far, the widest average there is


@dataclass(frozen=True)
class Training:
    """How long and how a network is trained.

    Give `steps` or `minutes`; minutes are turned into steps by timing the first few. The learning rate rises over
    `warmup` steps, stays, and falls linearly to 0 over the last share `decay` of the steps. Gradients are clipped to
    the norm `clip`. A batch is split into `accumulate` parts. `ema` are the relative widths of the averages
    of the weights (a standard deviation as a share of the run so far, above 0 and at most 12^(-1/2)); the first is
    judged, drawn from and becomes the model. `snapshots` times, evenly over the run, all are stored, so that others
    can be rebuilt: a snapshot takes 2 bytes a weight for each. `held_every`, `save_every` and
    `show_every` are steps between held-out losses, checkpoints and sample pictures. `skip` is how many non-finite
    steps may be skipped before training stops. Source: Karras et al. 2024, Sec. 3, for `ema`. [karras2024edm]
    """

    steps: int | None = None
    minutes: float | None = None
    batch: int = 256
    accumulate: int = 1
    optimizer: Optimizer = field(default_factory=AdamW)
    warmup: int = 100
    decay: float = 0.3
    clip: float | None = 1.0
    ema: tuple[float, ...] = (0.10, 0.05)
    snapshots: int = 16
    precision: str = "float32"
    compile: bool = False
    channels_last: bool = False
    seed: int = 0
    skip: int = 0
    held_every: int = 500
    save_every: int = 500
    show_every: int = 1000

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.batch < 1 or self.accumulate < 1 or self.batch % self.accumulate:
            raise ValueError(f"batch={self.batch} must be a multiple of accumulate={self.accumulate}, both at least 1")
        if self.steps is not None and self.minutes is not None:
            raise ValueError(f"give steps or minutes, not both (steps={self.steps}, minutes={self.minutes})")
        if (self.steps is not None and self.steps < 1) or (self.minutes is not None and not self.minutes > 0):
            raise ValueError(f"steps and minutes must be positive, got steps={self.steps}, minutes={self.minutes}")
        if not 0 <= self.decay <= 1 or self.warmup < 0 or self.skip < 0:
            raise ValueError("decay must be between 0 and 1, warmup and skip at least 0")
        if min(self.held_every, self.save_every, self.show_every) < 1:
            raise ValueError("held_every, save_every and show_every count steps and must be at least 1")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be > 0, or none, got {self.clip}")
        if not self.ema or len(set(self.ema)) < len(self.ema) or not all(0 < s <= WIDEST for s in self.ema):
            raise ValueError(
                f"ema lists different widths above 0 and at most {WIDEST:.4f}, one or more, got {self.ema}"
            )
        if self.snapshots < 0:
            raise ValueError(f"snapshots counts how often averages are stored and must be >= 0, got {self.snapshots}")


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn unless one asks otherwise: names as in `generate`; no `nfe` is an adaptive solver's own."""

    solver: str = "heun"
    nfe: int | None = 35
    grid: str = "natural"

    def budget(self, solver: str | Solver | None, nfe: int | None) -> int | None:
        """The evaluations for what is asked: `nfe`, else these; but these are none for an adaptive solver asked for."""
        return self.nfe if nfe is None and (solver is None or not adaptive(solver)) else nfe


@dataclass(frozen=True)
class Recipe:
    """A whole experiment. `scaling` and `sigma_data` are those of `Preconditioned`; `init` is a run to start from.

    Fields that are None are filled in when training starts (`resolved`): `sigma_data` from the data, `scaling` by the
    process, `info` by the data set. The resolved recipe is kept in the weights file.
    """

    data: Data
    network: Build
    objective: Regression
    scaling: str | None = None
    sigma_data: float | None = None
    training: Training = field(default_factory=Training)
    sampling: Sampling = field(default_factory=Sampling)
    init: str | None = None
    info: Info | None = None

    def resolved(self, info: Info) -> Recipe:
        """The recipe with what the data say filled in."""
        sigma_data = info.std if self.sigma_data is None else self.sigma_data
        objective: Any = self.objective.resolved(sigma_data, info.shape)
        if objective.reveal is None and info.incomplete:
            raise ValueError("these data have missing values, which training must be told to leave out: keep a reveal")
        if objective.reveal is not None and objective.reveal.widths is None:
            objective = replace(objective, reveal=replace(objective.reveal, widths=info.widths))
        return replace(self, info=info, sigma_data=sigma_data, objective=objective)

    def denoiser(self) -> Learned:
        """The network this recipe describes, untrained, as a denoiser. Raises: ValueError before `resolved`."""
        if self.info is None or self.sigma_data is None:
            raise ValueError("this recipe has not met its data yet; call resolved(info) first")
        augment, reveal = self.objective.augment, self.objective.reveal
        if reveal is not None and "known" not in self.network.parameters():
            raise ValueError(f"{self.network.target} takes no known values, which objective.reveal needs; MLP does")
        build = partial(
            self.network,
            classes=len(self.info.classes),
            augments=0 if augment is None else augment.channels,
            known=reveal is not None,
        )
        autocast = PRECISIONS[self.training.precision]
        return self.objective.denoiser(build, self.info.shape, self.sigma_data, self.scaling, autocast)

    def sample(
        self,
        denoiser: Denoiser,
        n: int,
        *,
        solver: str | Solver | None = None,
        nfe: int | None = None,
        grid: str | Tensor | None = None,
        seed: int = 0,
        cond: Any = None,
        start: Tensor | None = None,
        level: float | None = None,
        part: range | None = None,
        batch: int = 256,
        device: torch.device | str = "cpu",
        to: str | Path | Tensor | None = None,
        progress: bool = False,
    ) -> Tensor:
        """`generate` with this recipe's process, shape and `sampling`, where nothing else is asked."""
        if self.info is None:
            raise ValueError("this recipe has not met its data yet; call resolved(info) first")
        return generate(
            self.objective.process,
            denoiser,
            (n, *self.info.shape),
            solver=self.sampling.solver if solver is None else solver,
            nfe=self.sampling.budget(solver, nfe),
            grid=self.sampling.grid if grid is None else grid,
            seed=seed,
            cond=cond,
            start=start,
            level=level,
            part=part,
            batch=batch,
            device=device,
            to=to,
            progress=progress,
        )

    def told(self, given: Any, n: int) -> Any:
        """The condition under which `n` samples hold the values `given` of a table's columns.

        Raises: ValueError for a network that learned without a reveal, so that it takes none, and as `Info.known`.
        """
        if self.info is None:
            raise ValueError("this recipe has not met its data yet; call resolved(info) first")
        if self.info.kind == "table" and self.objective.reveal is None:
            raise ValueError(
                f"this run learned by {type(self.objective).__name__} without a reveal, so its samples cannot be held "
                "to given values; train one with Matching(reveal=Reveal)"
            )
        return self.info.known(given, n)

    def with_fields(self, settings: Sequence[str]) -> Recipe:
        """The recipe with `a.b.c=value` settings applied. Raises: ValueError naming the fields that exist."""
        recipe: Recipe = settled(self, settings)
        return recipe

    def to_json(self) -> str:
        """The recipe as JSON text."""
        return json.dumps(to_plain(self), indent=2)

    @staticmethod
    def from_json(text: str, trust: Sequence[str] = ()) -> Recipe:
        """Read `to_json` back. Imports only from driftfield and `trust`. Raises: ValueError."""
        recipe: Any = from_plain(json.loads(text), trust)
        if not isinstance(recipe, Recipe):
            raise ValueError(f"this is a {type(recipe).__name__}, not a recipe")
        return recipe


def whole_objective(settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """The settings that replace the objective, and the others: a process that is asked for by itself comes between."""
    found = [s for s in settings if s.partition("=")[0].strip() == "objective"]
    return found, [s for s in settings if s not in found]


def differing(a: Any, b: Any, at: str = "") -> list[str]:
    """The dotted paths at which two plain values differ, each with both values."""
    if isinstance(a, dict) and isinstance(b, dict) and a.get("is") == b.get("is"):
        keys = [*a, *(k for k in b if k not in a)]
        return [line for k in keys for line in differing(a.get(k), b.get(k), f"{at}.{k}" if at else k)]
    return [] if a == b else [f"{at} ({_short(a)} there, {_short(b)} asked)"]


def _short(value: Any) -> str:
    return str(value["is"]).split(":")[-1] if isinstance(value, dict) and "is" in value else str(value)
