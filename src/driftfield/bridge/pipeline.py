"""A Driftfield denoiser as a pipeline of the diffusers library."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ..adapt.diffusers import MISSING
from ..denoise.base import Denoiser
from ..plain import to_plain
from ..process.base import Isotropic
from ..rng import Rng
from .scheduler import DriftfieldScheduler

try:
    from diffusers import DiffusionPipeline
    from diffusers.image_processor import VaeImageProcessor
    from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
except ImportError:
    raise ImportError(MISSING) from None


class DenoiserModel(nn.Module):
    """A denoiser with the signature of a diffusers U-Net, which predicts data; its timesteps are the process's times.

    `config` holds `sample_size` and `in_channels`, as pipelines ask for them.
    """

    def __init__(self, denoiser: Denoiser, shape: Sequence[int]):
        """`shape` is that of one sample, `(C, *grid)`."""
        super().__init__()
        self.denoiser, self.shape = denoiser, tuple(shape)
        self.config = SimpleNamespace(in_channels=shape[0], out_channels=shape[0], sample_size=tuple(shape[1:]))
        self.register_buffer("_place", torch.zeros(()), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters(), self._place).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters(), self._place).dtype

    _place: Tensor

    def forward(
        self, sample: Tensor, timestep: Tensor | float, class_labels: Any = None, return_dict: bool = True
    ) -> Any:
        """The estimate of the data behind `sample` `(B, *shape)` at `timestep`, `()` or `(B,)`, as its `sample`."""
        t = torch.as_tensor(timestep, dtype=torch.float64) if not isinstance(timestep, Tensor) else timestep
        y = self.denoiser(sample, t, class_labels)
        return SimpleNamespace(sample=y) if return_dict else (y,)


class DriftfieldPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Samples of a Driftfield denoiser in the manner of diffusers: `pipe(batch_size=4, num_inference_steps=20).images`.

    Made by `to_diffusers`. Its scheduler is a `DriftfieldScheduler`, which `from_config` remakes with another solver.
    """

    def __init__(self, unet: DenoiserModel, scheduler: DriftfieldScheduler):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: Rng | None = None,
        num_inference_steps: int = 20,
        class_labels: Any = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Draw `batch_size` samples in at most `num_inference_steps` evaluations of the denoiser.

        `generator` is one, or one for each sample. `output_type` is "pil", "np" or "pt" for pictures in [0, 1], made of
        data in [-1, 1], or "latent" for the data as they are, `(B, *shape)`.
        """
        unet, scheduler = self.unet, self.scheduler
        scheduler.set_timesteps(num_inference_steps, device=unet.device)
        source = torch.default_generator if generator is None else generator
        x = scheduler.process.prior((batch_size, *unet.shape), source).to(unet.device)
        for t in self.progress_bar(scheduler.timesteps):
            y = unet(x, t, class_labels).sample
            x = scheduler.step(y, t, x, generator=generator).prev_sample
        images = VaeImageProcessor().postprocess(x, output_type=output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)


def to_diffusers(
    process: Isotropic,
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    solver: str = "heun",
    grid: str = "natural",
    restarts: Sequence[Sequence[float]] = (),
) -> DriftfieldPipeline:
    """A process and its denoiser as a diffusers pipeline of samples of `shape`, `(C, *grid)`.

    `solver`, `grid` and `restarts` are those of `DriftfieldScheduler`. Raises: ImportError without diffusers.
    """
    scheduler = DriftfieldScheduler(process=to_plain(process), solver=solver, grid=grid, restarts=list(restarts))
    return DriftfieldPipeline(DenoiserModel(denoiser, shape), scheduler)
