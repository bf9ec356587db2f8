"""What README, CONTRIBUTING and the pages of docs/ print runs as printed, with training and sampling cut short.

The blocks of a page run in their order, in one folder and one namespace: `python` blocks are executed, those with a
`title="name.py"` are written to that file, and of `bash` blocks every `driftfield` command is run.
"""

from __future__ import annotations

import re
import shlex
import sys
import types
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r'^```(python|bash)(?: title="([^"]+)")?\n(.*?)^```', re.S | re.M)
NOT_RUN = {"pip", "make", "git", "cd", "torchrun", "accelerate", "tensorboard", "python"}  # first words
NARROW = ["training.batch=16", "network.width=16", "sampling.nfe=3"]
SLOW = {f"docs/{page}.md" for page in ("tutorials/images", "guide/report", "guide/export", "guide/training", "physics")}


def blocks(page: str) -> list[tuple[str, str | None, str, int]]:
    """The language, title, text and first line of each block of a page that can be run."""
    text = (ROOT / page).read_text()
    return [(m[1], m[2], m[3], text.count("\n", 0, m.start()) + 1) for m in BLOCK.finditer(text)]


def commands(text: str) -> list[list[str]]:
    """The words of each command of a `bash` block, without comments."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def shortened(words: list[str]) -> list[str]:
    """A command that takes seconds: 4 steps of 16 samples of a narrow network, 16 samples of 3 evaluations."""
    verb, kept = words[1], []
    for word in words[1:]:
        if kept and kept[-1] in ("--minutes", "--steps"):
            kept.pop()
        else:
            kept.append(word)
    less = {
        "train": ["--steps", "4", "--cpu", *(word for field in NARROW for word in ("--set", field))],
        "sample": ["-n", "16", "--nfe", "3"],
        "evaluate": ["-n", "32", "--nfe", "3"],
    }
    return [*kept, *less.get(verb, [])]


RUN = [page for page in PAGES if blocks(page)]


@pytest.mark.parametrize("page", [pytest.param(p, marks=pytest.mark.slow if p in SLOW else ()) for p in RUN])
def test_examples_run(page, tmp_path, monkeypatch):
    from driftfield.cli import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = types.ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)
    before = set(sys.modules)
    try:
        for language, title, text, line in blocks(page):
            if title is not None:
                Path(title).write_text(text)
            elif language == "python":
                code = "\n" * line + re.sub(r"minutes=5\b", f"steps=4, progress=False, settings={NARROW}", text)
                exec(compile(code, page, "exec"), module.__dict__)
            else:
                for words in commands(text):
                    assert words[0] == "driftfield" or words[0] in NOT_RUN, f"{page}: {words[0]} is not run"
                    if words[0] == "driftfield":
                        with warnings.catch_warnings():  # of few samples: they are few because shortened
                            warnings.simplefilter("ignore", UserWarning)
                            app(shortened(words), standalone_mode=False)
    finally:
        for name in set(sys.modules) - before:
            if (tmp_path / f"{name}.py").exists():
                del sys.modules[name]


def test_the_pages_that_teach_have_examples():
    lacking = [p for p in PAGES if p.startswith(("docs/nouns/", "docs/tutorials/", "docs/guide/")) and p not in RUN]
    assert not lacking
