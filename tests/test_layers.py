"""Who may import whom: a file imports only from lower layers, or from its own folder."""

from __future__ import annotations

import ast
from pathlib import Path

import driftfield

ROOT = Path(driftfield.__file__).parent
LAYERS = [
    ["names", "files", "ranks", "batches"],
    ["linear", "rng", "special", "plain", "optim", "column"],
    ["spectral", "settings"],
    ["process", "network"],
    ["denoise", "pde"],
    ["adapt", "guide"],
    ["field", "grid"],
    ["solve"],
    ["objective", "generation", "likelihood", "latent"],
    ["search"],
    ["data", "metric", "bridge"],
    ["recipe"],
    ["train"],
    ["recipes"],
    ["deploy"],
    ["report"],
    ["cli"],
]
LEVEL = {name: i for i, names in enumerate(LAYERS) for name in names}


def imports(path: Path) -> set[str]:
    """The parts of the package that a file imports, wherever in the file it does so."""
    here, found = path.relative_to(ROOT).parts, set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {(*base, *name.split("."))[0] for name in names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("driftfield."):
            found.add(node.module.split(".")[1])
    return found - {"__version__"}


def test_every_part_has_a_layer():
    parts = {p.relative_to(ROOT).parts[0].removesuffix(".py") for p in ROOT.rglob("*.py")} - {"__init__", "__main__"}
    assert parts == set(LEVEL)


def test_imports_only_point_down():
    for path in ROOT.rglob("*.py"):
        here = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if here in ("__init__", "__main__"):
            continue
        for name in imports(path):
            assert name == here or LEVEL[name] < LEVEL[here], f"{here} may not import {name} ({path})"


def test_only_the_loop_uses_accelerate():
    users = [
        p for p in ROOT.rglob("*.py") if "import accelerate" in p.read_text() or "from accelerate" in p.read_text()
    ]
    assert [p.relative_to(ROOT).as_posix() for p in users] == ["train/loop.py"]
