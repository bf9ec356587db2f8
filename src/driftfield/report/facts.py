"""Tables of a report that need no measurement: the runs at a glance, their recipes, the proposals, the environment."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch

from ..plain import to_plain
from ..recipe import differing
from .parts import Row, Section, Table
from .style import look_of_run
from .subject import Subject

_PACKAGES = ("torch", "numpy", "scipy", "safetensors", "matplotlib", "scikit-learn")


def glance(subjects: Sequence[Subject]) -> Section:
    """What each run is, in a column of its own."""
    plains = [to_plain(s.recipe) for s in subjects]
    section = Section("runs", "Runs")
    columns = {
        "process": [brief(p["objective"]["process"]) for p in plains],
        "data": [brief(p["data"]) for p in plains],
        "a sample": [_sample(s) for s in subjects],
        "network": [
            f"{brief(p['network'])}, {_parameters(s):,} parameters" for p, s in zip(plains, subjects, strict=True)
        ],
        "weights": [_weights(s) for s in subjects],
        "held-out loss": [_held(s) for s in subjects],
        "sampling": [
            f"{s.recipe.sampling.solver}, {s.nfe} evaluations, {s.recipe.sampling.grid} grid" for s in subjects
        ],
    }
    rows = tuple(Row(name, tuple(cells)) for name, cells in columns.items())
    section.tables.append(Table("The runs at a glance", ("", *(s.name for s in subjects)), rows, _keys(len(subjects))))
    for s in subjects:
        if s.folder is None:
            section.notes.append(f"The folder of {s.name} cannot be written, so its results are not kept.")
        steps = s.recipe.training.steps
        if s.step is not None and steps is not None and s.log and s.log[-1]["step"] < steps:
            section.notes.append(
                f"{s.name} is not finished: its training stands at step {s.log[-1]['step']} of {steps}, and everything "
                f"below was drawn with the weights of step {s.step}."
            )
    if len(data_groups(subjects)) > 1:
        section.notes.append(
            "These runs learned different data: their samples can be looked at side by side, but their scores and "
            "losses are not comparable."
        )
    return section


def data_groups(subjects: Sequence[Subject]) -> list[list[int]]:
    """The runs, by index, that learned the same data: only their numbers can be compared."""
    groups: dict[str, list[int]] = {}
    for i, s in enumerate(subjects):
        groups.setdefault(f"{to_plain(s.recipe.data)} {to_plain(s.info)}", []).append(i)
    return list(groups.values())


def recipes(subjects: Sequence[Subject]) -> Section:
    """The whole recipe of each run, folded away, and above it what differs between them."""
    section = Section(
        "recipe", "Recipe", "Everything that decides what a run is, as it is kept inside its weights file."
    )
    plains = [to_plain(s.recipe) for s in subjects]
    head = ("field", *(s.name for s in subjects))
    keys = _keys(len(subjects))
    paths = [line.partition(" (")[0] for p in plains[1:] for line in differing(plains[0], p)]
    different = tuple(dict.fromkeys(paths))
    if len(subjects) > 1:
        rows = tuple(Row(path, tuple(brief(_at(p, path)) for p in plains), True, code=True) for path in different)
        if rows:
            section.tables.append(Table("What differs", head, rows, keys))
        else:
            section.notes.append("The recipes are the same, field by field.")
    leaves = dict.fromkeys(path for p in plains for path in _leaves(p))

    def inside(path: str) -> bool:
        return any(path == d or path.startswith(f"{d}.") for d in different)

    whole = tuple(Row(path, tuple(_leaf(p, path) for p in plains), inside(path), code=True) for path in leaves)
    caption = "Fields that differ are marked." if different else "Defaults included."
    section.tables.append(Table("The whole recipe", head, whole, keys, caption, folded=True))
    return section


def proposals(subjects: Sequence[Subject]) -> Section | None:
    """What was proposed for the data of each run and why, where the run has it on record."""
    section = Section("proposal", "Proposal", "What was proposed from a look at the data, each value with its reason.")
    for s in subjects:
        if s.proposal is None:
            continue
        reasons = s.proposal.get("reasons", {})
        values = {k: v for k, v in s.proposal.items() if k not in ("is", "reasons", "facts")}
        rows = tuple(Row(k, (brief(v), str(reasons.get(k, ""))), code=True) for k, v in values.items())
        section.tables.append(Table(f"Proposed for {s.name}", ("", "value", "reason"), rows))
        facts = s.proposal.get("facts", {})
        seen = tuple(Row(path, (_leaf(facts, path),), code=True) for path in _leaves(facts))
        section.tables.append(Table(f"What was seen of the data of {s.name}", ("", "value"), seen, folded=True))
    return section if section.tables else None


def environment(subjects: Sequence[Subject], n: int, seed: int, command: str | None) -> Section:
    """Where and how this page was made, for somebody who would make it again."""
    from .. import __version__

    device = subjects[0].device
    found = {
        "driftfield": __version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{p: v for p in _PACKAGES if (v := _version(p)) is not None},
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type}, {os.cpu_count()} cores",
        "threads": str(torch.get_num_threads()),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seed": str(seed),
        "samples for each score": str(n),
        **({"command": command} if command else {}),
        **{f"weights of {s.name}": f"SHA-256 {s.digest[:16]}…" for s in subjects},
    }
    rows = tuple(Row(name, (value,)) for name, value in found.items())
    lead = "Where this page was made. Sample i of a seed is the same on any machine to rounding, whatever the batch."
    return Section("environment", "Environment", lead, tables=[Table("Environment", ("", "value"), rows)])


def brief(plain: Any) -> str:
    """A plain value in one line: `PFGMPP(D=128, span=(0.002, 80))`."""
    if isinstance(plain, dict) and "is" in plain:
        if "target" in plain and "options" in plain:
            return f"{str(plain['target']).split(':')[-1]}({_arguments(plain['options'])})"
        rest = {k: v for k, v in plain.items() if k != "is"}
        return f"{str(plain['is']).split(':')[-1]}({_arguments(rest)})"
    if isinstance(plain, dict):
        return f"{{{_arguments(plain)}}}"
    if isinstance(plain, list | tuple):
        return f"({', '.join(brief(v) for v in plain)})"
    if isinstance(plain, float):
        return f"{plain:.6g}"
    return "none" if plain is None else str(plain)


def _arguments(fields: dict[str, Any]) -> str:
    return ", ".join(f"{k}={brief(v)}" for k, v in fields.items())


def _leaves(plain: Any, at: str = "") -> list[str]:
    """The dotted paths of all plain values in a nested one; what a value *is* stands at its own path."""
    if not isinstance(plain, dict):
        return [at]
    own = [at] if "is" in plain and at else []
    return own + [p for k, v in plain.items() if k != "is" for p in _leaves(v, f"{at}.{k}" if at else k)]


def _at(plain: Any, path: str) -> Any:
    """The value at a dotted path. "–" where there is none."""
    for key in path.split("."):
        if not isinstance(plain, dict) or key not in plain:
            return "–"
        plain = plain[key]
    return plain


def _leaf(plain: Any, path: str) -> str:
    """The value at a dotted path in one line; of one that has fields of its own, which follow, its name alone."""
    found = _at(plain, path)
    return str(found["is"]).split(":")[-1] if isinstance(found, dict) and "is" in found else brief(found)


def _sample(subject: Subject) -> str:
    info = subject.info
    size = " × ".join(map(str, info.shape))
    classes = f", {len(info.classes)} classes" if info.classes else ""
    count = f", {info.count:,} training items" if info.count else ", drawn afresh at every step"
    return f"{info.kind} {size}{classes}{count}"


def _parameters(subject: Subject) -> int:
    return sum(p.numel() for p in subject.denoiser.parameters())


def _weights(subject: Subject) -> str:
    steps = subject.recipe.training.steps
    of = "" if steps is None else f" of {steps:,}"
    return "of an unknown step" if subject.step is None else f"step {subject.step:,}{of}"


def _held(subject: Subject) -> str:
    judged = [line for line in subject.log if "by_level" in line]
    here = [line for line in judged if line["step"] == subject.step] or judged[-1:]
    return f"{here[0]['by_level']['held_mean']:.4f} at step {here[0]['step']:,}" if here else "not on record"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _keys(count: int) -> tuple[str, ...]:
    return ("", *(look_of_run(i).colour for i in range(count)))
