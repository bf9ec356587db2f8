"""A report: one page of HTML with its figures inside it, about one run or several side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files import write_bytes, write_text
from ..plain import to_plain
from ..train.interrupt import Interrupted
from . import facts, measure, quality, sections
from .parts import Picture, Section
from .style import embedded, png, styled, svg
from .subject import Subject, subjects, writable


def write_report(
    runs: Sequence[str | Path] | str | Path,
    *,
    out: str | Path = "report.html",
    figures: str | Path | None = None,
    n: int | None = None,
    seed: int = 0,
    data: str | None = None,
    device: str | None = None,
    trust: Sequence[str] = (),
    command: str | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Write a page about `runs`, side by side, and return where it is and the numbers on it.

    The page holds samples, their nearest training items, scores and quality against evaluations with standard errors,
    losses, samples on their way from noise, recipes and the environment. `n` samples count for each score: as many as
    fit into about a minute a run if it is not given. `figures` is a folder for every figure as PNG and SVG. Results
    are kept in RUN/report, so the same call again is quick and an interrupted one goes on. `data` is where the data
    are, if they have moved; what needs data that cannot be had is left out, and the page says so.
    Raises: ValueError, OSError or ImportError with one sentence; Interrupted after Ctrl-C. Nothing is half-written.
    """
    page, folder = Path(out), None if figures is None else Path(figures)
    _check(page, folder, n, seed)
    with styled():  # raises where matplotlib is not installed, before anything is measured
        pass
    opened = subjects([runs] if isinstance(runs, str | Path) else runs, device, trust, data)
    results: dict[str, dict[str, Any]] = {s.name: {"run": s.run, "step": s.step} for s in opened}
    try:
        count = min(quality.choose(s) for s in opened) if n is None else n
        found = _sections(opened, count, seed, trust, command, results, progress)
    except KeyboardInterrupt:
        raise Interrupted("stopped; what was measured is kept, and the same command goes on from there") from None
    shown = [p for section in found for p in section.pictures]
    written = [] if folder is None else [file for p in shown for file in _write_figure(p, folder)]
    write_text(page, render(opened, found))
    return {"out": str(page), "figures": written, "n": count, "seed": seed, "runs": results}


def _sections(
    opened: Sequence[Subject],
    n: int,
    seed: int,
    trust: Sequence[str],
    command: str | None,
    results: dict[str, dict[str, Any]],
    progress: bool,
) -> list[Section]:
    total = sum(quality.work(s, n) + measure.shown_work(s) for s in opened)
    with _bar(total, progress) as advance:
        found = [
            facts.glance(opened),
            sections.samples(opened, seed, advance),
            sections.neighbours(opened, seed, advance),
            sections.scores(opened, n, seed, trust, advance, results),
            sections.quality(opened, n, seed, advance, results),
            sections.losses(opened),
            sections.ways(opened, seed, advance),
            facts.recipes(opened),
            facts.proposals(opened),
            facts.environment(opened, n, seed, command),
        ]
    return [section for section in found if section is not None]


def render(opened: Sequence[Subject], found: Sequence[Section]) -> str:
    """The page as HTML text. Everything that comes from a run is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from .. import __version__

    world = Environment(
        loader=PackageLoader("driftfield.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ", ".join(s.name for s in opened)
    kinds = ", ".join(dict.fromkeys(facts.brief(to_plain(s.recipe.objective.process)) for s in opened))
    return world.get_template("page.html").render(
        title=f"Report on {names}",
        about=f"{len(opened)} runs side by side: {kinds}." if len(opened) > 1 else f"One run: {kinds}.",
        version=__version__,
        sections=[_plain(section) for section in found],
    )


def _plain(section: Section) -> dict[str, Any]:
    """A section as the template takes it: its figures embedded, with their sizes in CSS pixels."""
    shown = []
    for p in section.pictures:
        width, height = (round(96 * inches) for inches in p.figure.get_size_inches())
        shown.append({**vars(p), "src": embedded(p.figure), "width": width, "height": height})
    return {**vars(section), "pictures": shown}


def _write_figure(picture: Picture, folder: Path) -> list[str]:
    files = []
    for suffix, form in (("png", png), ("svg", svg)):
        path = folder / f"{picture.name}.{suffix}"
        write_bytes(path, form(picture.figure))
        files.append(str(path))
    return files


def _check(page: Path, folder: Path | None, n: int | None, seed: int) -> None:
    """Meet mistakes before two minutes of measuring, and not after them."""
    if page.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is a page that ends in .html, got {str(page)!r}; choose another --out")
    if page.is_dir():
        raise ValueError(f"{page} is a folder; give the file to write, such as {page / 'index.html'}")
    for place in (page.parent, *([folder] if folder is not None else [])):
        if not writable(place):
            raise OSError(f"cannot write into {place}: it is no folder that can be written; choose another place")
    if n is not None and n < quality.LEAST:
        raise ValueError(f"a score with a standard error needs at least {quality.LEAST} samples, got n={n}")
    if seed < 0:
        raise ValueError(f"a seed is a whole number of at least 0, got {seed}")


@contextmanager
def _bar(total: int, show: bool) -> Iterator[Callable[[str, int], None]]:
    """A function to call with what is being done, or "", and the work that is behind us."""
    if not show:
        yield lambda text, work: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)

        def advance(text: str, work: int) -> None:
            bar.update(task, advance=work, **({"description": text} if text else {}))  # type: ignore[arg-type]

        yield advance
