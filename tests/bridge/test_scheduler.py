"""DriftfieldScheduler: in the loop of a diffusers pipeline, every solver and path is what it is here."""

from __future__ import annotations

import re

import pytest
import torch

import driftfield as df
from driftfield.solve.named import SOLVERS
from tests.bridge.common import LATENT, diffusers, unet

F64 = torch.float64
FIXED = sorted(name for name, make in SOLVERS.items() if not (make().adaptive or make().noisy))
ADAPTIVE = next(name for name, make in SOLVERS.items() if make().adaptive)
DDIM = {"clip_sample": False}


def looped(model, scheduler, x, generator=None, change=None):
    """The loop of a pipeline."""
    calls = 0
    for i, t in enumerate(scheduler.timesteps):
        out = model(x, t).sample
        calls += 1
        more = {} if generator is None else {"generator": generator}
        x = scheduler.step(out, t, x, **more).prev_sample
        x = x if change is None else change(i, x)
    return x, calls


def start(rng, dtype=F64):
    return torch.randn(2, 3, 8, 8, generator=rng, dtype=dtype)


@pytest.mark.parametrize("flow", [False, True], ids=["variance-preserving", "flow"])
@pytest.mark.parametrize("solver", FIXED)
def test_every_solver_is_itself(solver, flow, rng):
    """The loop ends where `sample` does, within the budget."""
    config = (diffusers.FlowMatchEulerDiscreteScheduler() if flow else diffusers.DDIMScheduler(**DDIM)).config
    scheduler = df.DriftfieldScheduler.from_config(config, solver=solver)
    model, x = unet(), start(rng)
    process, denoiser = df.from_diffusers(model, scheduler)
    assert isinstance(process, df.Rectified) == flow
    route = df.plan(process, solver=solver, nfe=16)
    try:
        here = df.sample(df.Reverse(process, denoiser), x, route.path, route.solver, rng)
    except ValueError as refused:  # levels are infinite where no signal is left: the same sentence, before any call
        assert flow
        with pytest.raises(ValueError, match=re.escape(str(refused))):
            scheduler.set_timesteps(16)
        return
    scheduler.set_timesteps(16)
    there, calls = looped(model, scheduler, x)
    assert calls == route.nfe <= 16
    assert (there - here).abs().max() < 1e-5 * here.abs().max()  # the timesteps are float32


@pytest.mark.parametrize("flow", [False, True], ids=["variance-preserving", "flow"])
def test_auto_is_its_choice_for_pictures(flow, rng):
    """With 8 evaluations that differs from its choice for other data."""
    config = (diffusers.FlowMatchEulerDiscreteScheduler() if flow else diffusers.DDIMScheduler(**DDIM)).config
    scheduler = df.DriftfieldScheduler.from_config(config, solver="auto")
    model, x = unet(), start(rng)
    process, denoiser = df.from_diffusers(model, scheduler)
    field = df.Reverse(process, denoiser)
    here, other = (
        df.sample(field, x, route.path, route.solver, rng)
        for route in (df.plan(process, solver="auto", nfe=8, shape=shape) for shape in (x.shape[1:], (192,)))
    )
    scheduler.set_timesteps(8)
    there, calls = looped(model, scheduler, x)
    assert calls == 8
    assert (there - here).abs().max() < 1e-5 * here.abs().max()  # the timesteps are float32
    assert (there - other).abs().max() > 1e-3 * here.abs().max()


