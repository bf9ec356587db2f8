"""What every test shares: one thread, so that results do not depend on the machine's load, and the processes."""

from __future__ import annotations

import os
import sys
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def rng() -> torch.Generator:
    """A generator with a fixed seed."""
    return torch.Generator().manual_seed(20)


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run a command in this process: its exit status, standard output and standard error."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command sets its own

    from driftfield.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["driftfield", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return status, said.out, said.err

    return run
