"""Trackers: what they are told, read back from their own files, and once only whatever happens to the run."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from driftfield.train.checkpoint import read
from driftfield.train.session import session
from driftfield.train.track import TRACKERS, Service, TensorBoard, scalars, tracking

from .common import tiny

RECIPE = tiny(steps=12, held_every=4, save_every=4, show_every=6, accumulate=1, snapshots=2)


def events(folder: Path):
    """The scalars `{tag: [(step, value)]}` and the images `{tag: [(step, width, height)]}` that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    read.Reload()
    tags = read.Tags()
    values = {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in tags["scalars"]}
    return values, {tag: [(e.step, e.width, e.height) for e in read.Images(tag)] for tag in tags["images"]}


def go(folder: Path, names=("tensorboard",), until=None):
    source = RECIPE.data.load()
    with tracking(names, folder) as track:
        steps = session(RECIPE, source, folder, pytest.fail, "cpu", track=track)
        for report in steps:
            if report.step == until:
                steps.close()


def test_a_line_of_the_log_as_numbers():
    losses = {"levels": [0.012, 1.5], "held": [1.0, 2.0], "train": [3.0, 4.0], "held_mean": 1.5, "train_mean": 3.5}
    line = {"step": 7, "loss": 0.5, "lr": 1e-3, "skipped": 0, "gradient_norm": float("inf"), "by_level": losses}
    assert scalars(line) == {
        "loss/train": 0.5,
        "loss/held_out": 1.5,
        "loss/seen": 3.5,
        "held_out/0.012": 1.0,
        "held_out/1.5": 2.0,
        "seen/0.012": 3.0,
        "seen/1.5": 4.0,
        "progress/lr": 1e-3,
        "progress/skipped": 0.0,
    }


def test_tensorboard_shows_what_the_log_says_once_and_the_run_is_the_same(tmp_path):
    """Stopped between two saved states, gone on with, and compared with the log and with a run nobody watched."""
    go(tmp_path / "run", until=7)
    go(tmp_path / "run")
    go(tmp_path / "alone", names=())
    values, images = events(tmp_path / "run" / "tensorboard")
    said: dict[str, list[tuple[int, float]]] = {}
    for line in map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines()):
        for tag, value in scalars(line).items():
            said.setdefault(tag, []).append((line["step"], pytest.approx(value, rel=1e-6)))
    assert values == said
    assert {"progress/lr", "progress/gradient_norm", "progress/samples_per_second", "loss/train"} <= said.keys()
    assert sum(tag.startswith("held_out/") for tag in values) == 8
    shown = sorted(int(path.stem) for path in (tmp_path / "run" / "samples").glob("*.png"))
    assert [step for step, _, _ in images["samples"]] == shown == [6, 12]
    with Image.open(tmp_path / "run" / "samples" / "00000012.png") as image:
        assert images["samples"][-1][1:] == image.size
    watched, alone = (read(tmp_path / name / "last.safetensors")[0] for name in ("run", "alone"))
    assert all(torch.equal(watched[k], alone[k]) for k in alone)
    assert not (tmp_path / "alone" / "tensorboard").exists()


def test_tensorboard_after_a_kill(tmp_path):
    """A writer that is never closed, its file torn in mid-record; then the run goes on from an earlier step."""
    first = TensorBoard(tmp_path)
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8))
    for step in range(1, 11):  # a picture keeps the writing thread busy for a while
        first(step, {"loss/train": step / 10}, large if step == 10 else None)
    assert events(tmp_path / "tensorboard")[1]["samples"] == [(10, 400, 400)]
    assert len(events(tmp_path / "tensorboard")[0]["loss/train"]) == 10  # each is on disk as soon as it is told
    (torn,) = (tmp_path / "tensorboard").iterdir()
    torn.write_bytes(torn.read_bytes()[:-5])
    second = TensorBoard(tmp_path)
    for step in range(7, 13):
        second(step, {"loss/train": step / 10})
    second.close()
    values, _ = events(tmp_path / "tensorboard")
    assert values["loss/train"] == [(step, pytest.approx(step / 10)) for step in range(1, 13)]
    first.close()


LINES: list[tuple] = []  # what this module, as a service, was told


def log(values, step):
    LINES.append((step, values))