@pytest.mark.parametrize("solver", ["heun", "deis", "dpm++2m"])
@pytest.mark.parametrize("each", [False, True], ids=["one generator", "one each"])
def test_restart_climbs_by_the_generator(solver, each):
    """Same generator, same result; another, another. Every climb adds noise, and calls are counted as planned."""
    model = unet()
    scheduler = df.DriftfieldScheduler.from_config(
        diffusers.DDIMScheduler(**DDIM).config, solver=solver, restarts=[[3, 2, 0.2, 2.0]]
    )

    def draw(seed):
        g = torch.Generator().manual_seed(seed)
        scheduler.set_timesteps(30)
        rngs = [torch.Generator().manual_seed(seed + k) for k in range(2)] if each else g
        return looped(model, scheduler, start(torch.Generator().manual_seed(9)), rngs)

    (a, calls), (b, _), (c, _) = draw(1), draw(1), draw(2)
    assert torch.equal(a, b)
    assert (a - c).abs().max() > 1e-3
    process, _ = df.from_diffusers(model, scheduler)
    restarted = lambda p, n, **k: df.restart(df.karras(p, n), [(3, 2, 0.2, 2.0)], process=p)
    assert calls == df.plan(process, solver=solver, nfe=30, grid=restarted).nfe
    assert bool((scheduler.timesteps.diff() > 0).any())


def test_the_noise_of_climbs_has_the_variance_of_the_process():
    """A model that finds 0 leaves a state of 0 there until the climb, which then has the noise between its two times:
    of 12,288 draws the variance is within 4 standard errors, sqrt(2 / n) each, and the mean within 4 of 1 / sqrt(n)."""
    config = {**diffusers.DDIMScheduler(**DDIM).config, "prediction_type": "sample"}
    scheduler = df.DriftfieldScheduler.from_config(config, solver="ddim", restarts=[[2, 1, 0.5, 3.0]])
    process, _ = df.from_diffusers(unet(), scheduler)
    path = df.restart(df.karras(process, 11), [(2, 1, 0.5, 3.0)], process=process)
    scheduler.set_timesteps(12)
    g, x = torch.Generator().manual_seed(0), torch.zeros(64, 3, 8, 8, dtype=F64)
    at = int((path.diff() > 0).nonzero())  # the index of the time from which the path climbs
    for t in scheduler.timesteps[:at]:
        assert not x.any()
        x = scheduler.step(torch.zeros_like(x), t, x, generator=g).prev_sample
    low, high = path[at], path[at + 1]
    wanted = process.sigma(high) ** 2 - (process.alpha(high) * process.level(low)) ** 2
    assert abs(x.var() / wanted - 1) < 4 * (2 / x.numel()) ** 0.5
    assert abs(x.mean()) < 4 * (wanted / x.numel()) ** 0.5


def test_without_noise_nothing_is_drawn(rng):
    scheduler = df.DriftfieldScheduler.from_config(diffusers.DDIMScheduler(**DDIM).config, solver="heun")
    scheduler.set_timesteps(7)
    g = torch.Generator().manual_seed(0)
    before = g.get_state(), torch.random.get_rng_state()
    looped(unet(), scheduler, start(rng), g)
    assert torch.equal(g.get_state(), before[0])
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_torch_s_own_generator_serves_where_none_is_given(rng):
    scheduler = df.DriftfieldScheduler.from_config(
        diffusers.DDIMScheduler(**DDIM).config, solver="ddim", restarts=[[2, 1, 0.2, 2.0]]
    )
    model, x, ends = unet(), start(rng), []
    with torch.random.fork_rng():
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            scheduler.set_timesteps(8)
            ends.append(looped(model, scheduler, x)[0])
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("final", [True, False])
def test_given_timesteps_reproduce_ddim(final, rng):
    theirs = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=final, **LATENT)
    theirs.set_timesteps(10)
    ours = df.DriftfieldScheduler.from_config(theirs.config, solver="ddim")
    ours.set_timesteps(timesteps=theirs.timesteps.tolist())
    model, x = unet(), start(rng)
    wanted = looped(model, theirs, x)[0]
    # without a clean end DDIM's own last step, from step 0 to step 0, is none: one path is a call shorter
    assert len(ours.timesteps) == (10 if final else 9)
    assert (looped(model, ours, x)[0] - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_given_sigmas_reproduce_flow_matching(shift, rng):
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    ours = df.DriftfieldScheduler.from_config(theirs.config, solver="euler")
    sigmas = [1.0, 0.75, 0.5, 0.25]
    theirs.set_timesteps(sigmas=sigmas)
    ours.set_timesteps(sigmas=sigmas)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps)
    model, x = unet(), start(rng)
    wanted = looped(lambda x, t: model(x.double(), t), theirs, x)[0]
    assert (looped(model, ours, x)[0] - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_dynamic_shifts(rng):
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    ours = df.DriftfieldScheduler.from_config(theirs.config, solver="euler")
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(sigmas=[1.0, 0.5, 0.25], mu=0.8)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps)
    with pytest.raises(ValueError, match="needs mu"):
        ours.set_timesteps(3)


