"""A recipe from facts: what to train on data about which nothing more is said, and why.

The scales follow EDM's settings for images of deviation 0.5, carried over to the scales that the data have. Nothing is
timed, so that the same data, budget and machine give the same proposal; a run keeps its own in `proposal.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from textwrap import wrap
from typing import Any

import torch

from ..data.base import Data, Info, Source
from ..data.describe import Facts, describe
from ..data.table_info import TableInfo
from ..files import write_text
from ..objective.base import Regression
from ..objective.laws import LogNormal
from ..objective.matching import Matching
from ..objective.reveal import Reveal
from ..plain import Build, from_plain, to_plain
from ..process.poisson import PFGMPP
from ..recipe import Recipe, Training
from .checkpoint import states
from .session import Report
from .size import size_for

FILE = "proposal.json"
MINUTES = 5.0
_EDM_STD, _EDM_SHIFT, _EDM_LOW = 1.2, 0.5, 1 / 250  # its time law and least noise, in units of sigma_data = 0.5


@dataclass(frozen=True)
class Proposal:
    """Settings for a data set and a budget, with a reason for each in `reasons`, one sentence by name.

    They rest on the `facts` alone, and on what machine this is. `sigma_data`, the noise `span` and the law of training
    `times` are in the model's units; `D` is that of PFGM++. `network` has `parameters` of them and trains on batches of
    `batch`; about `steps` steps are expected to fit into `minutes`. Training itself times its steps.
    """

    sigma_data: float
    span: tuple[float, float]
    times: LogNormal
    D: float
    network: Build
    parameters: int
    batch: int
    steps: int
    minutes: float
    reasons: dict[str, str]
    facts: Facts

    def recipe(self, data: Data, info: Info) -> Recipe:
        """The recipe that the proposal makes for `data`, which say `info` of themselves when opened."""
        reveal = Reveal() if isinstance(info, TableInfo) else None
        return Recipe(
            data=data,
            network=self.network,
            objective=Matching(PFGMPP(D=self.D, span=self.span), times=self.times, reveal=reveal),
            sigma_data=self.sigma_data,
            training=Training(batch=self.batch, warmup=min(200, max(1, self.steps // 10))),
        )

    def spanned(self, objective: Regression) -> Regression:
        """The objective with its process running over the proposed levels, unless its span was chosen.

        A process with a schedule of its own (VE, VP, a straight path), whose times are not levels, keeps its span; one
        that is given levels, because its times are those of an equation, gets these. An objective with a rule of its
        own for the span (PoissonField) keeps to that.
        """
        if not isinstance(objective, Matching):
            return objective
        process: Any = objective.process
        fields = type(process).__dataclass_fields__
        if "levels" in fields:
            chosen = process.levels != fields["levels"].default
            return objective if chosen else replace(objective, process=replace(process, levels=self.span))
        levels = torch.tensor(self.span, dtype=torch.float64)
        chosen = process.span != fields["span"].default
        if chosen or not torch.equal(process.time(levels), levels):
            return objective
        return replace(objective, process=replace(process, span=self.span))

    def values(self) -> dict[str, str]:
        """What is proposed, in words, by the names that `reasons` has."""
        size = ", ".join(f"{k}={v}" for k, v in self.network.options.items())
        return {
            "sigma_data": f"{self.sigma_data:.4g}",
            "span": f"{self.span[0]:.3g} to {self.span[1]:.3g}",
            "times": f"ln level ~ N({self.times.mean:.3g}, {self.times.std:.3g}^2)",
            "D": f"{self.D:g}",
            "network": f"{self.network.target.partition(':')[2]}({size}), {self.parameters / 1e6:.2g} M parameters",
            "batch": f"{self.batch}",
            "steps": f"about {self.steps:,}",
        }

    def kept(self, recipe: Recipe) -> dict[str, str]:
        """Those of `values` that `recipe` trains with, where what was asked has not taken their place."""
        objective, training = recipe.objective, recipe.training
        process: Any = objective.process
        held = {
            "sigma_data": recipe.sigma_data == self.sigma_data,
            "span": self.span in (process.span, getattr(process, "levels", None)),
            "times": objective.times == self.times,
            "D": getattr(process, "D", None) == self.D,
            "network": recipe.network == self.network,
            "batch": training.batch == self.batch,
            "steps": training.steps is None and (recipe.network, training.batch) == (self.network, self.batch),
        }
        return {name: value for name, value in self.values().items() if held[name]}

    def __str__(self) -> str:
        """Each value with its reason."""
        lines: list[str] = []
        for name, value in self.values().items():
            indent = 14 * " "
            lines += [
                f"{name:<12}{value}",
                *wrap(self.reasons[name], 110, initial_indent=indent, subsequent_indent=indent),
            ]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The facts and what is proposed, under these two names, as plain values that JSON keeps."""
        own = {k: v for k, v in asdict(self).items() if k != "facts"}
        return {"facts": self.facts.as_dict(), "proposal": own}

    def noting(self, watch: Callable[[Report], None], folder: Path) -> Callable[[Report], None]:
        """`watch`, which before its first call also records the proposal in `folder`, where none is yet.

        Raises: OSError where it cannot be written.
        """

        def noted(report: Report) -> None:
            if not (folder / FILE).exists():
                write_text(folder / FILE, json.dumps(to_plain(self), indent=2))
            watch(report)

        return noted


