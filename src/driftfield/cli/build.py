"""From the options of `driftfield train` to a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.base import Source
from ..data.recognise import NAMES, find, named
from ..names import unknown
from ..plain import from_plain, locate, override, to_plain
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
    chosen, source, name = _base(recipe, data, start)
    if start is not None:
        chosen = replace(chosen, init=str(weights_of(start).resolve()))
    if process is not None:
        chosen = replace(chosen, objective=override(chosen.objective, "process", process))
    given: dict[str, Any] = {"steps": steps, "minutes": minutes, "seed": seed}
    if steps is not None or minutes is not None:
        chosen = replace(chosen, training=replace(chosen.training, steps=None, minutes=None))
    chosen = replace(chosen, training=replace(chosen.training, **{k: v for k, v in given.items() if v is not None}))
    before = to_plain(chosen.data)
    chosen = chosen.with_fields(settings)
    if source is None or to_plain(chosen.data) != before:
        source = chosen.data.load()
    return chosen, source, name


def _base(recipe: str | None, data: str | None, start: Path | None) -> tuple[Recipe, Source | None, str]:
    if recipe is None and data is None:
        assert start is not None
        _, notes = read(weights_of(start))
        found = from_plain(notes["recipe"])
        return replace(found, info=None), None, f"{Path(start).stem}-tuned"
    if recipe is not None and recipe not in NAMES:
        if recipe.endswith(".json"):
            return Recipe.from_json(Path(recipe).read_text()), None, Path(recipe).stem
        if ":" in recipe:
            return _imported(recipe), None, recipe.rpartition(":")[2]
        if data is None:
            raise ValueError(unknown(recipe, {*NAMES, *RECIPES}, "recipe") + "; for data of your own, give --data PATH")
    if recipe in RECIPES and data is None:
        return RECIPES[recipe](), None, recipe
    value = find(data) if data is not None else named(str(recipe))
    source = value.load()
    return recipe_for(value, source.info), source, Path(data).stem if data is not None else str(recipe)


def _imported(path: str) -> Recipe:
    made = locate(path)
    made = made() if callable(made) else made
    if not isinstance(made, Recipe):
        raise ValueError(f"{path!r} makes a {type(made).__name__}, not a recipe")
    return made
