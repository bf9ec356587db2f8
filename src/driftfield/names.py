"""Looking a thing up by its short name, with a helpful answer to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


def unknown(name: str, known: Iterable[str], what: str) -> str:
    """One sentence that says `name` is no such `what`, offers the nearest one, and lists them all."""
    known = sorted(known)
    near = get_close_matches(name.lower(), [k.lower() for k in known], n=1, cutoff=0.5)
    offer = next((f"; did you mean {k!r}?" for k in known if near and k.lower() == near[0]), ";")
    return f"unknown {what} {name!r}{offer} known: {', '.join(known)}"


def pick(name: str, known: Mapping[str, T], what: str) -> T:
    """The entry of `known` called `name`.

    Raises: ValueError for an unknown name, offering the nearest valid one.
    """
    if name not in known:
        raise ValueError(unknown(name, known, what))
    return known[name]
