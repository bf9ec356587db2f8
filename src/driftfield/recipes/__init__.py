"""Recipes with a name: one file each, with the number to expect in its docstring."""

from __future__ import annotations

from collections.abc import Callable

from ..recipe import Recipe
from .digits import digits
from .fashion import fashion
from .pfgm import pfgm

RECIPES: dict[str, Callable[[], Recipe]] = {"digits": digits, "fashion": fashion, "pfgm": pfgm}
