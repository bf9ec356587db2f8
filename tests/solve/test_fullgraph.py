"""`torch.compile(fullgraph=True)` of a whole walk: one graph, the same samples."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import driftfield as df
from driftfield.rng import normal, seeded

WALKS = {
    "heun-edm": (df.Heun(), df.EDM()),
    "deis-vp": (df.DEIS(), df.VP()),
    "unipc-pfgm++": (df.UniPC(), df.PFGMPP(D=8.0)),
    "dpm++-rectified": (df.DPMSolverPP(3), df.Rectified()),
    "rk4-edm": (df.RK4(), df.EDM()),
    "rho3-vp": (df.RhoRK(3), df.VP()),
    "dpm3-edm": (df.DPMSolver(3), df.EDM()),
    "ipndm-vp": (df.IPNDM(), df.VP()),
}
SLOW = list(WALKS)[3:]


def walk(name: str, steps: int = 3):
    """A function of the state, a state, and what the walk of it ends with."""
    solver, process = WALKS[name]
    denoiser = df.Preconditioned(df.MLP((3,), width=8, depth=1), process).eval()
    for i, parameter in enumerate(denoiser.parameters()):
        parameter.data.add_(0.1 * normal(parameter, seeded(0, i)))
    field, rng = df.Reverse(process, denoiser), seeded(1)
    grid = df.power(process, steps)
    times = tuple(grid.tolist())
    x = process.prior((4, 3), seeded(2))
    return lambda x: df.sample(field, x, times, solver, rng), x, df.sample(field, x, grid, solver, rng)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in WALKS])
def test_a_walk_is_one_graph(name):
    """Times and coefficients are constants in it; a break would raise, a second graph would be counted."""
    torch._dynamo.reset()
    run, x, expected = walk(name)
    assert torch.equal(run(x), expected)  # times given as numbers are the same path
    counted = CompileCounterWithBackend("eager")
    assert torch.equal(torch.compile(run, fullgraph=True, backend=counted)(x), expected)
    assert counted.frame_count == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, while it compiles
def test_generated_code_draws_the_same_samples():
    torch._dynamo.reset()
    run, x, expected = walk("deis-vp", steps=2)
    with torch._inductor.config.patch(cpp_cache_precompile_headers=False):
        found = torch.compile(run, fullgraph=True)(x)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)  # float32, sums in another order