def test_noise_is_added_as_the_scheduler_it_replaces_does(rng):
    theirs = diffusers.DDPMScheduler()
    ours = df.DriftfieldScheduler.from_config(theirs.config)
    x, eps, t = start(rng), start(rng), torch.tensor([3, 700])
    torch.testing.assert_close(ours.add_noise(x, eps, t), theirs.add_noise(x, eps, t).double(), rtol=1e-5, atol=1e-5)
    assert ours.init_noise_sigma == theirs.init_noise_sigma
    assert len(ours) == len(theirs)


@pytest.mark.parametrize(("solver", "at"), [("deis", 7), ("heun", 6), ("ddim", 3)])
def test_a_pipeline_may_begin_in_the_middle(solver, at, rng):
    """From a place between two moves: the rest of the path, with no memory of what was not walked."""
    scheduler = df.DriftfieldScheduler.from_config(diffusers.DDIMScheduler(**DDIM).config, solver=solver)
    scheduler.set_timesteps(16)
    model, x = unet(), start(rng)
    process, denoiser = df.from_diffusers(model, scheduler)
    rest = df.plan(process, solver=solver, nfe=16).path[at // (2 if solver == "heun" else 1) :]
    wanted = df.sample(df.Reverse(process, denoiser), x, rest, SOLVERS[solver](), rng)
    for told in (True, False):
        scheduler.set_timesteps(16)
        scheduler.timesteps = scheduler.timesteps[at:]
        if told:
            scheduler.set_begin_index(at)
        elif solver == "heun":
            continue  # its timesteps come twice, so a place has to be told
        assert (looped(model, scheduler, x)[0] - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_a_state_that_the_pipeline_changes_is_taken(rng):
    """What a callback does between moves (masks, edits) is kept; here it ends the walk at its own state."""
    scheduler = df.DriftfieldScheduler.from_config(diffusers.DDIMScheduler(**DDIM).config, solver="ddim")
    scheduler.set_timesteps(6)
    model, x, other = unet(), start(rng), start(rng)
    ended = looped(model, scheduler, x, change=lambda i, x: other if i == 3 else x)[0]
    process, denoiser = df.from_diffusers(model, scheduler)
    rest = df.plan(process, solver="ddim", nfe=6).path[4:]
    wanted = df.sample(df.Reverse(process, denoiser), other, rest, df.DDIM(), rng)
    assert (ended - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_half_precision_is_computed_in_single(rng):
    """States handed over are bfloat16, yet what they are rounded from goes on: 40 steps lose no more than one."""
    scheduler = df.DriftfieldScheduler.from_config(
        {**diffusers.DDIMScheduler(**DDIM).config, "prediction_type": "sample"}, solver="ddim"
    )
    x = start(rng, torch.float32).bfloat16()
    ends = []
    for dtype in (torch.bfloat16, torch.float64):
        scheduler.set_timesteps(40)
        y = x.to(dtype)
        for t in scheduler.timesteps[:-1]:
            y = scheduler.step(0.5 * x.to(dtype), t, y).prev_sample
            assert y.dtype == dtype
        ends.append(y.double())
    assert (ends[0] - ends[1]).abs().max() < 2**-8 * ends[1].abs().max()


@pytest.mark.parametrize("solver", ["deis", "heun", "unipc"])
def test_nothing_reads_the_device_inside_the_loop(solver):
    """States without storage: whatever would wait for their values raises. Climbs draw on the states' device."""
    scheduler = df.DriftfieldScheduler.from_config(diffusers.DDIMScheduler(**DDIM).config, solver=solver)
    scheduler.set_timesteps(12)
    scheduler.set_begin_index(0)
    x = torch.empty(2, 3, 8, 8, device="meta")
    with pytest.raises((RuntimeError, NotImplementedError), match=r"[Mm]eta"):
        x.sum().item()
    for t in scheduler.timesteps:
        x = scheduler.step(x.sin(), t, x).prev_sample
    assert x.device.type == "meta"
    assert x.dtype == torch.float32


def test_clipping_is_of_the_estimate(rng):
    model, x = unet(), start(rng)
    clipped = df.DriftfieldScheduler.from_config(
        {**LATENT, "clip_sample": True, "clip_sample_range": 0.3}, solver="ddim"
    )
    clipped.set_timesteps(10)
    assert looped(model, clipped, x)[0].abs().max() <= 0.3 + 1e-6  # a path to time 0 ends on an estimate


def test_the_configuration_travels(tmp_path):
    made = df.DriftfieldScheduler.from_config(
        diffusers.DDIMScheduler(**LATENT).config, solver="heun", grid="geometric", restarts=[[3, 1, 0.2, 2.0]]
    )
    made.save_pretrained(tmp_path)
    again = df.DriftfieldScheduler.from_pretrained(tmp_path)
    for scheduler in (again, df.DriftfieldScheduler.from_config(made.config)):
        assert scheduler.config.solver == "heun"
        assert scheduler.config.grid == "geometric"
        assert [list(r) for r in scheduler.config.restarts] == [[3, 1, 0.2, 2.0]]
        made.set_timesteps(20)
        scheduler.set_timesteps(20)
        assert torch.equal(made.timesteps, scheduler.timesteps)
    back = diffusers.DDIMScheduler.from_config(made.config)
    assert back.config.beta_schedule == "scaled_linear"
    assert df.DriftfieldScheduler.from_config(made.config, solver="ddim").config.grid == "geometric"


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda s: s(solver="hun"), "did you mean 'heun'"),
        (lambda s: s(grid="karas"), "did you mean 'karras'"),
        (lambda s: s(solver=ADAPTIVE, nfe=100), "chooses its own steps"),
        (lambda s: s(nfe=0), "at least 1"),
        (lambda s: s(solver="rk4", nfe=3, grid="no-end"), "unknown grid"),
        (lambda s: s(restarts=[[3, 1, 0.001, 2.0]]), "meets an end of the grid"),
        (lambda s: s(config={**LATENT, "thresholding": True}), "thresholding=False"),
        (lambda s: s().set_timesteps(timesteps=[3], sigmas=[1.0]), "not both"),
        (lambda s: s().set_timesteps(timesteps=[10, 10]), "repeats a time"),
        (lambda s: s(begin=3, solver="heun"), "inside a move of solver 'heun'.*begin at 2"),
        (lambda s: s(timestep=12345), "timestep 12345 is not one of this path"),
        (lambda s: s(before=True), "call set_timesteps before"),
        (lambda s: s(again=True), "the path has ended"),
    ],
)
def test_bad_requests_are_refused(use, message):
    def scheduler(config=LATENT, nfe=8, begin=None, timestep=None, before=False, again=False, **told):
        made = df.DriftfieldScheduler.from_config(config, **{"solver": "ddim", **told})
        x = torch.zeros(1, 3, 8, 8)
        if before:
            made.step(x, 999, x)
        made.set_timesteps(nfe)
        if begin is not None:
            made.set_begin_index(begin)
        if begin is not None or timestep is not None:
            made.step(x, timestep, x)
        for t in made.timesteps if again else ():
            made.step(x, t, x)
        if again:
            made.step(x, 0, x)
        return made

    with pytest.raises(ValueError, match=message):
        use(scheduler)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="solvr"):
        df.DriftfieldScheduler.from_config(LATENT, solvr="heun")
