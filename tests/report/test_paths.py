"""Paths of times kept with a run: searched, found again, refused where they do not fit."""

from __future__ import annotations

import json

import pytest
import torch

from driftfield.report.draw import draw
from driftfield.report.paths import FILE, grid_of, search

from .common import untrained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network that has learned nothing: its trajectories can be searched as well as any."""
    return untrained(tmp_path_factory.mktemp("paths"), nfe=5).parent


def test_searched_kept_and_walked(run):
    found = search(run, solver="deis", nfe=6, n=8, fine=16)
    assert found.error == min(found.tried.values())
    assert torch.equal(grid_of(run, "searched", "deis", 6), found.path)
    assert grid_of(run, "natural", "deis", 6) == "natural"
    kept = json.loads((run / FILE).read_text())["deis 6"]
    assert kept["times"] == found.path.tolist()
    record = draw(run, n=3, out=run / "drawn", solver="deis", nfe=6, grid="searched", device="cpu")
    assert (record["grid"], record["nfe"]) == ("searched", 6)
    search(run, nfe=5, n=8, fine=12)  # the recipe's solver; the first is kept too
    assert set(json.loads((run / FILE).read_text())) == {"deis 6", "heun 5"}


def test_what_was_not_searched_is_not_used(run, tmp_path):
    with pytest.raises(ValueError, match=r"no path was searched for ddim with nfe=6; driftfield search .* find"):
        draw(run, n=3, out=tmp_path / "drawn", solver="ddim", nfe=6, grid="searched", device="cpu")
    assert not (tmp_path / "drawn").exists()
    search(run, solver="ddim", nfe=4, n=8, fine=12)
    kept = json.loads((run / FILE).read_text())
    kept["ddim 4"]["weights"] = "others"
    (run / FILE).write_text(json.dumps(kept))
    with pytest.raises(ValueError, match="searched for other weights"):
        grid_of(run, "searched", "ddim", 4)
    for nfe in (None, 300):
        with pytest.raises(ValueError, match="chooses its own steps"):
            search(run, solver="dormand-prince", nfe=nfe, n=8)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        search(run, n=1)
