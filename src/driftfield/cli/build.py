"""From the options of `driftfield train` to a recipe."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.autoencoder import Autoencoder
from ..data.base import Data, Source
from ..data.latent import Latent
from ..data.recognise import NAMES, find, named
from ..names import unknown
from ..plain import locate
from ..process.base import Process
from ..recipe import Recipe, whole_objective
from ..recipes import RECIPES
from ..settings import choices, override, settled
from ..train.checkpoint import weights_and_recipe
from ..train.load import find as weights_of
from ..train.propose import Proposal, proposed


def asked_recipe(
    recipe: str | None,
    data: str | None,
    start: Path | None,
    objective: str | None,
    process: str | None,
    minutes: float | None,
    steps: int | None,
    seed: int | None,
    settings: Sequence[str],
    trust: Sequence[str] = (),
    run: Path | None = None,
    device: str = "",
    autoencoder: str | None = None,
) -> tuple[Recipe, Source, Path, Proposal | None]:
    """The recipe that the options describe, its opened data, the folder of its run, and what it was proposed by.

    `data` takes the place of the recipe's own; `start` is the run whose weights, and if no recipe is named whose
    recipe, to begin with; `autoencoder`, an import path or a folder, says that codes of the data are learned. Data
    alone get a recipe that is proposed from them. Raises: ValueError or OSError with one sentence.
    """
    of_data = [s.removeprefix("data.") for s in settings if s.startswith("data.")]
    chosen, name = _named(recipe, trust)
    if chosen is None and start is not None:
        _, old = weights_and_recipe(weights_of(start), trust)
        chosen, name = replace(old, info=None), f"{Path(start).resolve().stem}-tuned"
    source: Source | None = None
    proposal: Proposal | None = None
    if data is not None:
        value = _coded(find(data), autoencoder, of_data)
        name = name or Path(data).resolve().stem
        if chosen is None:
            source = value.load()
            proposal = proposed(source, run or Path("runs") / name, minutes, device, data)
            chosen = proposal.recipe(value, source.info)
        chosen = replace(chosen, data=value)
    elif chosen is not None:
        chosen = replace(chosen, data=_coded(chosen.data, autoencoder, of_data))
    elif recipe is not None:
        value = _coded(named(recipe), autoencoder, of_data)
        source, name = value.load(), recipe
        proposal = proposed(source, run or Path("runs") / name, minutes, device)
        chosen = proposal.recipe(value, source.info)
    else:
        raise ValueError("nothing to train on: give a recipe (driftfield recipes lists them), or --data PATH")
    if start is not None:
        chosen = replace(chosen, init=str(weights_of(start).resolve()))
    if objective is not None:
        chosen = override(chosen, "objective", objective)
    first, then = whole_objective([s for s in settings if not s.startswith("data.")])
    chosen = chosen.with_fields(first)
    if process is not None:
        chosen = replace(chosen, objective=_with_process(chosen.objective, process))
        if proposal is not None:
            chosen = replace(chosen, objective=proposal.spanned(chosen.objective))
    given: dict[str, Any] = {"steps": steps, "minutes": minutes, "seed": seed}
    if steps is not None or minutes is not None:
        chosen = replace(chosen, training=replace(chosen.training, steps=None, minutes=None))
    chosen = replace(chosen, training=replace(chosen.training, **{k: v for k, v in given.items() if v is not None}))
    chosen = chosen.with_fields(then)
    return chosen, chosen.data.load() if source is None else source, run or Path("runs") / name, proposal


def _with_process(objective: Any, text: str) -> Any:
    """The objective with the process that `text` names: a class with its options, or an equation of the catalogue.

    Raises: ValueError for an equation that does not generate, with the reason, and what `override` raises.
    """
    from ..pde import CATALOGUE, Custom, spelled

    head, opened, inside = text.strip().partition("(")
    name = head.strip()
    processes = {kind.__name__ for kind in choices(Process)}
    classes = {kind.__name__: key for key, kind in CATALOGUE.items() if kind.__name__ not in processes}
    if name not in (*CATALOGUE, Custom.name, *classes):
        return override(objective, "process", text)
    process = spelled(classes.get(name, name) + opened + inside).process()
    if not isinstance(process, typing.get_type_hints(type(objective))["process"]):
        raise ValueError(f"{type(objective).__name__} does not train {type(process).__name__}; leave one of them out")
    return replace(objective, process=process)


def _coded(data: Data, autoencoder: str | None, settings: Sequence[str]) -> Data:
    """`data` with their settings; as an autoencoder codes them, if one is named, whose settings stand among them."""
    if autoencoder is None:
        value: Data = settled(data, settings)
        return value
    of_code = [s for s in settings if s.partition("=")[0].partition(".")[0].strip() in ("autoencoder", "cache")]
    latent = Latent(settled(data, [s for s in settings if s not in of_code]), Autoencoder.named(autoencoder))
    coded: Data = settled(latent, of_code)
    return coded


def _named(recipe: str | None, trust: Sequence[str]) -> tuple[Recipe | None, str]:
    """The recipe with a name, a file or an import path; None for a data set's name, or for no name at all."""
    if recipe is None:
        return None, ""
    if recipe in RECIPES:
        return RECIPES[recipe](), recipe
    if recipe.endswith(".json"):
        return Recipe.from_json(Path(recipe).read_text(), trust), Path(recipe).stem
    if ":" in recipe:
        made = locate(recipe)
        made = made() if callable(made) else made
        if not isinstance(made, Recipe):
            raise ValueError(f"{recipe!r} makes a {type(made).__name__}, not a recipe")
        return made, recipe.rpartition(":")[2]
    if recipe not in NAMES:
        raise ValueError(unknown(recipe, {*NAMES, *RECIPES}, "recipe") + "; for data of your own, give --data PATH")
    return None, ""
