"""What a run logs, sent on to TensorBoard, Weights & Biases or Trackio.

A tracker is called with a step, named numbers and sometimes a picture. It only watches: a run is the same without it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
from PIL import Image

from ..files import write_text
from ..names import pick


class Tracker(Protocol):
    """Anything that follows a run: called with steps that never fall, and closed at the end."""

    def __call__(self, step: int, scalars: Mapping[str, float], image: Image.Image | None = None) -> None:
        """Take note of what is new at a step."""

    def close(self) -> None:
        """Write what is left."""


Track = Callable[[int, Mapping[str, float], Image.Image | None], None]


def untracked(step: int, scalars: Mapping[str, float], image: Image.Image | None = None) -> None:
    """The tracker of a run that nobody follows."""


@contextmanager
def tracking(names: Sequence[str], run: Path) -> Iterator[Track]:
    """One tracker that speaks to all that are named, for the run in the folder `run`; closed at the end.

    A resumed run goes on in the same place, and what it says again is not counted twice.
    Raises: ValueError for an unknown name, ImportError where its package is not installed.
    """
    made = [pick(name, TRACKERS, "tracker")(run) for name in names]

    def track(step: int, scalars: Mapping[str, float], image: Image.Image | None = None) -> None:
        for tracker in made:
            tracker(step, scalars, image)

    try:
        yield track
    finally:
        for tracker in made:
            tracker.close()


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a line of `log.jsonl`, named as a tracker groups them.

    `loss/train` is the running loss; `loss/held_out` and `loss/seen` are judged alike, on data never and often drawn;
    `held_out/LEVEL` and `seen/LEVEL` the same by noise level; the rest is `progress/...`.
    """
    found = {"loss/train": line["loss"]}
    found |= {f"progress/{name}": line[name] for name in line if name not in ("step", "loss", "by_level")}
    if judged := line.get("by_level"):
        found |= {"loss/held_out": judged["held_mean"], "loss/seen": judged["train_mean"]}
        for group, losses in (("held_out", judged["held"]), ("seen", judged["train"])):
            found |= {f"{group}/{level:.3g}": loss for level, loss in zip(judged["levels"], losses, strict=True)}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


class TensorBoard:
    """Event files in `RUN/tensorboard`, flushed at every call: a kill loses nothing that a saved state has seen.

    On resumption the steps that are said again take the place of those said before (TensorBoard's purge).
    """

    def __init__(self, run: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError(_lacking("tensorboard")) from None
        self._make: Callable[..., Any] = SummaryWriter
        self._folder = run / "tensorboard"
        self._writer: Any = None

    def __call__(self, step: int, scalars: Mapping[str, float], image: Image.Image | None = None) -> None:
        self._writer = self._writer or self._make(str(self._folder), purge_step=step)
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        if image is not None:
            self._writer.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


class Service:
    """A service that cannot take anything back: `RUN/NAME.json` keeps the run's name there and the last step told.

    Steps up to that one are not told again when a run is resumed. `begin` opens the run of a given name there.
    """

    def __init__(self, name: str, begin: Callable[[Any, Path, str], Any], run: Path):
        try:
            self._package: Any = import_module(name)
        except ImportError:
            raise ImportError(_lacking(name)) from None
        self._begin, self._run, self._kept = begin, run, run / f"{name}.json"
        self._service: Any = None

    def __call__(self, step: int, scalars: Mapping[str, float], image: Image.Image | None = None) -> None:
        if self._service is None:
            resumed = step > 1 and self._kept.exists()
            new: dict[str, Any] = {"id": uuid4().hex[:8], "step": 0}
            kept = json.loads(self._kept.read_text()) if resumed else new
            self._id, self._told = str(kept["id"]), int(kept["step"])
            with redirect_stdout(sys.stderr):  # standard output is for the command's own words
                self._service = self._begin(self._package, self._run, self._id)
        if step > self._told:
            shown = {} if image is None else {"samples": self._package.Image(image)}
            self._service.log({**scalars, **shown}, step=step)
            write_text(self._kept, json.dumps({"id": self._id, "step": step}))

    def close(self) -> None:
        """Send what is left."""
        if self._service is not None:
            with redirect_stdout(sys.stderr):
                self._package.finish()


def _wandb(package: Any, run: Path, key: str) -> Any:
    """Weights & Biases, project `driftfield`; its own settings (WANDB_MODE=offline, ...) are honoured."""
    name = run.resolve().name
    try:
        return package.init(project="driftfield", name=name, id=key, dir=str(run), resume="allow")
    except package.Error as error:
        raise ConnectionError(f"wandb cannot begin ({error}); log in, or set WANDB_MODE=offline") from error


def _trackio(package: Any, run: Path, key: str) -> Any:
    """Trackio, project `driftfield`; its own settings (TRACKIO_DIR, TRACKIO_SPACE_ID, ...) are honoured."""
    return package.init(project="driftfield", name=f"{run.resolve().name}-{key}", resume="allow")


def _lacking(name: str) -> str:
    return f"logging to {name} needs a package that is not installed; pip install 'driftfield[{name}]'"


TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": partial(Service, "wandb", _wandb),
    "trackio": partial(Service, "trackio", _trackio),
}
