"""The Python in README and CONTRIBUTING runs as printed (with training cut short)."""

from __future__ import annotations

import re
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/equation.md"])
def test_examples_run(page, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    assert blocks
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("example")
    monkeypatch.setitem(__import__("sys").modules, "example", module)
    code = "\n".join(blocks).replace("minutes=5", "steps=5, progress=False")
    exec(compile(code, page, "exec"), module.__dict__)
