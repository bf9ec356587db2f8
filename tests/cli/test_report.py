"""`driftfield report` as a user meets it."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from .test_cli import TINY, cli, error, started

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "digits"
    cli("train", "digits", "--run", folder, "--steps", 4, "--cpu", *TINY)
    return folder


def test_a_page_and_its_figures(run, tmp_path):
    made = cli("report", run, "-n", 16, "--json", "--figures", "figures", cwd=tmp_path)
    record = json.loads(made.stdout)
    assert record["out"] == "report.html"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["figures", "report.html"]
    assert "driftfield report" in (tmp_path / "report.html").read_text()  # the command that made it


def test_mistakes(tmp_path):
    assert "no weights at nowhere" in error("report", "nowhere", cwd=tmp_path)
    assert cli("report", check=False).returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_keeps_what_was_measured(run, tmp_path):
    mine, page = tmp_path / "run", tmp_path / "page"
    shutil.copytree(run, mine, ignore=shutil.ignore_patterns("report"))
    page.mkdir()
    with started("report", mine, "-n", 1000, "--out", page / "r.html") as process:
        for _ in range(1200):
            if list(mine.glob("report/*/scores-*")) or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    assert list(page.iterdir()) == []
    assert all(p.suffix == ".safetensors" for p in mine.glob("report/*/*"))
