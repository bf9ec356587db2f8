"""A catalogue of linear equations of physics: which of them dissolve data so that they can be brought back, and how."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from ..names import pick
from .base import PDE, Green
from .custom import Custom
from .elliptic import Helmholtz, Mixed, Poisson, Yukawa
from .parabolic import Biharmonic, Diffusion, Fractional, ThirdOrder
from .wave import DissipativeWave, IdealWave, Schrodinger

CATALOGUE: dict[str, type[PDE]] = {
    kind.name: kind
    for kind in (
        Diffusion,
        Poisson,
        Yukawa,
        Mixed,
        Fractional,
        ThirdOrder,
        DissipativeWave,
        Helmholtz,
        Biharmonic,
        IdealWave,
        Schrodinger,
    )
}

__all__ = [
    "CATALOGUE",
    "PDE",
    "Custom",
    "Green",
    "named",
    "spelled",
    *sorted(kind.__name__ for kind in CATALOGUE.values()),
]


def named(name: str, parameters: dict[str, Any] | None = None) -> PDE:
    """The equation called `name`, with these parameters and the defaults for the others; "custom" takes a relation.

    Raises: ValueError for an unknown name, a parameter that the equation has not, or a value that it cannot take.
    """
    kinds: dict[str, type[PDE]] = {**CATALOGUE, Custom.name: Custom}
    kind = pick(name, kinds, "equation")
    known = [f.name for f in fields(kind) if f.init]
    for given in parameters or {}:
        if given not in known:
            has = f"it has {', '.join(known)}" if known else "it has no parameters"
            raise ValueError(f"the {name} equation has no {given}; {has}")
    return kind(**parameters or {})


def spelled(text: str) -> PDE:
    """The equation that `text` spells: "poisson", "yukawa(mass=2)" or "custom(symbol=log(1 + k**2))".

    Raises: ValueError for what is no such text, and what `named` raises.
    """
    found = re.fullmatch(r"([\w-]+)(?:\((.*)\))?", text.strip())
    inside = (found[2] or "").strip() if found else ""
    if found and found[1] == Custom.name:
        key, _, relation = inside.partition("=")
        return named(Custom.name, {key.strip(): relation.strip().strip("'\"")} if inside else {})
    pairs = [p.partition("=") for p in inside.split(",") if p.strip()]
    try:
        values = {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        found = None
    if found is None:
        raise ValueError(f"an equation is a name with numbers, such as yukawa(mass=2); got {text!r}")
    return named(found[1], values)
