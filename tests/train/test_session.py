"""Runs in a folder: resumed, refused, repaired and never half-written."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import driftfield as df
from driftfield.data.stored import stored
from driftfield.process.symbols import Power
from driftfield.report.score import opened
from driftfield.train import checkpoint
from driftfield.train.checkpoint import read, save, states
from driftfield.train.fit import Interrupted, follow
from driftfield.train.held import judged
from driftfield.train.load import pretrained, store
from driftfield.train.log import Window
from driftfield.train.session import session

from .common import TINY, tiny
from .test_loop import Broken


def go(recipe, folder, until=None, warn=pytest.fail):
    source = recipe.data.load()
    steps = session(recipe, source, folder, warn, "cpu")
    for report in steps:
        if report.step == until:
            steps.close()
            break
    return report


def weights(folder, name="last.safetensors"):
    return read(folder / name)[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def kept(folder):
    """The files at the end of TINY: weights, the last state and every snapshot of the averages."""
    snapshots = sorted(path.relative_to(folder).as_posix() for path in folder.glob("ema/*"))
    return ["last.safetensors", "model.safetensors", "state-00000024.safetensors", *snapshots]


def logged(folder):
    """The lines of the log, without the speed."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "samples_per_second"} for line in lines]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    go(TINY, folder)
    return folder


def test_a_run_holds_what_it_should(unbroken):
    assert {p.name for p in unbroken.iterdir()} == {
        "recipe.json",
        "resolved.json",
        "log.jsonl",
        "model.safetensors",
        "last.safetensors",
        "samples",
        "ema",
        "state-00000016.safetensors",
        "state-00000024.safetensors",
    }
    lines = [json.loads(line) for line in (unbroken / "log.jsonl").read_text().splitlines()]
    judged = [line for line in lines if "by_level" in line]
    assert [line["step"] for line in judged] == [8, 16, 24]
    assert all(line["gradient_norm"] > 0 for line in lines)
    assert len(kept(unbroken)) == 3 + TINY.training.snapshots
    assert all(len(line["by_level"]["held"]) == len(line["by_level"]["levels"]) == 8 for line in judged)
    best = min(judged, key=lambda line: line["by_level"]["held_mean"])
    assert read(unbroken / "model.safetensors")[1]["step"] == best["step"]
    assert (unbroken / "samples" / "00000024.png").stat().st_size > 500


@pytest.mark.parametrize("stop", [5, 8, 13])
def test_closing_keeps_the_step_and_the_same_recipe_goes_on(unbroken, tmp_path, stop):
    go(TINY, tmp_path, until=stop)
    assert states(tmp_path)[0].name == f"state-{stop:08d}.safetensors"
    go(TINY, tmp_path)
    assert kept(tmp_path) == kept(unbroken)
    for name in kept(unbroken):
        assert same(weights(tmp_path, name), weights(unbroken, name))
    assert logged(tmp_path) == logged(unbroken)


COMMAND = """
import sys
from pathlib import Path
from driftfield.train.session import session
from tests.train.common import TINY
for report in session(TINY, TINY.data.load(), Path(sys.argv[1]), print, "cpu"):
    print(report.step, flush=True)
"""