def proposed(
    source: Source, folder: Path | None, minutes: float | None = None, device: str = "", name: str = "the data set"
) -> Proposal:
    """The proposal that the run in `folder` began with, else a new one for the opened data.

    So a run that goes on finds its own recipe, also where the machine or this file has changed since.
    Raises: as `propose`, and as `describe`, which calls the data `name`.
    """
    begun = None if folder is None else kept(folder)
    return begun or propose(describe(source, name=name), source.info, MINUTES if minutes is None else minutes, device)


def kept(folder: Path) -> Proposal | None:
    """The proposal that the run in `folder` began with, or None. Raises: ValueError for a file that cannot be read."""
    path = folder / FILE
    if not (states(folder) and path.exists()):
        return None
    try:
        found: Any = from_plain(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); choose another folder") from None
    if not isinstance(found, Proposal):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a proposal; choose another folder")
    return found


def propose(facts: Facts, info: Info, minutes: float = MINUTES, device: str = "") -> Proposal:
    """Settings for data with these `facts`, to be trained for `minutes` on `device` ("": the best there is).

    Raises: ValueError for a budget that is not above 0, or samples of a shape that no network here takes.
    Source: noise up to the largest distance: Song and Ermon 2020, Technique 1. Time law and least noise: Karras et al.
            2022, Table 1. `D`: Xu et al. 2023, Tables 1 and 2. [song2020improved] [karras2022edm] [xu2023pfgmpp]
    """
    if not 0 < minutes < math.inf:
        raise ValueError(f"the budget is a number of minutes above 0, got {minutes}")
    why: dict[str, str] = {}
    sigma_data, crowding = info.std, min(1.0, facts.spacing.crowding)
    why["sigma_data"] = "the deviation of all training values, so that the network's input and target have variance 1."
    span = _span(facts, sigma_data, crowding, why)
    times = _times(sigma_data, crowding, why)
    D = _dimension(facts.dimension, why)
    size = size_for(info, facts.count, minutes, device, crowding)
    why |= size.reasons
    return Proposal(
        sigma_data, span, times, D, size.network, size.parameters, size.batch, size.steps, minutes, why, facts
    )


def _span(facts: Facts, sigma_data: float, crowding: float, why: dict[str, str]) -> tuple[float, float]:
    """The noise that leaves the data as they are, and the noise in which they are forgotten.

    Where the walk starts from noise about 0 at the level `s`, a direction in which the data have root-mean-square size
    `w` seen from 0 comes back with its mean off by at most `w / s` of its deviation, and its deviation short by
    `w^2 / 2 s^2`: tenfold is a tenth and half a per cent.
    """
    fine, rounding = crowding * sigma_data * _EDM_LOW, facts.step / 4
    far, wide = facts.spacing.reach, 10 * facts.widest
    least = (
        f"a quarter of the step of {facts.step:.3g} to which values are rounded, below which there is nothing to learn"
        if rounding > fine
        else f"1/250 of sigma_data as for EDM, times {crowding:.3g}, by which neighbours are nearer than for a Gaussian"
    )
    most = (
        "the largest distance between two items or from 0, at which no two are told apart"
        if far > wide
        else "ten times the size of the data along their widest direction from 0, where the noise is centred"
    )
    why["span"] = f"from {least}; up to {most}."
    return _rounded(max(fine, rounding)), _rounded(max(far, wide))


def _times(sigma_data: float, crowding: float, why: dict[str, str]) -> LogNormal:
    half = math.log(crowding) / 4
    why["times"] = (
        f"EDM's ln N({math.log(sigma_data) - _EDM_SHIFT:.3g}, {_EDM_STD}^2) at this sigma_data, its lower end moved "
        f"halfway (in logarithm) towards the finest structure, which is {crowding:.3g} times as wide as for a Gaussian."
    )
    return LogNormal(round(math.log(sigma_data) - _EDM_SHIFT + half, 3), round(_EDM_STD - half, 3))


def _dimension(n: int, why: dict[str, str]) -> float:
    D = float(min(2048, max(128, 2 ** round(math.log2(n)))))
    why["D"] = (
        f"the power of 2 nearest to the dimension {n}, where the length of the noise spreads as much through D as "
        "through the data's own dimensions, kept within the 128 to 2048 published as best; measured on digits, D from "
        "16 to infinity score alike, and a smaller D bears noise on the way better."
    )
    return D


def _rounded(x: float) -> float:
    """Three digits: what is proposed is not known better, and reads well."""
    return float(f"{x:.3g}")
