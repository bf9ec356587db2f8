"""Training by several processes: the steps of one, stopped together, and gone on from to the bit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from driftfield import ranks
from driftfield.data.toys import EightGaussians
from driftfield.objective.matching import Matching
from driftfield.optim import Muon
from driftfield.plain import Build
from driftfield.process.poisson import PFGMPP
from driftfield.recipe import Recipe, Sampling
from driftfield.train.checkpoint import read, states
from driftfield.train.fit import Interrupted, fit, follow
from driftfield.train.loop import train
from driftfield.train.session import session

from ..workers import together
from .common import tiny
from .test_loop import Broken

ROOT = Path(__file__).parents[2]
PLAIN = tiny(accumulate=1)
QUICK = Recipe(
    data=EightGaussians(),
    network=Build("driftfield.network.mlp:MLP", {"width": 16, "dropout": 0.1}),
    objective=Matching(PFGMPP(D=128.0)),
    training=replace(PLAIN.training, held_every=24, snapshots=2, show_every=100),
    sampling=Sampling(nfe=3),
)


def quick(**training):
    """QUICK with other training fields."""
    return replace(QUICK, training=replace(QUICK.training, **training))


def steps(recipe, fsdp=False, saved=None, until=None):
    """The tensors, losses and skipped steps of a training; a function of its processes too."""
    source = recipe.data.load()
    losses = []
    for now in train(recipe.resolved(source.info), source, saved, "cpu", fsdp):
        losses.append(float(now.loss))
        if now.step == until:
            break
    return {k: v.clone() for k, v in now.tensors().items()}, losses, now.guard.skipped


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def apart(a, b):
    """How far two models are from each other, as a share of what the first has learned since it was made."""
    with_model = [k for k in a if k.startswith("model/")]
    start = steps(tiny(steps=1, warmup=10**9, accumulate=1))[0]  # one step at a rate of nearly 0
    norm = lambda x, y: sum((x[k].double() - y[k].double()).square().sum() for k in with_model).sqrt()
    return float(norm(a, b) / norm(a, start))


def test_two_processes_take_the_steps_of_one_that_accumulates_twice():
    """The mean of two halved gradients is exact in binary, so even the bits agree; on every process."""
    (a, losses, _), (b, others, _) = together(steps, tiny(steps=4, accumulate=1))
    alone, alone_losses, _ = steps(tiny(steps=4, accumulate=2))
    assert same(a, b)
    assert same(a, alone)
    assert losses == others == pytest.approx(alone_losses, rel=1e-6)


def test_four_pieces_agree_to_rounding():
    """Sums in another order: float32 rounds each to 6e-8, which Adam's division leaves at that for most weights."""
    (a, losses, _), _ = together(steps, tiny(steps=4, accumulate=2))
    alone, alone_losses, _ = steps(tiny(steps=4, accumulate=4))
    assert losses == pytest.approx(alone_losses, rel=1e-5)
    assert apart(alone, a) < 1e-3


def test_split_weights_take_the_same_steps():
    (a, losses, _), (b, _, _) = together(steps, tiny(steps=4, accumulate=1), True)
    alone, alone_losses, _ = steps(tiny(steps=4, accumulate=2))
    assert same(a, b)
    assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in alone.items()}
    assert losses == pytest.approx(alone_losses, rel=1e-5)
    assert apart(alone, a) < 1e-3


@pytest.mark.parametrize("fsdp", [False, True])
def test_two_processes_resume_to_the_bit(fsdp):
    recipe = quick(steps=8, accumulate=2)
    unbroken = together(steps, recipe, fsdp)[0][0]
    saved = together(steps, recipe, fsdp, None, 3)[0][0]
    assert same(together(steps, recipe, fsdp, saved)[0][0], unbroken)


def test_a_state_is_anybodys():
    """Saved by two that split the weights, gone on from by one, by two with whole weights, by three that split them."""
    recipe = quick(steps=5, batch=24, accumulate=1)
    saved = together(steps, recipe, True, None, 4)[0][0]
    alone = steps(recipe, False, saved)[0]
    for fsdp, count in ((False, 2), (True, 3)):
        others = together(steps, recipe, fsdp, saved, count=count)
        assert all(same(others[0][0], other[0]) for other in others)
        assert others[0][0].keys() == alone.keys()
        assert int(others[0][0]["count/step"]) == 5


