"""From the options of `driftfield train` to a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.base import Source
from ..data.recognise import NAMES, find, named
from ..names import unknown
from ..plain import from_plain, locate, override, settled
from ..recipe import Recipe
from ..recipes import RECIPES
from ..train.checkpoint import read
from ..train.defaults import recipe_for
from ..train.load import find as weights_of


def asked_recipe(
    recipe: str | None,
    data: str | None,
    start: Path | None,
    process: str | None,
    minutes: float | None,
    steps: int | None,
    seed: int | None,
    settings: Sequence[str],
) -> tuple[Recipe, Source, str]:
    """The recipe that the options describe, its opened data, and a name for its run.

    Raises: ValueError or OSError with one sentence.
    """
    if recipe is None and data is None and start is None:
        raise ValueError("nothing to train on: give a recipe (driftfield recipes lists them), or --data PATH")
    of_data = [s.removeprefix("data.") for s in settings if s.startswith("data.")]
    chosen, source, name = _base(recipe, data, start, of_data)
    if start is not None:
        chosen = replace(chosen, init=str(weights_of(start).resolve()))
    if process is not None:
        chosen = replace(chosen, objective=override(chosen.objective, "process", process))
    given: dict[str, Any] = {"steps": steps, "minutes": minutes, "seed": seed}
    if steps is not None or minutes is not None:
        chosen = replace(chosen, training=replace(chosen.training, steps=None, minutes=None))
    chosen = replace(chosen, training=replace(chosen.training, **{k: v for k, v in given.items() if v is not None}))
    chosen = chosen.with_fields([s for s in settings if not s.startswith("data.")])
    return chosen, chosen.data.load() if source is None else source, name


def _base(
    recipe: str | None, data: str | None, start: Path | None, of_data: Sequence[str]
) -> tuple[Recipe, Source | None, str]:
    """The recipe before its own settings; the data's are applied first, since the data are opened to choose it."""
    if recipe is None and data is None:
        assert start is not None
        _, notes = read(weights_of(start))
        found = from_plain(notes["recipe"])
        return _reading(replace(found, info=None), of_data), None, f"{Path(start).stem}-tuned"
    if recipe is not None and recipe not in NAMES:
        if recipe.endswith(".json"):
            return _reading(Recipe.from_json(Path(recipe).read_text()), of_data), None, Path(recipe).stem
        if ":" in recipe:
            return _reading(_imported(recipe), of_data), None, recipe.rpartition(":")[2]
        if data is None:
            raise ValueError(unknown(recipe, {*NAMES, *RECIPES}, "recipe") + "; for data of your own, give --data PATH")
    if recipe in RECIPES and data is None:
        return _reading(RECIPES[recipe](), of_data), None, recipe
    value = settled(find(data) if data is not None else named(str(recipe)), of_data)
    source = value.load()
    return recipe_for(value, source.info), source, Path(data).stem if data is not None else str(recipe)


def _reading(recipe: Recipe, of_data: Sequence[str]) -> Recipe:
    return replace(recipe, data=settled(recipe.data, of_data))


def _imported(path: str) -> Recipe:
    made = locate(path)
    made = made() if callable(made) else made
    if not isinstance(made, Recipe):
        raise ValueError(f"{path!r} makes a {type(made).__name__}, not a recipe")
    return made
