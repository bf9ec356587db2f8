"""The numbers a sample earned, with the record that lets somebody else repeat them."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any


@dataclass(frozen=True)
class Scores:
    """Scores of a sample against a reference, and how they were taken.

    `values` are by name: that of the metric, or `metric[class]` for one class and `metric[classes]` for the mean over
    classes. `errors` are standard errors over fresh samples and references, where there is one (of a table's `auc` with
    the classifiers held fixed, which is less, see `classifier_auc`). Compare only values whose `record` agrees:
    features and resize rule, numbers of rows, split, seeds, the metrics' own settings, and the version of driftfield.
    """

    values: dict[str, float]
    errors: dict[str, float] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Everything in one flat dictionary that JSON keeps: values, errors as `NAME_error`, and the record."""
        return {**self.values, **{f"{name}_error": e for name, e in self.errors.items()}, **self.record}

    def __str__(self) -> str:
        """A table, errors as +-, classes below, and the record in its last lines."""
        whole = [name for name in self.values if "[" not in name]
        width = max((len(name) for name in whole), default=0)
        lines = [f"{name:<{width}}  {self._number(name)}" for name in whole]
        return "\n".join([*lines, *self._by_class(), *_wrapped(self.record)])

    def _number(self, name: str) -> str:
        error = f" +- {self.errors[name]:.2g}" if name in self.errors else ""
        return f"{self.values[name]:.6g}{error}"

    def _by_class(self) -> list[str]:
        """A line for each class, a column for each metric."""
        split = [name.removesuffix("]").split("[", 1) for name in self.values if "[" in name]
        if not split:
            return []
        metrics, classes = (list(dict.fromkeys(part)) for part in zip(*split, strict=True))
        table = [["class", *metrics]]
        for c in classes:
            names = [f"{m}[{c}]" for m in metrics]
            table.append([c, *(self._number(name) if name in self.values else "" for name in names)])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return ["", *("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in table)]


def _wrapped(record: dict[str, Any]) -> list[str]:
    """`name value` pairs of what is known, as many on a line as fit in 100 columns."""
    lines = [""]
    for name, value in record.items():
        if value is not None:
            item = f"{name.replace('_', ' ')} {f'{value:.6g}' if isinstance(value, float) else value}"
            if lines[-1] and len(lines[-1]) + len(item) > 98:
                lines.append("")
            lines[-1] += f"; {item}" if lines[-1] else item
    return lines


def library_version() -> str:
    """The version of driftfield, or that it is a copy of the sources."""
    try:
        return version("driftfield")
    except PackageNotFoundError:
        return "not installed"