def test_a_bad_piece_makes_all_skip_or_stop():
    """One process's loss is not finite: none takes the step, and all stop at the same one."""
    objective = replace(QUICK.objective, weight=Broken(3.0))
    recipe = replace(quick(steps=12, accumulate=2, skip=12), objective=objective)
    alone, _, skipped = steps(recipe)
    assert 0 < skipped < 12
    (a, _, of_a), (b, _, of_b) = together(steps, replace(recipe, training=replace(recipe.training, accumulate=1)))
    assert same(a, b)
    assert same(a, alone)
    assert of_a == of_b == skipped
    stopped = together(steps, replace(recipe, training=replace(recipe.training, accumulate=1, skip=0)))
    assert [type(error) for error in stopped] == [FloatingPointError] * 2
    assert str(stopped[0]) == str(stopped[1])


class Idle(torch.nn.Module):
    """A network with a weight that its output does not depend on."""

    def __init__(self, shape, known=False):
        super().__init__()
        self.used, self.idle = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))

    def forward(self, x, noise, cond=None):
        return x * self.used.sum()


def test_what_several_processes_cannot_do_is_one_sentence():
    idle = replace(QUICK, network=Build("tests.train.test_several:Idle"))
    for recipe, fsdp, message in (
        (quick(batch=15, accumulate=3), False, "batch=15 does not divide evenly over 2 processes .* such as 18"),
        (idle, False, "does not depend on 'network.idle'"),
        (quick(optimizer=Muon()), True, "Muon needs the weights whole"),
    ):
        for error in together(steps, recipe, fsdp):
            assert isinstance(error, ValueError)
            assert re.search(message, str(error))
    with pytest.raises(ValueError, match=r"but there is one; start it with torchrun"):
        steps(QUICK, True)


@pytest.mark.parametrize("name", ["ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_FSDP"])
def test_settings_of_accelerate_do_not_change_a_run(name, monkeypatch):
    monkeypatch.setenv(name, "bf16" if "PRECISION" in name else "true")
    with pytest.raises(ValueError, match=rf"{name}=\w+ would go behind the recipe's back; .* use (training|--fsdp)"):
        steps(QUICK)


def in_folder(folder, recipe=QUICK, fsdp=False, slow_from=None):
    """A run in a folder; from `slow_from` on it takes its time and says so, to be disturbed."""
    said = []
    for report in session(recipe, recipe.data.load(), folder, said.append, "cpu", fsdp):
        if slow_from is not None and report.step >= slow_from:
            (folder / "now").touch()
            time.sleep(0.05)
    return report.step, report.losses.held_mean, said


def tensors(folder):
    return {path.name: read(path)[0] for path in folder.glob("*.safetensors")}