def finish():
    LINES.append(("end", None))


def begin(package, run, key):
    LINES.append(("begin", key))
    return package


def test_a_service_is_told_nothing_twice(tmp_path):
    """Ten steps, then on from the seventh, then a new run in the same folder: a new name, and every step once each."""
    LINES.clear()
    for steps in (range(1, 11), range(7, 13), range(1, 4)):
        service = Service(__name__, begin, tmp_path)
        for step in steps:
            service(step, {"loss/train": step})
            service(step, {}) if step % 5 == 0 else None
        service.close()
    names = [what for step, what in LINES if step == "begin"]
    assert names[0] == names[1] != names[2]
    told = [step for step, _ in LINES if step not in ("begin", "end")]
    assert told == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 10, 11, 12, 1, 2, 3]
    assert LINES[-1] == ("end", None)


def test_names_that_are_not_trackers_and_packages_that_are_not_there(tmp_path, monkeypatch):
    with (
        pytest.raises(ValueError, match=r"unknown tracker 'tensorbord'; did you mean 'tensorboard'\?"),
        tracking(["tensorbord"], tmp_path),
    ):
        pass
    for package, name in (("torch.utils.tensorboard", "tensorboard"), ("wandb", "wandb"), ("trackio", "trackio")):
        monkeypatch.setitem(sys.modules, package, None)
        with (
            pytest.raises(ImportError, match=rf"pip install 'driftfield\[{name}\]'"),
            tracking([name], tmp_path),
        ):
            pass
    assert not list(tmp_path.iterdir())
    assert set(TRACKERS) == {"tensorboard", "wandb", "trackio"}


def test_trackers_are_closed_when_a_run_fails(tmp_path, monkeypatch):
    def failing():
        with tracking(["diary"], tmp_path) as track:
            track(1, {"a": 1.0}, None)
            raise RuntimeError("stop")

    LINES.clear()
    monkeypatch.setitem(TRACKERS, "diary", partial(Service, __name__, begin))
    with pytest.raises(RuntimeError, match="stop"):
        failing()
    assert [step for step, _ in LINES] == ["begin", 1, "end"]


OFFLINE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from driftfield.train.track import tracking
run = Path(sys.argv[1])
for steps in (range(1, 6), range(4, 8)):
    with tracking([sys.argv[2]], run) as track:
        for step in steps:
            track(step, {"loss/train": step / 10, "progress/lr": 1.0}, None)
        track(steps[-1], {}, Image.fromarray(np.full((8, 8), 99, np.uint8)))
"""


def _offline(name: str, tmp_path: Path) -> str:
    """The real package, in a program of its own, with no network: told twice of two steps."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    env = {**os.environ, "WANDB_MODE": "offline", "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    (tmp_path / "run").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(tmp_path / "run"), name], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return str(json.loads((tmp_path / "run" / f"{name}.json").read_text())["id"])


def _records(data: bytes):
    """The records of a LevelDB log, which wandb's offline files are after 7 bytes: pieces of (check, length, kind)."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # all of a record, or its last piece
            yield whole
            whole = b""


@pytest.mark.slow
def test_wandb_itself(tmp_path):
    key = _offline("wandb", tmp_path)
    files = sorted((tmp_path / "run" / "wandb").glob(f"offline-run-*-{key}/run-{key}.wandb"))
    from wandb.proto import wandb_internal_pb2

    steps: list[int] = []
    images = 0
    for file in files:
        for data in _records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("history"):
                items = {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                images += any(name.startswith("samples") for name in items)
                if "loss/train" in items:
                    steps.append(items["_step"])
                    assert items["loss/train"] == pytest.approx(items["_step"] / 10)
    assert sorted(steps) == list(range(1, 8))
    assert images == 2


@pytest.mark.slow
def test_trackio_itself(tmp_path):
    key = _offline("trackio", tmp_path)
    which = ["--project", "driftfield", "--run", f"run-{key}", "--metric", "loss/train"]
    found = subprocess.run(
        [sys.executable, "-m", "trackio.cli", "get", "metric", *which, "--json"],
        env={**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    values = json.loads(found.stdout)["values"]
    assert [v["step"] for v in values] == list(range(1, 8))
    np.testing.assert_allclose([v["value"] for v in values], np.arange(1, 8) / 10)
