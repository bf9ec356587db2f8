"""The command line as a user meets it: the main job, wrong arguments, and one sentence for every mistake."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import driftfield as df
from driftfield import pde
from driftfield.plain import to_plain
from driftfield.process.symbols import Power

TINY = ["--set", "network.width=8", "--set", "network.attention=()", "--set", "training.batch=16"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def cli(*arguments, cwd=None, check=True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "driftfield", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=ENV)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def error(*arguments, status=1, cwd=None) -> str:
    """The one sentence a mistake earns."""
    done = cli(*arguments, cwd=cwd, check=False)
    assert done.returncode == status, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@contextmanager
def started(*arguments):
    """A command that listens to Ctrl-C even where the tests themselves do not, and never outlives its test."""
    command = [sys.executable, "-m", "driftfield", *map(str, arguments)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV)
    signal.signal(signal.SIGINT, before)
    with process:
        try:
            yield process
        finally:
            process.kill()


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "digits"
    cli("train", "digits", "--run", folder, "--steps", 6, *TINY)
    return folder


def test_the_main_job(run):
    drawn = json.loads(cli("sample", run, "-n", 5, "--cond", "3,7", "--nfe", 9, "--json").stdout)
    out = Path(drawn["out"])
    assert drawn["nfe"] == 9
    assert sorted(p.name for p in out.iterdir()) == [f"{i:05d}.png" for i in range(5)] + ["grid.png", "record.json"]
    assert pixels(out / "00000.png").shape == (8, 8)
    assert json.loads((out / "record.json").read_text())["cond"] == "3,7"
    scores = json.loads(cli("evaluate", run, "-n", 20, "--nfe", 5, "--features", "digits", "--json").stdout)
    assert scores["features"] == "digits"
    assert scores["n"] == 20
    assert scores["split"] == "held-out"
    assert scores["nfe"] == 5
    assert scores["nearest"] > 0


def test_one_seed_is_one_sample(run, tmp_path):
    for name, batch in (("a", 1), ("b", 4)):
        cli("sample", run, "-n", 4, "--nfe", 3, "--seed", 5, "--out", tmp_path / name, "--batch", batch, "--json")
    for i in range(4):
        a, b = (pixels(tmp_path / name / f"{i:05d}.png") for name in "ab")
        assert abs(a - b).max() <= 1


def test_starting_from_an_image(run, tmp_path):
    """SDEdit: at a small level the picture hardly changes; without a level the command says what is missing."""
    image = np.zeros((8, 8), np.uint8)
    image[2:6, 3:5] = 255
    Image.fromarray(image).save(tmp_path / "start.png")
    cli(
        "sample",
        run,
        "-n",
        2,
        "--start",
        tmp_path / "start.png",
        "--level",
        "0.01",
        "--out",
        tmp_path / "near",
        "--json",
    )
    back = pixels(tmp_path / "near" / "00000.png")
    assert abs(back - image).mean() < 15
    assert "--level" in error("sample", run, "--start", tmp_path / "start.png", "--out", tmp_path / "no")
    assert "no file" in error("sample", run, "--start", tmp_path / "none.png", "--level", 1, "--out", tmp_path / "no")
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "wrong.png")
    assert "8x9 but the model draws 8x8" in error(
        "sample", run, "--start", tmp_path / "wrong.png", "--level", 1, "--out", tmp_path / "no"
    )
    assert not (tmp_path / "no").exists()


def test_points_become_tables_and_pictures(tmp_path):
    cli("train", "rings", "--steps", 3, "--run", tmp_path / "rings", "--json", "--set", "network.width=16")
    drawn = json.loads(cli("sample", tmp_path / "rings", "-n", 7, "--nfe", 5, "--json").stdout)
    out = Path(drawn["out"])
    assert np.load(out / "samples.npz")["x"].shape == (7, 2)
    assert (out / "samples.csv").read_text().splitlines()[0] == "x0,x1"
    assert (out / "grid.png").exists()


@pytest.mark.parametrize("kind", ["folder", "npy", "npz"])
def test_data_of_ones_own(tmp_path, kind):
    rng = np.random.default_rng(0)
    if kind == "folder":
        for c in "ab":
            (tmp_path / "data" / c).mkdir(parents=True)
            for i in range(6):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
                    tmp_path / "data" / c / f"{i}.png"
                )
        path = tmp_path / "data"
    elif kind == "npy":
        path = tmp_path / "x.npy"
        np.save(path, 5 + 3 * rng.normal(size=(40, 3)).astype(np.float32))
    else:
        path = tmp_path / "x.npz"
        np.savez(path, x=rng.integers(0, 256, (20, 8, 8), dtype=np.uint8), labels=np.arange(20) % 2)
    options = TINY if kind != "npy" else ["--set", "training.batch=16"]
    cli("train", "--data", path, "--steps", 2, "--run", tmp_path / "run", *options)
    drawn = json.loads(cli("sample", tmp_path / "run", "-n", 3, "--nfe", 3, "--json").stdout)
    files = {p.name for p in Path(drawn["out"]).iterdir()}
    assert "samples.csv" in files if kind == "npy" else "00002.png" in files
    if kind != "npy":
        assert len(json.loads((tmp_path / "run" / "resolved.json").read_text())["info"]["classes"]) == 2


def test_from_a_run(run, tmp_path):
    cli("train", "--from", run, "--steps", 2, "--run", tmp_path / "tuned", "--set", "objective.process.D=64")
    resolved = json.loads((tmp_path / "tuned" / "resolved.json").read_text())
    assert resolved["objective"]["process"]["D"] == 64
    assert resolved["init"].endswith("model.safetensors")


def test_dry_prints_the_recipe_and_writes_nothing(tmp_path):
    text = cli("train", "digits", "--process", "PFGMPP(D=2048)", "--dry", cwd=tmp_path).stdout
    assert json.loads(text)["objective"]["process"] == {
        "is": "driftfield.process.poisson:PFGMPP",
        "D": 2048.0,
        "span": [0.002, 80.0],
    }
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine.json").write_text(text)
    assert cli("train", "mine.json", "--dry", cwd=tmp_path).stdout == text
    text = cli("train", "digits", "--process", "PFGMPP(D=64)", "--set", "objective=StableTarget", "--dry").stdout
    assert json.loads(text)["objective"]["process"]["D"] == 64
    text = cli("train", "digits", "--process", "PFGM(clip=9)", "--set", "objective=PoissonField", "--dry").stdout
    assert json.loads(text)["objective"]["process"]["clip"] == 9


@pytest.mark.parametrize(
    ("process", "expected"),
    [
        ("Fractional(1/3)", df.Fractional(1 / 3)),
        ("third-order", df.Fractional(1 / 3)),
        ("poisson", df.PFGM()),
        ("yukawa(mass=2)", df.Yukawa(2.0)),
        ("Subordinated(Power(1.0) + 0.3*Power(0.5))", df.Subordinated(Power(1.0) + 0.3 * Power(0.5))),
        ("custom(symbol=log(1 + k**2))", pde.Custom(symbol="log(1 + k**2)").process()),
    ],
)
def test_a_process_may_be_an_equation_or_a_sum(process, expected):
    text = cli("train", "digits", "--process", process, "--dry").stdout
    found = json.loads(text)["objective"]["process"]
    known = to_plain(expected)
    same = [k for k in known if k not in ("span", "levels")]  # those are proposed
    assert {k: found[k] for k in same} == {k: known[k] for k in same}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--process", "ideal-wave"], "the ideal-wave equation cannot be trained: no mode fades"),
        (["--process", "Biharmonic"], "the biharmonic equation cannot be trained: .* negative values"),
        (["--process", "yukawa(mass=-1)"], "mass of yukawa must be a finite number above 0"),
        (["--process", "custom(symbol=1-exp(-k**2)+k)"], "could not be inverted"),
        (["--process", "Fractional(1/3) + EDM"], "adds what does not add up"),
        (["--objective", "PoissonField", "--process", "third-order"], "PoissonField does not train Fractional"),
    ],
)
def test_what_is_no_process_is_refused(options, message):
    done = cli("train", "digits", *options, "--dry", check=False)
    assert done.returncode == 1
    assert re.fullmatch(f"Error: .*{message}.*\n", done.stderr)


def test_lists_and_doctor():
    assert {"digits", "images", "array", "swiss-roll"} <= {
        r["name"] for r in json.loads(cli("recipes", "--json").stdout)
    }
    assert "one datum recovered" in cli("doctor").stdout
    assert "torch" in json.loads(cli("doctor", "--json").stdout)
    for verb in ("train", "sample", "evaluate", "recipes", "doctor"):
        assert "Usage" in cli(verb, "--help").stdout


def test_help_is_quick():
    """Under half a second of processor time: the bound of the promise, on the process's own clock."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    cli("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "digts"], "did you mean 'digits'"),
        (["train"], "nothing to train on"),
        (["train", "digits", "--process", "EMD"], "did you mean 'EDM'"),
        (["train", "digits", "--process", "PFGMPP(D=0)"], "D must be"),
        (
            ["train", "digits", "--set", "objective.proces.D=64"],
            "Matching has no field 'proces'; it has process, times",
        ),
        (["train", "digits", "--set", "network.widht=64"], "UNet has no field 'widht'"),
        (["train", "digits", "--steps", "0"], "must be positive"),
        (["train", "--data", "nowhere"], "nowhere"),
        (["train", "mine.py:recipe"], "mine"),
        (["train", "--from", "nowhere"], "no weights at nowhere"),
        (["sample", "nowhere"], "no weights at nowhere"),
        (["evaluate", "nowhere"], "no weights at nowhere"),
    ],
)
def test_mistakes_get_one_sentence(arguments, sentence, tmp_path):
    assert sentence in error(*arguments, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--solver", "hein"], "did you mean 'heun'"),
        (["--grid", "karas"], "did you mean 'karras'"),
        (["--nfe", "-3"], "nfe"),
        (["--nfe", "0"], "nfe"),
        (["--solver", ""], "unknown solver"),
        (["-n", "0"], "at least 1"),
        (["--batch", "0"], "a batch holds at least 1 row, got batch=0"),
        (["--cond", "eleven"], "unknown class 'eleven'"),
        (["--device", "tpu9"], "tpu9"),
    ],
)
def test_wrong_sampling_gets_one_sentence(run, options, sentence, tmp_path):
    assert sentence in error("sample", run, "--out", tmp_path / "out", *options)
    assert list(tmp_path.iterdir()) == []