def assert_same_files(a, b):
    of_a, of_b = tensors(a), tensors(b)
    assert of_a.keys() == of_b.keys()
    assert all(same(of_a[name], of_b[name]) for name in of_a)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run of two processes that was left alone."""
    folder = tmp_path_factory.mktemp("several")
    (step, held, _), (_, other, _) = together(in_folder, folder)
    assert step == 24
    assert held == other  # judged once, by rank 0
    return folder


def test_a_run_of_two_is_one_run(unbroken):
    assert {"recipe.json", "resolved.json", "log.jsonl", "model.safetensors", "last.safetensors"} <= {
        path.name for path in unbroken.iterdir()
    }
    assert not list(unbroken.glob(".*"))
    lines = [json.loads(line)["step"] for line in (unbroken / "log.jsonl").read_text().splitlines()]
    assert lines == sorted(set(lines))


@pytest.mark.parametrize("which", [0, 1])
def test_a_killed_process_ends_the_run_which_resumes_to_the_bit(unbroken, tmp_path, which):
    found = together(in_folder, tmp_path, QUICK, False, 11, kill=which)
    assert found[which] is None
    assert isinstance(found[1 - which], ConnectionError)
    assert f"rank {which} (process" in str(found[1 - which])
    assert states(tmp_path)[0].name == "state-00000008.safetensors" or states(tmp_path)[0].name > "state-00000008"
    assert states(tmp_path)[0].name < "state-00000024"
    assert [step for step, _, _ in together(in_folder, tmp_path)] == [24, 24]
    assert_same_files(tmp_path, unbroken)


def test_another_number_of_processes_goes_on_with_a_warning(unbroken, tmp_path):
    together(in_folder, tmp_path, QUICK, False, 11, kill=1)
    step, _, said = in_folder(tmp_path)
    assert step == 24
    assert len(said) == 1
    assert said[0].startswith("2 processes began this run and 1 go on with it")


def test_processes_that_do_not_see_the_same_run_are_refused(unbroken, tmp_path):
    for error in together(_elsewhere, unbroken, tmp_path):
        assert isinstance(error, ValueError)
        assert "do not see the same data and the same run" in str(error)


def _elsewhere(here, there):
    return in_folder(here if ranks.rank() == 0 else there)


def watched(folder, act):
    """A run that is watched by `act`, and how it ended."""
    seen = []

    def watch(report):
        seen.append(report.step)
        if report.step == 6:
            act()

    try:
        follow(QUICK, QUICK.data.load(), folder, watch, print, "cpu")
    except Interrupted as error:
        return str(error), seen
    return "", seen


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)


def test_a_signal_to_one_stops_all_at_the_same_step(unbroken, tmp_path):
    (text, seen), (other, none) = together(watched, tmp_path, terminate)
    assert text == other == "stopped at step 6 of 24; the same command goes on from here"
    assert (seen, none) == ([1, 2, 3, 4, 5, 6], [])  # rank 0 alone watches
    assert states(tmp_path)[0].name == "state-00000006.safetensors"
    together(in_folder, tmp_path)
    assert_same_files(tmp_path, unbroken)


def break_off():
    raise BrokenPipeError("nobody listens")


def test_an_error_of_one_does_not_leave_the_others_waiting(tmp_path):
    ours, theirs = together(watched, tmp_path, break_off)
    assert isinstance(ours, BrokenPipeError)
    assert isinstance(theirs, ConnectionError)


def fitted(x):
    """`fit` in a script that was started twice: minutes become steps, the same on both."""
    settings = ["network.width=16", "training.batch=16"]
    run = fit(x, minutes=0.02, network=Build("driftfield.network.mlp:MLP", {"width": 16}), settings=settings)
    return run.recipe.training.steps, str(run.folder), run.sample(3, nfe=3)


def test_minutes_become_the_same_steps_on_all():
    x = torch.randn(100, 2, generator=torch.Generator().manual_seed(1))
    (steps_a, folder_a, drawn_a), (steps_b, folder_b, drawn_b) = together(fitted, x)
    assert steps_a == steps_b > 3
    assert folder_a == folder_b
    assert (drawn_a == drawn_b).all()


@pytest.mark.slow
def test_torchrun_ends_a_job_with_one_clear_sentence_and_the_same_command_resumes(tmp_path):
    """By the launcher itself: a process killed with SIGKILL, the sentence, then the same again to the bit."""
    name = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "driftfield", "--"]
    settings = ["network.width=8", "network.attention=()", "training.batch=16", "training.save_every=8"]
    options = [word for setting in settings for word in ("--set", setting)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def command(folder):
        train = ["train", "digits", "--run", str(folder), "--steps", "100", "--cpu", "--json", *options]
        return [sys.executable, "-m", *name, *train]

    with subprocess.Popen(command(tmp_path / "a"), stdout=-1, stderr=-1, text=True, env=env, cwd=ROOT) as job:
        for line in job.stdout:
            if json.loads(line)["step"] == 11:
                break
        children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        os.kill(max(map(int, children)), signal.SIGKILL)
        error = job.communicate(timeout=100)[1]
    assert job.returncode != 0
    sentences = [line for line in error.splitlines() if line.startswith("Error: ")]
    assert len(sentences) == 1
    assert "has ended or does not answer" in sentences[0]
    for folder in (tmp_path / "a", tmp_path / "b"):
        done = subprocess.run(command(folder), capture_output=True, text=True, env=env, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["step"] == 100
    assert_same_files(tmp_path / "a", tmp_path / "b")
