"""How the figures of a report look, and how they become files: one palette, one size, light and dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#1b1f24", "#c9ced6"  # text and frames; grid lines. The page turns both round in the dark
_DARK = {INK: "#e6e9ee", FAINT: "#454d58"}

# Told apart with any colour vision, and at 3:1 or better on white and on near-black alike. Runs are of Okabe and Ito;
# solvers have colours of their own, so that no colour means two things on one page.
RUNS = ("#0072b2", "#d55e00", "#009e73", "#c46a9b")
SOLVERS = ("#a6761d", "#7570b3", "#d6267f", "#6b7785", "#66801a")
MARKERS = ("o", "s", "^", "D", "v")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
WIDTH = 4.4  # inches: at phone width the letters are still readable

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so a figure is the same on every machine
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "axes.titlesize": 9.5,
    "legend.fontsize": 8.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "image.interpolation": "none",
    "svg.fonttype": "path",
    "svg.hashsalt": "driftfield",
    "savefig.dpi": 200,
    "figure.dpi": 100,
}


@dataclass(frozen=True)
class Look:
    """The colour, the dashes and the marker that one run keeps in every figure."""

    colour: str
    dash: Any
    marker: str


def look_of_run(index: int) -> Look:
    """The look of the run at `index`: colours repeat after four runs, with other dashes."""
    return Look(RUNS[index % len(RUNS)], DASHES[index // len(RUNS) % len(DASHES)], MARKERS[index % len(MARKERS)])


def look_of_solver(name: str, known: Sequence[str]) -> Look:
    """The look of the solver `name` among all that are `known`: the same on every page."""
    index = list(known).index(name)
    return Look(SOLVERS[index % len(SOLVERS)], DASHES[index // len(SOLVERS) % len(DASHES)], MARKERS[index % 5])


def styled() -> Any:
    """A context in which figures are made and saved in the house style; nothing global is left changed.

    Raises: ImportError where matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
    except ImportError:
        raise ImportError("figures are drawn by matplotlib: pip install 'driftfield[plot]'") from None
    return rc_context(cast(Any, _RC))


def blank(height: float, lines: int = 1, columns: int = 1, share: bool = False) -> tuple[Figure, list[Axes]]:
    """A new figure `WIDTH` by `height` inches with its axes, row by row; `share` gives all of them one x axis."""
    with styled():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False, sharex=share)
        return figure, list(axes.flat)


def png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as PNG on white; figures made alike have the same bytes."""
    return _saved(figure, "png", {"dpi": dpi, "facecolor": "white", "metadata": {"Software": None}})


def svg(figure: Figure) -> bytes:
    """The figure as SVG on white, for a paper; figures made alike have the same bytes."""
    return _saved(figure, "svg", {"facecolor": "white", "metadata": {"Date": None, "Creator": None}})


def embedded(figure: Figure) -> str:
    """The figure as a data URI of an SVG without ground, whose ink follows the reader's light or dark scheme."""
    text = _saved(figure, "svg", {"metadata": {"Date": None, "Creator": None}}).decode()
    light, dark = (";".join(f"--c{i}:{pair[j]}" for i, pair in enumerate(_DARK.items())) for j in (0, 1))
    for i, colour in enumerate(_DARK):
        text = text.replace(colour, f"var(--c{i})")
    rules = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    head, opening, rest = text.partition("<svg")
    inside, closing, rest = rest.partition(">")
    whole = head + opening + inside + closing + rules + rest
    return "data:image/svg+xml;base64," + base64.b64encode(whole.encode()).decode()


def _saved(figure: Figure, form: str, options: dict[str, Any]) -> bytes:
    with styled(), io.BytesIO() as buffer:
        figure.savefig(buffer, format=form, **options)
        return buffer.getvalue()
