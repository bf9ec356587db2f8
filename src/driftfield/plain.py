"""Frozen values as plain JSON and back, and changing one field of them by name.

A dataclass becomes `{"is": "module:Class", ...fields}`; infinities are written as "inf"; tuples as lists. Reading
imports nothing outside `driftfield` and the prefixes the caller trusts, and runs no code but dataclass constructors.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import operator
import os
import pkgutil
import re
import sys
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Union

from .names import unknown


@dataclass(frozen=True)
class Build:
    """Something built when a run needs it: an import path and keyword options. Modules enter recipes this way."""

    target: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.options:
            if name not in self.parameters():
                raise ValueError(_no_field(self.target.split(":")[-1], name, self.parameters()))

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
            raise ValueError(_no_field(kind.__name__, name, _fields(kind)))
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


def _fields(kind: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(kind) if f.init and _kept(f)]


def _no_field(owner: str, name: str, known: Sequence[str]) -> str:
    return f"{owner} has no field {name!r}; it has {', '.join(known)}"


def override(value: Any, path: str, text: str) -> Any:
    """`value` with the field at the dotted `path` set to what `text` says, read by the field's type.

    Text is a number, true or false, none, a comma-separated list, or for a field that holds a value of ours the name
    of its class, with options if wanted: `EDM`, `PFGMPP(D=64)`, `my.module:Process`.
    Raises: ValueError naming the fields that exist, or what the field takes.
    """
    name, _, rest = path.partition(".")
    if isinstance(value, Build):
        known = value.parameters()
        if name not in known or rest:
            raise ValueError(_no_field(value.target.split(":")[-1], path, known))
        return dataclasses.replace(value, options={**value.options, name: _literal(text)})
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise ValueError(f"{value!r} is a plain value and has no field {name!r}")
    if name not in _fields(type(value)):
        raise ValueError(_no_field(type(value).__name__, name, _fields(type(value))))
    hint = typing.get_type_hints(type(value))[name]
    old = getattr(value, name)
    if rest:
        if old is None and (kinds := [k for k in _members(hint) if dataclasses.is_dataclass(k)]):
            old = typing.cast(Any, kinds[0])()
        new = override(old, rest, text)
    else:
        new = read(hint, text, name, old)
    return dataclasses.replace(value, **{name: new})


def settled(value: Any, settings: Sequence[str]) -> Any:
    """`value` with `a.b.c=text` settings applied in turn. Raises: ValueError, as `override`."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"a setting is field=value, got {setting!r}")
        value = override(value, path.strip(), text.strip())
    return value


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def read(hint: Any, text: str, name: str, old: Any = None) -> Any:
    """`text` as a value of the type `hint`, in the place of `old`; `name` is what errors call it."""
    members = _members(hint)
    if type(None) in members and text.lower() in ("none", "null"):
        return None
    for kind in members:
        if kind is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind in (int, float):
            try:
                return kind(text)
            except ValueError:
                if kind is float and (ratio := re.fullmatch(r"([\d.]+)\s*/\s*([\d.]*[1-9][\d.]*)", text.strip())):
                    return float(ratio[1]) / float(ratio[2])
                continue
        if kind is str:
            return text
        if typing.get_origin(kind) is tuple:
            item = typing.get_args(kind)[0]
            return tuple(read(item, part.strip(), name) for part in text.strip("()[]").split(",") if part.strip())
    ours = [k for k in members if isinstance(k, type) and k.__module__ not in ("builtins", "types")]
    if ours:
        return _value(ours, text, old)
    takes = " or ".join("none" if k is type(None) else getattr(k, "__name__", str(k)) for k in members)
    raise ValueError(f"{name} takes {takes}, got {text!r}")


def _value(bases: Sequence[type], text: str, old: Any) -> Any:
    """A value of one of our classes from its name, with options in parentheses; or a sum of such, with factors."""
    try:
        sum_of = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        sum_of = None
    if isinstance(sum_of, ast.BinOp) and isinstance(sum_of.op, ast.Add | ast.Mult):
        return _combined(bases, sum_of, text)
    match = re.fullmatch(r"([\w.:]+)(?:\((.*)\))?", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not the name of a class, such as PFGMPP or PFGMPP(D=64)")
    called, inside = match.groups()
    if ":" in called:
        kind = locate(called)
    else:
        known = {k.__name__: k for base in bases for k in choices(base)}
        if called not in known:
            raise ValueError(unknown(called, known, bases[0].__name__.lower()))
        kind = known[called]
    names = list(_fields(kind)) if dataclasses.is_dataclass(kind) else []
    made = _made(kind, _options(inside or "", text, names), text, old)
    if not isinstance(made, tuple(bases)):
        raise ValueError(f"{text!r} makes a {type(made).__name__}, which is not a {bases[0].__name__}")
    return made


def _combined(bases: Sequence[type], formula: ast.BinOp, text: str) -> Any:
    """Such as `Power(1.0) + 0.3 * Power(0.5)`, of values that add up, or take factors."""
    known = {ast.Add: operator.add, ast.Mult: operator.mul}
    parts = []
    for side in (formula.left, formula.right):
        factor = isinstance(formula.op, ast.Mult) and side is formula.left
        parts.append(read(float, ast.unparse(side), "a factor") if factor else _value(bases, ast.unparse(side), None))
    try:
        return known[type(formula.op)](*parts)
    except TypeError:
        raise ValueError(f"{text!r} adds what does not add up") from None


def _made(kind: Any, options: Sequence[tuple[str, str]], text: str, old: Any) -> Any:
    """A value of `kind` with these options, and for the rest its defaults.

    Where they do not suffice, the rest are the fields of an `old` value of its kin.
    """
    try:
        made = kind()
    except TypeError as error:
        if not (isinstance(kind, type) and (isinstance(old, kind) or issubclass(kind, type(old)))):
            raise ValueError(f"{text!r} cannot be made from its name alone ({error}); set its parts instead") from None
        names, hints = _fields(kind), typing.get_type_hints(kind)
        values = {k: getattr(old, k) for k in names if k in _fields(type(old))}
        for key, option in options:
            if key not in names:
                raise ValueError(_no_field(kind.__name__, key, names)) from None
            values[key] = read(hints[key], option, key, values.get(key))
        return kind(**values)
    for key, option in options:
        made = override(made, key, option)
    return made


def _options(inside: str, text: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """The options between parentheses, `a=1, b=(2, 3)`, each with the text of its value; the first may lack `names`."""
    try:
        call = ast.parse(f"f({inside})", mode="eval").body
    except SyntaxError:
        call = None
    if not isinstance(call, ast.Call) or len(call.args) > len(names) or any(k.arg is None for k in call.keywords):
        raise ValueError(f"{text!r} should read like PFGMPP(D=64, span=(0.01, 50))")
    first = [(name, ast.unparse(value)) for name, value in zip(names, call.args, strict=False)]
    return [*first, *((str(k.arg), ast.unparse(k.value)) for k in call.keywords)]


def choices(base: type) -> list[type]:
    """The dataclasses that can stand where a `base` is asked for: the folder it lives in is their register."""
    folder = base.__module__.rpartition(".")[0]
    if "." in folder:  # a file at the top of a package is its own register
        for module in pkgutil.iter_modules(import_module(folder).__path__):
            import_module(f"{folder}.{module.name}")
    found, waiting = [], [base]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if dataclasses.is_dataclass(kind) and not inspect.isabstract(kind) and kind not in found:
            found.append(kind)
    return found
