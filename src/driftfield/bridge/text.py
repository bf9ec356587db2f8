"""Pictures from words, by somebody's latent pipeline and any solver, path and guidance of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..adapt.diffusers import from_diffusers
from ..denoise.base import Denoiser, evaluations
from ..field.reverse import Reverse
from ..generation import Builder, generate, plan
from ..guide.cfg import CFG
from ..rng import rows
from ..solve.base import Solver, sample


@torch.no_grad()
def text_to_image(
    pipe: Any,
    prompt: str | Sequence[str],
    *,
    negative: str = "",
    solver: str | Solver = "dpm++2m",
    nfe: int | None = None,
    guidance: float = 7.5,
    seed: int = 0,
    grid: str | Builder | Tensor = "natural",
    again: Solver | None = None,
    s_noise: float = 1.0,
    guide: Callable[[Denoiser], Denoiser] | None = None,
    size: tuple[int, int] | None = None,
    latents: Tensor | None = None,
    batch: int = 4,
    progress: bool = False,
) -> Tensor:
    """Pictures `(n, channels, height, width)` of `n` prompts, in [-1, 1] but for what the decoder overshoots.

    `pipe` is a Stable Diffusion pipeline of diffusers, or what has the same `unet`, `vae`, `scheduler` and
    `encode_prompt`; of its scheduler only the configuration is read. `guidance` 1 is without classifier-free guidance;
    above it, towards the prompt and away from `negative`, at two evaluations of the U-Net an estimate. At most `nfe`
    are spent for each picture (40 unless given; a path given as `grid` is walked whole); the result's attribute `nfe`
    says how many. Picture `i` draws from `(seed, i)` alone. `grid`, `again` and `s_noise` are those of `generate`: a
    builder that ends in `restart` samples with Restart. `guide` wraps the guided denoiser in one more. `size` is
    `(height, width)` in pixels, the model's own unless given; `latents` are states at the path's first time to begin
    with, `(n, C, h, w)`.
    Raises: ValueError for no prompt, a size that the decoder cannot make, latents of another shape, and a pipeline
            whose prompts are encoded as more than one tensor (SDXL).
    Source: Rombach et al. 2022; Ho and Salimans 2022. [rombach2022latent] [ho2022guidance]
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise ValueError("give at least one prompt")
    unet, device = pipe.unet, next(pipe.unet.parameters()).device
    told, null = _encoded(pipe, prompts, negative, device, guidance != 1)
    process, denoiser = from_diffusers(unet, pipe.scheduler)
    guided: Denoiser = CFG(denoiser, guidance, null)
    guided = guided if guide is None else guide(guided)
    shape = (len(prompts), unet.config.in_channels, *_latent_size(pipe, size))
    nfe = 40 if nfe is None and not isinstance(grid, Tensor) else nfe
    if latents is None:
        z = generate(
            process,
            guided,
            shape,
            solver=solver,
            nfe=nfe,
            seed=seed,
            cond=told,
            grid=grid,
            again=again,
            s_noise=s_noise,
            batch=batch,
            device=device,
            progress=progress,
        )
        spent = z.nfe  # type: ignore[attr-defined]
    else:
        if tuple(latents.shape) != shape:
            raise ValueError(f"latents should have shape {shape}, got {tuple(latents.shape)}")
        each = evaluations(guided)
        route = plan(process, solver=solver, nfe=nfe, grid=grid, again=again, each=each, shape=shape[1:])
        parts = []
        for i in range(0, len(prompts), batch):
            j = min(i + batch, len(prompts))
            field = Reverse(process, guided, told[i:j], s_noise)
            rng = rows(seed, i, j, device)
            parts.append(sample(field, latents[i:j].to(device), route.path, route.solver, rng, route.again))
        z, spent = torch.cat(parts), route.nfe * each
    images = torch.cat([_decoded(pipe.vae, part.to(device)) for part in torch.split(z, batch)])
    images.nfe = spent  # type: ignore[attr-defined]
    return images


def _encoded(
    pipe: Any, prompts: list[str], negative: str, device: torch.device, guided: bool
) -> tuple[Tensor, Tensor | None]:
    """The prompts `(n, L, C)`, and the one to turn away from, `(1, L, C)`, where there is guidance."""
    parts = pipe.encode_prompt(prompts, device, 1, False)
    null = pipe.encode_prompt([negative], device, 1, False)[0] if guided else None
    if sum(part is not None for part in parts) != 1:
        raise ValueError(
            f"{type(pipe).__name__} encodes a prompt as more than one tensor, which this does not read; wrap its model "
            "by from_diffusers and give its denoiser the encodings by name, in a mapping"
        )
    told: Tensor = parts[0]
    return told, null


def _latent_size(pipe: Any, size: tuple[int, int] | None) -> tuple[int, int]:
    factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    if size is None:
        own = pipe.unet.config.sample_size
        return (own, own) if isinstance(own, int) else (int(own[0]), int(own[1]))
    if len(size) != 2 or any(v < factor or v % factor for v in size):
        raise ValueError(f"size is (height, width) in multiples of {factor} pixels, got {size}")
    return size[0] // factor, size[1] // factor


def _decoded(vae: Any, z: Tensor) -> Tensor:
    shift = getattr(vae.config, "shift_factor", None)  # None, or absent, in the older autoencoders
    z = z / vae.config.scaling_factor + (0.0 if shift is None else shift)
    images: Tensor = vae.decode(z.to(next(vae.parameters()).dtype), return_dict=False)[0]
    return images.float().cpu()