def test_samples_are_not_overwritten_unasked(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    for force in ([], ["--force"]):
        said = error("sample", run, "--out", tmp_path / "out", "--nfe", 1, *force)
        assert "files that are not samples (mine.txt)" in said
        assert (tmp_path / "out" / "mine.txt").read_text() == "keep"
    assert "not samples" in error("sample", run, "--out", run, "--nfe", 1, "--force")
    assert "is a file" in error("sample", run, "--out", tmp_path / "out" / "mine.txt", "--nfe", 1)
    cli("sample", run, "-n", 3, "--out", tmp_path / "mine", "--nfe", 1, "--json")
    assert "replace them with --force" in error("sample", run, "--out", tmp_path / "mine", "--nfe", 1)
    cli("sample", run, "-n", 2, "--out", tmp_path / "mine", "--nfe", 1, "--json", "--force")
    assert not (tmp_path / "mine" / "00002.png").exists()


def test_a_recipe_and_process_of_ones_own(tmp_path):
    """A module in the current folder, by the console script as by `-m`; other commands need to be told to trust it."""
    (tmp_path / "mine.py").write_text(
        "import math\nfrom dataclasses import dataclass, replace\n"
        "from driftfield.process.gaussian import ScalarGaussian\nfrom driftfield.recipes.digits import digits\n"
        "@dataclass(frozen=True)\nclass Cosine(ScalarGaussian):\n"
        "    span: tuple[float, float] = (1e-3, 0.995)\n"
        "    def alpha(self, t): return (math.pi / 2 * t).cos()\n"
        "    def sigma(self, t): return (math.pi / 2 * t).sin()\n"
        "    def time(self, level): return 2 / math.pi * level.atan()\n"
        "def recipe():\n    made = digits()\n"
        "    return replace(made, objective=replace(made.objective, process=Cosine()))\n"
    )
    script = Path(sys.executable).parent / "driftfield"
    command = [str(script), "train", "mine:recipe", "--steps", "2", "--run", "r", *TINY]
    done = subprocess.run(command, cwd=tmp_path, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "outside the trusted modules" in error("sample", "r", "--nfe", 1, cwd=tmp_path)
    command = [sys.executable, "-m", "driftfield", "sample", "r", "-n", "2", "--nfe", "3", "--trust", "mine"]
    assert subprocess.run(command, cwd=tmp_path, env=ENV, capture_output=True).returncode == 0


def test_data_take_the_recipes_place_and_paths_are_kept_whole(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32))
    assert "did you mean" in error("train", "digts", "--data", "x.npy", cwd=tmp_path)
    plain = json.loads(cli("train", "--data", "x.npy", "--dry", cwd=tmp_path).stdout)
    assert plain["data"]["path"] == str(tmp_path / "x.npy")
    (tmp_path / "digits").mkdir()
    for i in range(4):
        Image.fromarray(np.full((8, 8), 60 * i, np.uint8)).save(tmp_path / "digits" / f"{i}.png")
    plain = json.loads(cli("train", "digits", "--data", "digits", "--dry", cwd=tmp_path).stdout)
    assert plain["data"]["path"] == str(tmp_path / "digits")
    assert plain["training"]["optimizer"]["lr"] == 4e-3  # the recipe's own


def test_a_mistake_in_the_recipe_claims_no_folder(tmp_path):
    for setting in ("sampling.solver=hun", "training.seed=-1", "training.optimizer.lr=-1", "network.width=abc"):
        error("train", "digits", "--run", tmp_path / "r", "--steps", 2, "--set", setting)
        assert not (tmp_path / "r").exists()


def test_ctrl_c_while_sampling_leaves_nothing(run, tmp_path):
    with started("sample", run, "-n", 200_000, "--out", tmp_path / "o") as process:
        for _ in range(600):
            if list(tmp_path.glob(".*.part/.drawn.npy*")):
                break
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_bad_data_get_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no image" in error("train", "--data", tmp_path / "empty")
    good = tmp_path / "good"
    good.mkdir()
    for i in range(5):
        Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(good / f"{i}.png")
    (good / "torn.png").write_bytes(b"\x89PNG but not really")
    assert "torn.png" in error("train", "--data", good)
    done = cli("train", "--data", good, "--set", "data.skip_corrupt=true", "--steps", 1, "--run", tmp_path / "r", *TINY)
    assert "Warning: " in done.stderr
    assert "torn.png" in done.stderr or "left out 1" in done.stderr
    (good / "torn.png").unlink()
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(good / "odd.png")
    assert "size" in error("train", "--data", good)
    np.save(tmp_path / "nan.npy", np.array([[1.0, np.nan], [0.0, 1.0], [2.0, 1.0]]))
    assert "NaN" in error("train", "--data", tmp_path / "nan.npy")
    np.save(tmp_path / "two.npy", np.array([[1.0, 2.0], [0.0, 1.0]]))
    assert "two.npy has 1 item to train on" in error("train", "--data", tmp_path / "two.npy")


def test_wrong_scoring_gets_one_sentence(run):
    assert "a batch holds at least 1 row, got batch=0" in error("evaluate", run, "-n", 20, "--batch", 0)
    assert "2 subsets or 0; got n=1000 and subsets=-2" in error("evaluate", run, "--subsets", -2)


def test_a_finished_run_has_nothing_left_to_do(run):
    done = cli("train", "digits", "--run", run, "--steps", 6, *TINY)
    assert "All 6 steps are trained and nothing is left to do" in done.stdout
    assert "/?" not in done.stderr


def test_a_file_in_the_runs_place(tmp_path):
    (tmp_path / "mine").write_text("mine")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 3)))
    done = cli("train", "--data", tmp_path / "x.npy", "--run", tmp_path / "mine", "--steps", 1, check=False)
    assert done.returncode == 1
    assert f"Error: {tmp_path / 'mine'} is a file; a run goes into a folder" in done.stderr
    assert "says why" not in done.stderr


def test_another_recipe_in_the_folder(run):
    assert "training.steps (6 there, 7 asked)" in error("train", "digits", "--run", run, "--steps", 7, *TINY)


def test_usage_errors_have_status_2():
    done = cli("train", "--no-such-option", check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_ctrl_c_keeps_the_state_and_exits_130(tmp_path):
    with started("train", "digits", "--run", tmp_path / "r", "--steps", 100_000, *TINY, "--json") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["step"] >= 3:
                break
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert len(list((tmp_path / "r").glob("state-*.safetensors"))) == 1
    assert not list((tmp_path / "r").glob(".*.part"))
