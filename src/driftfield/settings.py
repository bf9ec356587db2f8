"""Fields of frozen values changed by name, and values read from text: what settings on a command line say."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import operator
import pkgutil
import re
import types
import typing
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Union

from .names import unknown
from .plain import Build, fields_of, locate, no_field


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
            raise ValueError(no_field(value.target.split(":")[-1], path, known))
        return dataclasses.replace(value, options={**value.options, name: _literal(text)})
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise ValueError(f"{value!r} is a plain value and has no field {name!r}")
    if name not in fields_of(type(value)):
        raise ValueError(no_field(type(value).__name__, name, fields_of(type(value))))
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
    names = list(fields_of(kind)) if dataclasses.is_dataclass(kind) else []
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
        names, hints = fields_of(kind), typing.get_type_hints(kind)
        values = {k: getattr(old, k) for k in names if k in fields_of(type(old))}
        for key, option in options:
            if key not in names:
                raise ValueError(no_field(kind.__name__, key, names)) from None
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
