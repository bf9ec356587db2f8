"""Frozen values as plain JSON and back.

A dataclass becomes `{"is": "module:Class", ...fields}`; infinities are written as "inf"; tuples as lists. Reading
imports nothing outside `driftfield` and the prefixes the caller trusts, and runs no code but dataclass constructors.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Build:
    """Something built when a run needs it: an import path and keyword options. Modules enter recipes this way."""

    target: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.options:
            if name not in self.parameters():
                raise ValueError(no_field(self.target.split(":")[-1], name, self.parameters()))

    def parameters(self) -> list[str]:
        """The names of the options that the target takes."""
        return list(inspect.signature(locate(self.target)).parameters)

    def __call__(self, **given: Any) -> Any:
        """Build it, with those of the `given` options that it takes; its own options come first."""
        takes = self.parameters()
        return locate(self.target)(**{k: v for k, v in given.items() if k in takes} | self.options)


def locate(path: str, trust: Sequence[str] | None = None) -> Any:
    """The object at the import path `module:name`. With `trust`, only from driftfield and the prefixes it lists.

    Raises: ValueError for a path that does not lead anywhere, or not to a trusted module.
    """
    module, _, name = path.partition(":")
    prefixes = None if trust is None else ("driftfield", *trust)
    if prefixes is not None and not _within(module, prefixes):
        raise ValueError(f"{path!r} is outside the trusted modules ({', '.join(prefixes)}); pass trust=({module!r},)")
    if not name or not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(
            f"{path!r} is not an import path; expected module:name, such as driftfield.process.poisson:PFGMPP"
        )
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # the user named or trusts it, and may mean the file in front of them
    try:
        found = getattr(import_module(module), name)
    except ImportError as error:
        raise ValueError(f"cannot import {module!r}: {error}") from error
    except AttributeError:
        raise ValueError(f"module {module!r} has no {name!r}") from None
    if prefixes is not None and not _within(str(getattr(found, "__module__", "")), prefixes):
        raise ValueError(f"{path!r} leads outside the trusted modules ({', '.join(prefixes)})")
    return found


def _within(module: str, prefixes: Sequence[str]) -> bool:
    return any(module == p or module.startswith(p + ".") for p in prefixes)


def packages_in(plain: Any) -> tuple[str, ...]:
    """The top-level packages that a plain value would import: what its own author trusts."""
    if isinstance(plain, dict):
        own = {str(plain[k]).partition(":")[0].partition(".")[0] for k in ("is", "target") if k in plain}
        return tuple(sorted(own | {p for v in plain.values() for p in packages_in(v)}))
    return tuple(sorted({p for v in plain for p in packages_in(v)})) if isinstance(plain, list) else ()


def to_plain(value: Any) -> Any:
    """`value` as what JSON can hold. Raises: TypeError for anything but frozen values, numbers, strings and lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        if "<" in kind.__qualname__ or "." in kind.__qualname__:
            raise TypeError(
                f"{kind.__qualname__} is defined inside a function or class; move it to the top of a module"
            )
        kept = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init and _kept(f)}
        return {"is": f"{kind.__module__}:{kind.__qualname__}", **kept}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [to_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    raise TypeError(
        f"a {type(value).__name__} cannot be written into a recipe; use a frozen dataclass at the top of a module"
    )


def _kept(f: dataclasses.Field[Any]) -> bool:
    return bool(f.metadata.get("plain", True))


def from_plain(plain: Any, trust: Sequence[str] = ()) -> Any:
    """The inverse of `to_plain`. Raises: ValueError for an untrusted import path or a field that does not exist."""
    if isinstance(plain, list):
        return tuple(from_plain(v, trust) for v in plain)
    if not isinstance(plain, dict):
        return plain
    if "is" not in plain:
        return {k: from_plain(v, trust) for k, v in plain.items()}
    kind = locate(plain["is"], trust)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise ValueError(f"{plain['is']!r} is not a dataclass, so it cannot stand in a recipe")
    if kind is Build:
        _check_module(plain.get("target"), trust)
    hints, values = typing.get_type_hints(kind), {}
    for name, inner in plain.items():
        if name == "is":
            continue
        if name not in hints:
            raise ValueError(no_field(kind.__name__, name, fields_of(kind)))
        value = from_plain(inner, trust)
        number = float in (hints[name], *typing.get_args(hints[name]))
        values[name] = float(value) if number and value in ("inf", "-inf", "nan") else value
    return kind(**values)


def _check_module(target: Any, trust: Sequence[str]) -> None:
    """A file may name the network it needs, and nothing else that could be called."""
    from torch import nn

    found = locate(str(target), trust)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"{target!r} is not a network (a torch module), so a recipe file may not build it")


def fields_of(kind: Any) -> list[str]:
    """The names of the fields of a dataclass that are written down."""
    return [f.name for f in dataclasses.fields(kind) if f.init and _kept(f)]


def no_field(owner: str, name: str, known: Sequence[str]) -> str:
    """The sentence that `owner` has no field of that `name`."""
    return f"{owner} has no field {name!r}; it has {', '.join(known)}"
