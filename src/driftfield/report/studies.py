"""Studies of robustness as values: what is tried, what was found, as a table and as a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_bytes
from .figures import Curve, log_where_wide
from .style import INK, blank, look_of_run, png, styled, svg
from .subject import writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Study:
    """One way of making sampling harder: its name, the `settings` that are tried, and what an axis says of them.

    `falling`: from large settings to small ones it gets harder.
    """

    name: str
    settings: tuple[float, ...]
    title: str
    axis: str
    falling: bool = True


STUDIES = {
    s.name: s
    for s in (
        Study(
            "noise",
            (0.0, 0.05, 0.1, 0.2, 0.3, 0.4),
            "noise injected before every step",
            r"injected noise $\alpha$, in units of the noise at each step",
            falling=False,
        ),
        Study("steps", (35, 19, 13, 9, 7, 5), "fewer evaluations", "evaluations of the network per sample (NFE)"),
        Study("weights", (9, 8, 7, 6, 5, 4), "weights of fewer bits", "bits of each inner weight"),
    )
}


@dataclass(frozen=True, eq=False)
class Line:
    """What one run scored in a study: at `curve.x` a Frechet distance `curve.y` with its standard error.

    `D` is that of the run's process, infinite for Gaussian noise, None for noise that is not Student's t. `torchao` are
    the distances with torchao's scales, a study of weights where torchao is installed and the network has such layers.
    """

    run: str
    D: float | None
    curve: Curve
    torchao: Curve | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """A study and a line for each run; `warnings` are those of the scores, each once."""

    study: Study
    lines: tuple[Line, ...]
    features: str
    n: int
    split: str
    seed: int
    warnings: tuple[str, ...] = ()

    def table(self) -> list[list[str]]:
        """The table as cells, its heads first: a row for each run, and one more where torchao chose the scales."""
        heads = ["run", "D", *(f"{s:g}" for s in self.study.settings)]
        rows = []
        for line in self.lines:
            d = "-" if line.D is None else f"{line.D:g}"
            for name, curve in ((line.run, line.curve), (f"{line.run}, torchao", line.torchao)):
                if curve is not None:
                    cells = {x: f"{y:.3g} ± {e:.1g}" for x, y, e in zip(curve.x, curve.y, curve.error, strict=True)}
                    rows.append([name, d, *(cells.get(s, "") for s in self.study.settings)])
        return [heads, *rows]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values that JSON keeps; an infinite `D` is "inf"."""

        def plain(curve: Curve | None) -> Any:
            return None if curve is None else {"at": curve.x, "frechet": curve.y, "error": curve.error}

        runs = {
            line.run: {
                "D": "inf" if line.D is not None and math.isinf(line.D) else line.D,
                **plain(line.curve),
                **({} if line.torchao is None else {"torchao": plain(line.torchao)}),
            }
            for line in self.lines
        }
        return {"study": self.study.name, "runs": runs, "warnings": list(self.warnings)}


def figure(found: Found) -> Figure:
    """The Frechet distance as sampling is made harder to the right: a line for each run, bars of one standard error.

    Hollow markers are weights by torchao's scales.
    """
    drawn, (ax,) = blank(2.9)
    study = found.study
    with styled():
        for i, line in enumerate(found.lines):
            look, name = look_of_run(i), _label(line)
            style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "capsize": 2.5}
            curve, more = line.curve, line.torchao
            ax.errorbar(curve.x, curve.y, yerr=curve.error, linestyle=look.dash, label=name, **style)
            if more is not None:
                ax.errorbar(more.x, more.y, yerr=more.error, linestyle="", mfc="white", **style)
        curves = [c for line in found.lines for c in (line.curve, line.torchao) if c is not None]
        log_where_wide(ax, [y for c in curves for y in c.y], None)
        if any(line.torchao for line in found.lines):
            ax.plot([], [], "o", mfc="white", color=INK, label="hollow: by torchao")
        if study.name == "steps":
            ax.set_xscale("log")
        ax.set_xticks(study.settings, [f"{x:g}" for x in study.settings])
        ax.set_xticks([], minor=True)
        if study.falling:
            ax.invert_xaxis()
        ax.set_xlabel(study.axis)
        ax.set_ylabel("Fréchet distance")
        ax.grid(True)
        ax.legend()
    return drawn


def check_figures(folder: str | Path) -> None:
    """Raises: OSError for a folder that cannot be written, ImportError without matplotlib."""
    styled()
    if not writable(Path(folder)):
        raise OSError(f"cannot write into {folder}: it is no folder that can be written; choose another place")


def write_figures(found: Sequence[Found], folder: str | Path) -> list[Path]:
    """Draw each study to `folder` as NAME.png and NAME.svg, and return the files.

    Raises: as `check_figures`.
    """
    check_figures(folder)
    files = []
    for one in found:
        drawn = figure(one)
        for suffix, form in ((".png", png), (".svg", svg)):
            path = Path(folder) / f"{one.study.name}{suffix}"
            write_bytes(path, form(drawn))
            files.append(path)
    return files


def _label(line: Line) -> str:
    return line.run if line.D is None else f"{line.run} (D = {'∞' if math.isinf(line.D) else f'{line.D:g}'})"
