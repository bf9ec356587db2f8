"""Models of diffusers: their schedules, predictions and outputs as a process and a denoiser."""

from __future__ import annotations

import pytest
import torch

import driftfield as df
from driftfield.adapt.diffusers import training
from tests.bridge.common import LATENT, diffusers, dit, told_unet, unet

F64 = torch.float64
VARIANTS = [
    {},
    LATENT,
    {"beta_schedule": "squaredcos_cap_v2"},
    {"num_train_timesteps": 50, "trained_betas": torch.linspace(0.001, 0.1, 50).tolist()},
]


@pytest.mark.parametrize("config", VARIANTS, ids=lambda c: c.get("beta_schedule", "listed" if c else "linear"))
def test_noised_data_are_those_of_the_scheduler(config, rng):
    """`add_noise` at every timestep, to what its float32 tables are worth."""
    scheduler = diffusers.DDPMScheduler(**config)
    trained = training(scheduler)
    steps = torch.arange(trained.steps)
    x0, eps = (torch.randn(trained.steps, 3, generator=rng, dtype=F64) for _ in range(2))
    t = trained.time(steps.double())
    ours = trained.process.alpha(t)[:, None] * x0 + trained.process.sigma(t)[:, None] * eps
    torch.testing.assert_close(ours, scheduler.add_noise(x0, eps, steps).double(), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(trained.label(t), steps.double(), rtol=0, atol=1e-9)
    assert torch.equal(trained.whole(t + 0.3), steps)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_estimate_is_that_of_the_scheduler(kind, rng):
    """`pred_original_sample` of DDIM at the same state and timestep."""
    model, scheduler = unet(), diffusers.DDIMScheduler(prediction_type=kind, clip_sample=False)
    process, denoiser = df.from_diffusers(model, scheduler)
    scheduler.set_timesteps(10)
    x = torch.randn(2, 3, 8, 8, generator=rng, dtype=F64)
    for step in (0, 300, 900):
        wanted = scheduler.step(model(x, step).sample, step, x).pred_original_sample
        y = denoiser(x, torch.tensor(step + 1.0, dtype=F64))
        torch.testing.assert_close(y, wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())
    assert process.span == (1.0, 1000.0)


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("n", [5, 20])
def test_ddim_is_ddim(n, final, rng):
    """Same times, same start: agreement to 1e-5 of the data's scale, and Euler on levels is the same method."""
    model, scheduler = unet(), diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=final, steps_offset=1)
    process, denoiser = df.from_diffusers(model, scheduler)
    scheduler.set_timesteps(n)
    x = start = torch.randn(2, 3, 8, 8, generator=rng, dtype=F64)
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, t).sample, t, x).prev_sample
    path = torch.cat((scheduler.timesteps.double() + 1, torch.tensor([0.0 if final else 1.0], dtype=F64)))
    ours = df.sample(df.Reverse(process, denoiser), start, path, df.DDIM(), rng)
    scale = x.abs().max().item()
    assert (ours - x).abs().max() < 1e-5 * scale
    levels = df.EDM(span=(0.005, 160.0))
    field = df.Reverse(levels, df.AtLevel(denoiser, process, levels))
    top, end = process.alpha(path[0]), process.alpha(path[-1])
    moved = end * df.sample(field, start / top, process.level(path), df.Euler(), rng)
    assert (moved - ours).abs().max() < 1e-9 * scale


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers, with numpy 2
@pytest.mark.parametrize("order", [1, 2, 3])
def test_dpm_solver_pp_agrees_where_the_definitions_do(order, rng):
    """At order 1 the whole path, to 1e-5. Above it theirs approximates the integrals that ours takes exactly, so what
    coincides is the first step, which has no history."""
    model = unet()
    theirs = diffusers.DPMSolverMultistepScheduler(solver_order=order, final_sigmas_type="sigma_min")
    theirs.set_timesteps(20)
    process, denoiser = df.from_diffusers(model, theirs)
    x = start = torch.randn(2, 3, 8, 8, generator=rng, dtype=F64)
    path = torch.cat((theirs.timesteps.double() + 1, torch.ones(1, dtype=F64)))
    walk = df.integrate(df.Reverse(process, denoiser), start, path, df.DPMSolverPP(order), rng)
    next(walk)
    for k, (t, (_, ours)) in enumerate(zip(theirs.timesteps, walk, strict=True)):
        x = theirs.step(model(x, t).sample, t, x).prev_sample
        if order == 1 or k == 0:
            assert (ours - x).abs().max() < 1e-5 * x.abs().max()


