"""Searched grids: the dynamic programme against every choice, and a path that beats the named ones."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
import torch

import driftfield as df
from driftfield.rng import rows, seeded, uniform
from driftfield.search import cheapest, deviations

from .solve.test_rk import mixture

F64 = torch.float64


@pytest.mark.parametrize("gamma", [0.8, 1.0, 1.3])
@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_the_cheapest_path_is_the_cheapest_of_all(steps, gamma):
    """Against every choice of times among 8; a step's cost counts `gamma` times for each step before it."""
    costs = uniform(torch.empty(8, 8, dtype=F64), seeded(steps)).triu(1)
    price = lambda path: sum(gamma**k * costs[a, b].item() for k, (a, b) in enumerate(pairwise(path)))
    every = [(0, *inner, 7) for inner in combinations(range(1, 7), steps - 1)]
    found = cheapest(costs, steps, gamma)
    assert len(found) == steps + 1
    assert price(found) == pytest.approx(min(map(price, every)), abs=1e-12)


def test_more_steps_than_times():
    with pytest.raises(ValueError, match="between 4 times there are 1 to 3 steps, got 4"):
        cheapest(torch.zeros(4, 4, dtype=F64), 4, 1.0)


def test_deviations_are_those_of_ddim():
    process = df.VP()
    field = df.Reverse(process, mixture(process))
    times = df.karras(process, 5)
    x = process.perturb(torch.zeros(6, 2, dtype=F64), times[0], rows(0, 0, 6))
    states = [state for _, state in df.integrate(field, x, times, df.Heun(), seeded(0))]
    costs = deviations(field, times, states)
    for i, j in ((0, 1), (1, 4), (2, 5)):
        ahead = df.sample(field, states[i], times[[i, j]], df.DDIM(), seeded(0))
        expected = (ahead - states[j]).square().mean().sqrt() / process.alpha(times[j])
        assert costs[i, j].item() == pytest.approx(expected.item(), rel=1e-12)
    assert not costs.tril().any()


@pytest.mark.parametrize("solver", ["ddim", "deis", "dpm++2m", "heun"])
def test_the_path_found_is_at_least_as_good_as_the_named_ones_and_on_fresh_noise_too(solver):
    """On the trajectories searched by construction; on others it does not lose to the natural grid."""
    process = df.EDM()
    denoiser = mixture(process)
    found = df.search_grid(process, denoiser, (64, 2), nfe=7, solver=solver, seed=0)
    assert found.error == min(found.tried.values())
    assert "natural" in found.tried
    assert {"geometric", "uniform", "power", "gamma 0.8", "gamma 1"} <= set(found.tried)
    named = df.plan(process, solver=solver, nfe=7)
    assert df.plan(process, solver=solver, nfe=7, grid=found.path).nfe <= 7
    errors = {}
    for name, path in (("searched", found.path), ("natural", named.path)):
        x = df.generate(process, denoiser, (200, 2), solver=solver, grid=path, seed=1)
        fine = df.generate(process, denoiser, (200, 2), solver="heun", nfe=199, seed=1)
        errors[name] = (x - fine).square().mean().sqrt().item()
    assert errors["searched"] <= errors["natural"]


def test_no_times_are_searched_for_solvers_that_add_noise_or_choose_their_own():
    for solver, said in (("reverse-sde", "adds noise"), ("dormand-prince", "chooses its own steps")):
        with pytest.raises(ValueError, match=said):
            df.search_grid(df.EDM(), mixture(df.EDM()), (4, 2), nfe=12, solver=solver)


def test_a_fine_grid_must_be_fine():
    with pytest.raises(ValueError, match="a fine grid of 12 steps is too coarse to choose 7 from; take 14 or more"):
        df.search_grid(df.EDM(), mixture(df.EDM()), (4, 2), nfe=7, fine=12)
