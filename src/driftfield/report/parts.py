"""What a page is made of: sections of notes, tables and pictures. No markup here: the template has it all."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(eq=False)
class Picture:
    """A figure under a name that is unique on the page; `run` says whose it is and `key` is that run's colour."""

    name: str
    figure: Figure
    caption: str
    alt: str
    run: str = ""
    key: str = ""


@dataclass(frozen=True)
class Row:
    """A name and a cell per column; `code` sets the name as code, `number` keeps cells on one line."""

    name: str
    cells: tuple[str, ...]
    differs: bool = False
    number: bool = False
    code: bool = False


@dataclass(frozen=True)
class Table:
    """A head, the first cell of which stands over the names, and rows; `keys` are colours of the columns, or ""."""

    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    keys: tuple[str, ...] = ()
    caption: str = ""
    folded: bool = False

    @property
    def columns(self) -> list[tuple[str, str]]:
        """The cells of the head, each with its colour."""
        return list(zip(self.head, self.keys or ("",) * len(self.head), strict=True))


@dataclass(eq=False)
class Section:
    """A heading with what stands under it, in this order; `id` is its address on the page."""

    id: str
    title: str
    lead: str = ""
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def measured(value: float, error: float | None) -> str:
    """A number with its standard error, as many digits as the error earns: `0.512 ± 0.013`."""
    return _measured(value, error).replace("-", "−")


def _measured(value: float, error: float | None) -> str:
    if error is None or not math.isfinite(value):
        return f"{value:.4g}"
    if error == 0:
        return f"{value:.4g} ± 0"
    places = max(0, 1 - math.floor(math.log10(error)))
    if places > 6 or abs(value) >= 1e6:
        return f"{value:.3e} ± {error:.1e}"
    return f"{value:.{places}f} ± {error:.{places}f}"