def test_a_killed_run_resumes_to_the_bit(unbroken, tmp_path):
    """SIGKILL in mid-run, at no convenient moment, then the same again: equal to a run that was left alone."""
    start = [sys.executable, "-c", COMMAND, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(start, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "11":
                break
        process.send_signal(signal.SIGKILL)
    assert states(tmp_path)
    assert states(tmp_path)[0].name != "state-00000024.safetensors"
    subprocess.run(start, check=True, cwd=root, capture_output=True)
    assert kept(tmp_path) == kept(unbroken)
    for name in kept(unbroken):
        assert same(weights(tmp_path, name), weights(unbroken, name))
    assert logged(tmp_path) == logged(unbroken)


def test_a_finished_run_is_left_as_it_is(unbroken):
    before = (unbroken / "last.safetensors").read_bytes()
    source = TINY.data.load()
    assert list(session(TINY, source, unbroken, pytest.fail, "cpu")) == []
    assert (unbroken / "last.safetensors").read_bytes() == before


def test_another_recipe_is_refused_and_the_fields_named(unbroken):
    other = tiny(batch=32).with_fields(["objective.process.D=64"])
    with pytest.raises(ValueError, match=r"objective\.process\.D \(128\.0 there, 64\.0 asked\); training\.batch \(16"):
        go(other, unbroken)


def test_a_truncated_state_falls_back_to_the_one_before(unbroken, tmp_path):
    go(TINY, tmp_path, until=16)
    whole = (tmp_path / "state-00000016.safetensors").read_bytes()
    (tmp_path / "state-00000016.safetensors").write_bytes(whole[: len(whole) // 2])
    said: list[str] = []
    go(TINY, tmp_path, warn=said.append)
    assert len(said) == 1
    assert "state-00000016.safetensors is damaged" in said[0]
    assert "going back to the one before" in said[0]
    assert same(weights(tmp_path), weights(unbroken))


def test_nothing_begins_again_unasked(tmp_path):
    go(TINY, tmp_path, until=16)
    for state in states(tmp_path):
        state.write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"no saved state in .* is whole"):
        go(TINY, tmp_path, warn=lambda text: None)


def test_weights_that_are_not_finite_are_never_kept(tmp_path):
    objective = replace(TINY.objective, weight=Broken(0.0), augment=None)
    with pytest.raises(FloatingPointError, match="step 1"):
        go(replace(tiny(held_every=1, save_every=1), objective=objective), tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_held_out_samples_come_from_every_class():
    """Items sorted by class, as folders are: the 512 that are judged must not be the first ones."""
    source = stored(np.random.default_rng(0).normal(size=(8000, 2)).astype(np.float32), np.arange(8000) // 2000)
    for _, label in judged(source, 0):
        counts = torch.bincount(label, minlength=4)
        assert counts.min() > 128 - 5 * (512 * 0.25 * 0.75) ** 0.5  # binomial, five deviations


def test_a_torn_log_and_old_parts_do_not_matter(unbroken, tmp_path):
    go(TINY, tmp_path, until=8)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 9, "loss": {}')
    (tmp_path / ".state-00000016.safetensors.1.part").write_bytes(b"half")
    go(TINY, tmp_path)
    assert not list(tmp_path.glob(".*.part"))
    assert all(json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert same(weights(tmp_path), weights(unbroken))


def test_fit_applies_settings_of_the_data_and_refuses_what_is_not_here():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    run = df.fit(x, steps=2, settings=["data.held=0.5", "training.batch=8"], progress=False)
    assert run.info.count == 25
    run = df.fit(x, steps=2, settings=["training.optimizer=Muon", "training.batch=8"], progress=False)
    assert type(run.recipe.training.optimizer).__name__ == "Muon"
    with pytest.raises(ValueError, match=r"cuda|xpu"):
        df.fit(x, steps=2, device="xpu" if torch.cuda.is_available() else "cuda", progress=False)


def test_a_full_disk_is_one_sentence_and_leaves_the_last_state_whole(unbroken, tmp_path, monkeypatch):
    go(TINY, tmp_path, until=8)
    before = {p.name: p.stat().st_size for p in tmp_path.glob("*.safetensors")}

    def full(tensors, part, notes):
        Path(part).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match=r"cannot write .*: .*No space left on device.*free some space"):
        go(TINY, tmp_path)
    monkeypatch.undo()
    assert {p.name: p.stat().st_size for p in tmp_path.glob("*.safetensors")} == before
    assert not list(tmp_path.glob(".*.part"))
    go(TINY, tmp_path)
    assert same(weights(tmp_path), weights(unbroken))


def test_data_are_changed_by_more_than_the_last_digits_of_their_sums(unbroken, tmp_path):
    """The deviation of the digits differs at 1e-12 between one thread and two: a run goes on with either."""
    source = TINY.data.load()
    go(TINY, tmp_path, until=8)
    source.info = replace(source.info, std=source.info.std * (1 + 1e-12))
    list(session(TINY, source, tmp_path, pytest.fail, "cpu"))
    assert same(weights(tmp_path), weights(unbroken))
    _, _, recipe = df.load(tmp_path)
    assert opened(replace(recipe, info=source.info), tmp_path).info == recipe.info
    source.info = replace(source.info, std=source.info.std * (1 + 1e-6))
    with pytest.raises(ValueError, match="have changed since the run began"):
        list(session(TINY, source, tmp_path, pytest.fail, "cpu"))
    with pytest.raises(ValueError, match="not the data that"):
        opened(replace(recipe, info=source.info), tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "recipe.json",
        "resolved.json",
        "proposal.json",
        "log.jsonl",
        "model.safetensors",
        "last.safetensors",
        "state-00000007.safetensors",
        "ema/00000007.safetensors",
        "samples/00000024.png",
    ],
)
def test_a_file_of_something_else_is_not_written_over(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('{"name": "cake"}')
    (tmp_path / "notes.txt").write_text("may lie here")
    with pytest.raises(FileExistsError, match=rf"{name} is there, but not from a run that can go on here"):
        go(TINY, tmp_path)
    assert (tmp_path / name).read_text() == '{"name": "cake"}'
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 2


def test_a_run_that_ended_before_its_first_state_begins_again(unbroken, tmp_path):
    for name in ("recipe.json", "resolved.json"):
        (tmp_path / name).write_bytes((unbroken / name).read_bytes())
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n')
    go(TINY, tmp_path)
    assert same(weights(tmp_path), weights(unbroken))
    assert logged(tmp_path) == logged(unbroken)


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(NotADirectoryError, match="run is a file; a run goes into a folder of its own"):
        go(TINY, tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def test_files_may_be_read_by_whom_the_system_lets(unbroken, tmp_path):
    """Weights as much as text: what a new file gets under this user's mask."""
    (tmp_path / "plain").write_text("")
    expected = (tmp_path / "plain").stat().st_mode
    assert {path.stat().st_mode for path in unbroken.rglob("*") if path.is_file()} == {expected}


def test_the_log_goes_on_within_its_window_past_skipped_steps():
    """A mean of what was seen on both sides of an interruption: 1, 2 | 6, then a line without a step, then 4."""
    window = Window()
    assert math.isnan(Window.of({}).mean)
    for loss in (1.0, 2.0):
        window.add(torch.tensor(loss))
    window = Window.of(window.tensors())
    window.add(torch.tensor(6.0))
    window.close()
    assert window.mean == 3
    window = Window.of(window.tensors())
    window.close()
    assert window.mean == 3
    window.add(torch.tensor(4.0))
    window.close()
    assert window.mean == 4


def test_changed_data_are_refused(tmp_path):
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    options = {"steps": 4, "folder": tmp_path, "settings": ["training.batch=8"], "progress": False}
    df.fit(x, **options)
    with pytest.raises(ValueError, match=r"data\.digest"):
        df.fit(2 * x, **options)


def test_starting_from_another_run(unbroken, tmp_path):
    tuned = replace(tiny(steps=1, warmup=1000), init=str(unbroken))
    go(tuned, tmp_path)
    begun, ended = weights(unbroken, "model.safetensors"), weights(tmp_path)
    assert max((begun[k] - ended[k]).abs().max().item() for k in begun) < 1e-4  # one step at a thousandth of the rate
    other = replace(tuned, network=replace(TINY.network, options={"width": 16, "multipliers": (1, 2)}))
    with pytest.raises(ValueError, match=r"do not fit|another network"):
        go(other, tmp_path / "other")


def test_ctrl_c_waits_for_the_step_and_saves(tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
    source = TINY.data.load()

    def watch(report):
        if report.step == 6:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)

    with pytest.raises(Interrupted, match="stopped at step 6 of 24; the same command goes on"):
        follow(TINY, source, tmp_path, watch, pytest.fail)
    assert states(tmp_path)[0].name == "state-00000006.safetensors"
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def test_load_gives_the_trained_denoiser(unbroken):
    process, denoiser, recipe = df.load(unbroken)
    assert process == TINY.objective.process
    assert recipe.info.classes == tuple("0123456789")
    assert recipe.sigma_data == recipe.info.std
    assert not denoiser.training
    own = dict(denoiser.state_dict())
    assert same(own, weights(unbroken, "model.safetensors"))
    assert df.load(unbroken / "last.safetensors")[2] == recipe


def test_the_pretrained_model_is_small_and_knows_its_data():
    """Trousers are upright: on a black ground, bright in the middle."""
    assert pretrained()["fashion"].stat().st_size < 4 * 2**20
    process, denoiser, recipe = df.load("pretrained:fashion")
    assert (process, recipe.info.shape) == (df.PFGMPP(D=128.0), (1, 28, 28))
    x = recipe.sample(denoiser, 8, nfe=9, cond=torch.full((8,), recipe.info.classes.index("Trouser")), seed=0)
    assert x[..., :5].mean() < -0.9
    assert x[..., 10:18].mean() > x[..., :5].mean() + 0.5


def test_without_pretrained_models_none_is_offered(monkeypatch):
    monkeypatch.setattr("driftfield.train.load.pretrained", dict)
    with pytest.raises(ValueError, match="no pretrained models came with this installation, so there is no pretrained"):
        df.load("pretrained:fashion")


def test_load_refuses_what_is_not_ours(unbroken, tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        df.load(tmp_path)
    (tmp_path / "bad.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match="damaged or not a weights file"):
        df.load(tmp_path / "bad.safetensors")
    save(tmp_path / "plain.safetensors", {"a": torch.zeros(2)}, {})
    with pytest.raises(ValueError, match="holds no recipe"):
        df.load(tmp_path / "plain.safetensors")
    tensors, notes = read(unbroken / "model.safetensors")
    notes["recipe"]["network"]["target"] = "os:system"
    save(tmp_path / "evil.safetensors", tensors, notes)
    with pytest.raises(ValueError, match="outside the trusted modules"):
        df.load(tmp_path / "evil.safetensors")
    store(tmp_path / "fine.safetensors", df.load(unbroken)[1], df.load(unbroken)[2])
    df.load(tmp_path / "fine.safetensors")


SUM = df.Subordinated(Power(1.0) + 0.3 * Power(0.5))


@pytest.mark.parametrize(
    "process",
    [
        df.EDM(),
        df.VP(),
        df.Rectified(),
        df.PFGMPP(D=float("inf")),
        df.PFGM(),
        df.Fractional(1 / 3),
        df.Yukawa(),
        df.Helmholtz(),
        SUM,
    ],
    ids=lambda process: type(process).__name__,
)
def test_fit_in_one_call(process):
    """Vectors in the user's own units, one class in two places: samples come back near them."""
    g = torch.Generator().manual_seed(1)
    labels = torch.arange(400) % 2
    x = 100 + 20 * (2 * labels[:, None] - 1) + torch.randn(400, 2, generator=g)
    run = df.fit(x, process=process, labels=labels, steps=300, seed=3, progress=False, settings=["training.batch=128"])
    assert run.recipe.training.steps == 300
    drawn = run.sample(64, cond=torch.arange(64) % 2)
    assert drawn.shape == (64, 2)
    right = abs(drawn[:, 0] - (80 + 40 * (torch.arange(64) % 2).numpy())) < 10
    assert right.mean() > 0.9


def test_a_process_stays_beside_an_objective_among_the_settings():
    x, process = torch.randn(100, 2, generator=torch.Generator().manual_seed(1)), df.PFGMPP(D=64.0)
    settings = ["objective=StableTarget(reference=64)", "training.batch=32", "network.width=16", "network.depth=1"]
    run = df.fit(x, process=process, steps=2, progress=False, settings=settings)
    assert run.process == run.recipe.objective.process == process
    assert isinstance(run.recipe.objective, df.StableTarget)
    run = df.fit(x, process=process, steps=2, progress=False, settings=[*settings, "objective.process.D=32"])
    assert run.process.D == 32
    one = df.PFGM(span=(0.01, 30.0))  # this objective has a process of its own, which would be taken in its place
    settings[0] = "objective=PoissonField(reference=64)"
    assert df.fit(x, process=one, steps=2, progress=False, settings=settings).process == one


def test_minutes_become_steps(tmp_path):
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(1))
    begun = time.perf_counter()
    run = df.fit(x, minutes=0.05, folder=tmp_path, progress=False, settings=["network.width=16", "network.depth=1"])
    assert run.recipe.training.steps > 10
    assert time.perf_counter() - begun < 60  # three seconds asked; a loaded machine may take far longer
    again = df.fit(x, minutes=0.05, folder=tmp_path, progress=False, settings=["network.width=16", "network.depth=1"])
    assert again.recipe.training.steps == run.recipe.training.steps
