"""A progress bar for training: step, loss, held-out loss, samples per second, time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .session import Report


@contextmanager
def training_bar() -> Iterator[Callable[[Report], None]]:
    """A function to call with each report; it draws on standard error."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[now]}"), TimeElapsedColumn())
    with Progress(TextColumn("training"), *columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None, now="")
        held = ""

        def watch(report: Report) -> None:
            nonlocal held
            if report.losses is not None:
                held = f" held-out {report.losses.held_mean:.4f}"
            now = f"loss {report.loss:.4f}{held}  {report.rate:.0f}/s  {_clock(report.left)} left"
            bar.update(task, total=report.steps, completed=report.step, now=now)

        try:
            yield watch
        finally:
            if not bar.tasks[0].total:  # nothing was trained
                bar.remove_task(task)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
