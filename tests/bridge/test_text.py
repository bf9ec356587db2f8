"""Pictures from words: a pipeline's own result by the matching solver, and everything else on top of it."""

from __future__ import annotations

import pytest
import torch

import driftfield as df
from tests.bridge.common import diffusers, pipeline

F64 = torch.float64
PROMPTS = ["a cat", "dogs at sea"]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return pipeline(tmp_path_factory.mktemp("tokens"))


@pytest.fixture
def latents():
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=F64)


def theirs(pipe, latents, **options):
    """The pipeline's own pictures, as its decoder made them."""
    z = pipe(PROMPTS, latents=latents, output_type="latent", **options).images
    with torch.no_grad():
        return z, pipe.vae.decode(z / pipe.vae.config.scaling_factor, return_dict=False)[0]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("n", [4, 10])
def test_the_pipeline_s_own_pictures_by_ddim(pipe, latents, guidance, n):
    """Same times, same start, same guidance: DDIM is DDIM, to 1e-5 of pictures of about 1."""
    _, wanted = theirs(pipe, latents, num_inference_steps=n, guidance_scale=guidance, negative_prompt=["ugly"] * 2)
    path = torch.cat((pipe.scheduler.timesteps.double() + 1, torch.ones(1, dtype=F64)))
    ours = df.text_to_image(
        pipe, PROMPTS, negative="ugly", solver="ddim", guidance=guidance, grid=path, latents=latents
    )
    assert ours.shape == (2, 3, 16, 16)
    assert ours.nfe == n * (1 if guidance == 1 else 2)
    assert (ours - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("solver", ["deis", "heun", "dpm++2m", "auto"])
def test_the_scheduler_and_the_function_are_one(pipe, latents, solver):
    """The pipeline under DriftfieldScheduler, and ours at twice its evaluations: guidance costs two."""
    kept = pipe.scheduler
    pipe.scheduler = df.DriftfieldScheduler.from_config(kept.config, solver=solver)
    try:
        _, wanted = theirs(pipe, latents, num_inference_steps=9, guidance_scale=3.0)
        ours = df.text_to_image(pipe, PROMPTS, solver=solver, nfe=18, guidance=3.0, latents=latents)
        assert ours.nfe == 2 * len(pipe.scheduler.timesteps) <= 18
    finally:
        pipe.scheduler = kept
    assert (ours - wanted).abs().max() < 1e-5


def test_restart_and_budget(pipe):
    """Any path: Restart by one builder, counted with the guidance; rows do not depend on the batch."""

    def restarted(process, steps, **options):
        return df.restart(df.karras(process, steps, **options), [(3, 1, 0.2, 2.0)], process=process)

    calls = []
    hook = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    try:
        options = {"solver": "heun", "again": df.Heun(), "nfe": 44, "guidance": 3.0, "grid": restarted, "seed": 5}
        both = df.text_to_image(pipe, PROMPTS, **options)
        assert both.nfe == len(calls) <= 44
    finally:
        hook.remove()
    one = df.text_to_image(pipe, PROMPTS, batch=1, **options)
    assert (both - one).abs().max() < 1e-4 * both.std()
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    given = [df.text_to_image(pipe, PROMPTS, latents=x, batch=n, **options) for n in (1, 2)]
    assert (given[0] - given[1]).abs().max() < 1e-4 * both.std()  # of the climbs' noise
    assert (both - df.text_to_image(pipe, PROMPTS, **{**options, "seed": 6})).abs().max() > 1e-3
    assert (both - df.text_to_image(pipe, PROMPTS, **{**options, "s_noise": 0.9})).abs().max() > 1e-4


def test_a_further_guide_wraps_the_guided_denoiser(pipe, latents):
    """A guide that returns 0 shows that it has the last word: the end is the decoded 0."""
    seen = []

    class Zero:
        def __init__(self, inner):
            seen.append(type(inner))

        def __call__(self, x, t, cond=None):
            return torch.zeros_like(x)

    ours = df.text_to_image(pipe, PROMPTS, nfe=5, guide=Zero, latents=latents)
    with torch.no_grad():
        wanted = pipe.vae.decode(torch.zeros_like(latents), return_dict=False)[0]
    torch.testing.assert_close(ours.double(), wanted, rtol=0, atol=1e-5)
    assert seen == [df.CFG]


def test_sizes_and_single_prompts(pipe):
    assert df.text_to_image(pipe, "a cat", nfe=4).shape == (1, 3, 16, 16)
    assert df.text_to_image(pipe, "a cat", nfe=4, size=(24, 16)).shape == (1, 3, 24, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": []}, "at least one prompt"),
        ({"size": (15, 16)}, "multiples of 2 pixels"),
        ({"latents": torch.zeros(1, 4, 8, 8)}, r"shape \(2, 4, 8, 8\), got \(1, 4, 8, 8\)"),
        ({"nfe": 1}, "at least 2, got 1; one estimate of this denoiser costs 2"),
        ({"solver": "ddmi"}, "did you mean 'ddim'"),
    ],
)
def test_bad_requests_are_refused(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        df.text_to_image(pipe, **{"prompt": PROMPTS, **options})


def test_encodings_of_several_parts_are_refused(pipe):
    class Several:
        unet, vae, scheduler = pipe.unet, pipe.vae, pipe.scheduler

        def encode_prompt(self, *told):
            return (torch.zeros(2, 3, 16),) * 4

    with pytest.raises(ValueError, match="more than one tensor"):
        df.text_to_image(Several(), PROMPTS)


def test_image_to_image_pipelines_take_the_scheduler(pipe, latents):
    """StableDiffusionImg2ImgPipeline at half strength: it begins in the middle of the path."""
    more = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    more.set_progress_bar_config(disable=True)
    more.scheduler = df.DriftfieldScheduler.from_config(pipe.scheduler.config, solver="dpm++2m")
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=F64)

    def draw(seed, strength):
        return more(
            PROMPTS,
            image=image,
            strength=strength,
            num_inference_steps=8,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
        ).images

    a, b, c = draw(0, 0.5), draw(0, 0.5), draw(1, 0.5)
    assert torch.equal(a, b)
    assert (a - c).abs().max() > 1e-3
    with torch.no_grad():
        z = more.vae.encode(2 * image - 1).latent_dist.mean * more.vae.config.scaling_factor
    near, far = ((draw(0, s) - z).square().mean() for s in (0.15, 1.0))
    assert near < far