def test_flow_matching_is_the_straight_path(rng):
    """Euler on given times is the Euler of FlowMatchEulerDiscreteScheduler; the label counts to 1000."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(8)
    model = unet()
    process, denoiser = df.from_diffusers(model, scheduler)
    x = start = torch.randn(2, 3, 8, 8, generator=rng, dtype=F64)
    for t in scheduler.timesteps:
        x = scheduler.step(model(x.double(), t).sample, t, x).prev_sample
    ours = df.sample(df.Reverse(process, denoiser), start, scheduler.sigmas.double(), df.Euler(), rng)
    assert isinstance(process, df.Rectified)
    assert (ours - x).abs().max() < 1e-5 * x.abs().max()


@pytest.mark.parametrize(
    "told",
    [
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000},
        {"prediction_type": "flow_prediction", "beta_schedule": "linear"},
        {"use_flow_sigmas": True, "beta_schedule": "linear"},
        {"shift": 3.0},
    ],
)
def test_flow_matching_is_recognised(told):
    assert training(told).flow


def test_conditions_reach_the_model_by_name(rng):
    told, trained = told_unet(), diffusers.DDIMScheduler(**LATENT)
    process, denoiser = df.from_diffusers(told, trained)
    x, text = torch.randn(3, 4, 8, 8, generator=rng, dtype=F64), torch.randn(3, 5, 16, generator=rng, dtype=F64)
    t = torch.tensor(500.0, dtype=F64)
    torch.testing.assert_close(denoiser(x, t, text), denoiser(x, t, {"encoder_hidden_states": text}))
    shared = denoiser(x, t, text[:1])
    torch.testing.assert_close(shared, denoiser(x, t, text[:1].expand(3, -1, -1)))
    assert (shared - denoiser(x, t, text)).abs().max() > 1e-6
    for cond in (text, {"encoder_hidden_states": text}):  # both are split with the batch
        drawn = [df.generate(process, denoiser, (3, 4, 8, 8), cond=cond, nfe=3, batch=b, dtype=F64) for b in (1, 3)]
        assert (drawn[0] - drawn[1]).abs().max() < 1e-8 * drawn[0].abs().max()


def test_learned_variances_are_dropped(rng):
    """DiT and U-Nets with twice the channels: the first half is the prediction."""
    x, t = torch.randn(2, 4, 8, 8, generator=rng, dtype=F64), torch.tensor(401.0, dtype=F64)
    model, classes = dit(), torch.tensor([1, 4])
    process, denoiser = df.from_diffusers(model, diffusers.DDIMScheduler())
    eps = model(x, timestep=torch.tensor([400.0, 400.0], dtype=F64), class_labels=classes).sample[:, :4]
    torch.testing.assert_close(process.eps(x, t, denoiser(x, t, classes)), eps, rtol=1e-9, atol=1e-9)
    wide = unet(out=6)
    process, denoiser = df.from_diffusers(wide, diffusers.DDPMScheduler(variance_type="learned_range"))
    assert denoiser(x[:, :3], t).shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"returned shape \(2, 5, 8, 8\)"):
        df.from_diffusers(unet(out=5), diffusers.DDPMScheduler())[1](x[:, :3], t)


def test_whole_labels(rng):
    """With `whole` a model is asked at the nearest step: the same as at that step, in noise."""
    _, whole = df.from_diffusers(unet(), diffusers.DDIMScheduler(prediction_type="sample"), whole=True)
    _, between = df.from_diffusers(unet(), diffusers.DDIMScheduler(prediction_type="sample"))
    x = torch.randn(2, 3, 8, 8, generator=rng, dtype=F64)
    at = lambda denoiser, t: denoiser(x, torch.tensor(t, dtype=F64))
    torch.testing.assert_close(at(whole, 300.4), at(between, 300.0))
    assert (at(between, 300.4) - at(between, 300.0)).abs().max() > 1e-9


def test_no_signal_at_the_end_is_as_good_as_none(rng):
    """Betas rescaled to end without signal: the last level is finite, and changes what is read from v by 1e-4."""
    for config in VARIANTS[:3]:
        scheduler = diffusers.DDIMScheduler(**config, rescale_betas_zero_snr=True, prediction_type="v_prediction")
        process, denoiser = df.from_diffusers(unet(), scheduler)
        assert scheduler.alphas_cumprod[-1] == 0
        assert 0 < process.alpha(torch.tensor(1000.0, dtype=F64)) < 3e-4
        x = torch.randn(2, 3, 8, 8, generator=rng, dtype=F64)
        out = unet()(x, 999).sample
        wanted = -out  # alpha x - sigma v with alpha 0
        y = denoiser(x, torch.tensor(1000.0, dtype=F64))
        assert (y - wanted).abs().max() < 3e-4 * x.abs().max()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"prediction_type": "velocity", "beta_schedule": "linear"}, "unknown prediction_type 'velocity'"),
        ({"beta_schedule": "lines"}, "knows no beta_schedule 'lines'"),
        ({"_class_name": "EDMEulerScheduler", "sigma_data": 0.5}, "EDMEulerScheduler has no betas"),
        ({"sigma_max": 1348}, "has no betas"),
    ],
)
def test_other_configurations_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        training(config)
