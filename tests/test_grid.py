"""Grids: the published numbers, their ends, and paths that climb."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import driftfield as df
from driftfield.grid import GRIDS, natural
from driftfield.solve.base import cost

PROCESSES = [df.EDM(), df.VP(), df.SubVP(), df.VE(), df.Rectified(), df.PFGMPP(D=128), df.PFGM()]


def test_karras_numbers():
    """spec/restart.md 4.4 and spec/pfgmpp.md 8.12."""
    grid = df.karras(df.EDM(), 18)
    expected = "80, 57.59, 40.79, 28.37, 19.35, 12.91, 8.401, 5.315, 3.257, 1.923, "
    expected += "1.088, 0.5853, 0.2964, 0.1395, 0.05995, 0.02293, 0.007528, 0.002, 0"
    torch.testing.assert_close(
        grid, torch.tensor([float(v) for v in expected.split(",")], dtype=torch.float64), rtol=4e-4, atol=0
    )
    assert grid[0] == 80
    assert grid[-2] == 0.002
    assert [cost(df.karras(df.EDM(), k), df.Heun()) for k in (18, 40, 50)] == [35, 79, 99]


def test_vp_grids_of_the_spec():
    """spec/deis.md 8.2: five steps from T = 1 to t_0 = 1e-3; ours then go on to 0."""
    expected = {
        "power": [1, 0.65015929, 0.37533893, 0.17553893, 0.05075929, 0.001],
        "karras": [1, 0.87978543, 0.71075707, 0.43285451, 0.07771018, 0.001],
        "geometric": [1, 0.78556808, 0.49343953, 0.14063641, 0.0180954, 0.001],
    }
    for name, times in expected.items():
        torch.testing.assert_close(
            GRIDS[name](df.VP(), 6)[:-1], torch.tensor(times, dtype=torch.float64), rtol=1e-6, atol=1e-8
        )


@pytest.mark.parametrize("name", sorted(GRIDS.keys() - {"restart"}))
@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_every_grid_falls_from_end_to_end(process, name):
    build = GRIDS[name]
    endless = math.isinf(process.level(torch.tensor(process.span[1], dtype=torch.float64)).item())
    if endless and name not in ("uniform", "power", "natural", "logistic"):
        with pytest.raises(ValueError, match="no signal"):
            build(process, 5)
        return
    for steps in (1, 2, 7, 30):
        grid = build(process, steps)
        assert len(grid) == steps + 1
        assert grid.dtype == torch.float64
        assert bool((grid.diff() < 0).all())
        assert grid[0].item() == pytest.approx(process.span[1], rel=1e-12)
        zero = process.level(torch.zeros((), dtype=torch.float64)) == 0
        assert grid[-1].item() == (0 if zero else pytest.approx(process.span[0], rel=1e-9))


def test_high_and_low_are_levels():
    grid = df.karras(df.VP(), 5, high=3.0, low=0.1)
    torch.testing.assert_close(df.VP().level(grid[[0, -2]]), torch.tensor([3.0, 0.1], dtype=torch.float64))


def test_rectified_natural_grid_is_even():
    torch.testing.assert_close(natural(df.Rectified(), 4), torch.tensor([1, 0.75, 0.5, 0.25, 0], dtype=torch.float64))


def test_churn_is_edms():
    """gamma = min(S_churn / N, sqrt 2 - 1) on the steps that start inside [S_min, S_max]."""
    grid = df.karras(df.EDM(), 10)
    path = df.churn(grid, 2.0, low=0.05, high=50)
    up = [(t.item(), s.item()) for t, s in pairwise(path) if s > t]
    assert [t for t, _ in up] == [t.item() for t in grid if 0.05 <= t <= 50]
    assert all(s / t == pytest.approx(1.2) for t, s in up)
    steep = df.churn(grid, 1000.0, low=0.05, high=50)
    assert max((s / t).item() for t, s in pairwise(steep) if t > 0) == pytest.approx(math.sqrt(2))
    assert torch.equal(df.churn(grid, 0.0), grid)
    level = df.VP().level(df.churn(df.karras(df.VP(), 10), 2.0, high=50, process=df.VP()))
    assert max((s / t).item() for t, s in pairwise(level) if t > 0) == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("steps", "levels", "nfe"),
    [
        (20, [(9, 30, 0.06, 0.20)], 519),
        (18, [(3, 20, 0.06, 0.30)], 115),
        (18, [(3, 2, 0.14, 0.30)], 43),
        (
            36,
            [(10, 3, 19.35, 40.79), (10, 3, 1.09, 1.92), (7, 6, 0.59, 1.09), (7, 6, 0.30, 0.59), (7, 25, 0.06, 0.30)],
            623,
        ),
        (
            18,
            [(3, 1, 19.35, 40.79), (4, 1, 1.09, 1.92), (4, 5, 0.59, 1.09), (4, 5, 0.30, 0.59), (4, 10, 0.06, 0.30)],
            165,
        ),
        (14, [(3, 1, 19.35, 40.79), (3, 1, 1.09, 1.92), (3, 1, 0.06, 0.30)], 39),
    ],
)
def test_restart_costs_what_the_paper_says(steps, levels, nfe):
    """spec/restart.md 4.1 and 4.2: every published configuration and its evaluations."""
    path = df.restart(df.karras(df.EDM(), steps), levels)
    assert cost(path, df.Heun()) == nfe
    assert sum(s > t for t, s in pairwise(path.tolist())) == sum(k for _, k, _, _ in levels)


def test_restart_rounds_to_the_grid():
    """spec/restart.md 4.4: 0.06 on 18 points is 0.0599473, on 20 it is 0.0448826."""
    for steps, used in ((18, 0.0599473), (20, 0.0448826)):
        path = df.restart(df.karras(df.EDM(), steps), [(3, 1, 0.06, 0.3)])
        at = int((path.diff() > 0).nonzero()[0])
        assert path[at].item() == pytest.approx(used, rel=1e-5)
        assert path[at + 1].item() == pytest.approx(0.3)
        assert path[at + 3].item() == path[at].item()
    grid = df.karras(df.EDM(), 18)
    first = lambda how: df.restart(grid, [(2, 1, 0.1, 0.5)], round=how)[
        (df.restart(grid, [(2, 1, 0.1, 0.5)], round=how).diff() > 0).nonzero()[0]
    ]
    assert first("below") == grid[14]
    assert first("above") == grid[13]


@pytest.mark.parametrize("process", [df.EDM(), df.VE(), df.Rectified(), df.VP()], ids=lambda p: type(p).__name__)
def test_a_path_with_restarts_exists_for_every_budget(process):
    """Where no time of a short grid lies below the upper level, there is none; and none above the level begun at."""
    for sigma_data in (0.05, 0.5, 3.0):
        for steps in range(1, 45):
            path = df.restarted(process, steps, sigma_data=sigma_data)
            assert int((path.diff() < 0).sum()) == steps
    assert bool((df.restarted(df.EDM(), 20, high=0.2).diff() < 0).all())


def test_restart_on_vp_climbs_in_level():
    path = df.restart(df.karras(df.VP(), 18), [(3, 2, 0.14, 0.30)], process=df.VP())
    at = int((path.diff() > 0).nonzero()[0])
    assert df.VP().level(path[at + 1]).item() == pytest.approx(0.30)


def test_churn_does_not_climb_from_an_infinite_level():
    """At its start the straight path has no signal: there is nothing above it to climb to."""
    process = df.Rectified()
    grid = df.uniform(process, 8)
    path = df.churn(grid, 2.0, process=process)
    assert bool(path.isfinite().all())
    assert path[:2].tolist() == grid[:2].tolist()
    up = [(t, s) for t, s in pairwise(path) if s > t]
    assert [t.item() for t, _ in up] == grid[1:-1].tolist()
    assert all((process.level(s) / process.level(t)).item() == pytest.approx(1.25) for t, s in up)


@pytest.mark.parametrize("name", ["karras", "geometric", "uniform", "power", "natural"])
def test_levels_that_a_process_does_not_reach_are_refused(name):
    """VE keeps `sigma_min` at time 0: below it are only negative times."""
    for low in (0.001, 0.01):
        with pytest.raises(ValueError, match=f"VE has no level at or below 0.01, got low={low}"):
            GRIDS[name](df.VE(), 5, low=low)
    assert bool((GRIDS[name](df.VE(), 5, low=0.0101) > 0).all())


def test_bad_grids_are_refused():
    grid = df.karras(df.EDM(), 18)
    for call, message in (
        (lambda: df.karras(df.EDM(), 0), "at least 1 step"),
        (lambda: df.karras(df.EDM(), 3, low=2.0, high=1.0), "high"),
        (lambda: df.karras(df.EDM(), 3, rho=0), "rho"),
        (lambda: df.restart(grid, [(3, 1, 0.0001, 0.3)]), "end of the grid"),
        (lambda: df.restart(grid, [(3, 1, 0.3, 0.1)]), "higher level"),
        (lambda: df.restart(grid, [(1, 1, 0.1, 0.3)]), "points >= 2"),
        (lambda: df.restart(grid, [(3, 1, 0.1, 0.3)], round="nearst"), "did you mean 'nearest'"),
        (lambda: df.churn(grid, -1.0), "churn"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
