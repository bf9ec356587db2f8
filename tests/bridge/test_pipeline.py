"""A Driftfield denoiser as a diffusers pipeline: the laws of its samples, on processes that diffusers does not know."""

from __future__ import annotations

import pytest
import torch

import driftfield as df
from tests.bridge.common import diffusers

DATA = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("process", [df.EDM(), df.VP(), df.PFGMPP(D=4.0), df.PFGMPP(D=128.0), df.Rectified()], ids=str)
def test_samples_are_of_the_data(process):
    """With the exact denoiser of six data every sample is one of them; and all are found among 60."""
    pipe = df.to_diffusers(process, df.Empirical(process, DATA), (1, 4, 4))
    pipe.set_progress_bar_config(disable=True)
    out = pipe(60, torch.Generator().manual_seed(1), 31, output_type="latent").images
    gap = (out[:, None] - DATA).flatten(2).norm(dim=2)
    assert gap.min(1).values.max() < 1e-2
    assert len(set(gap.argmin(1).tolist())) == 6


def test_it_is_generate():
    """Same prior draws, same path, same solver: the samples of `generate`'s field."""
    process, denoiser = df.EDM(), df.Normal(df.EDM(), 0.2, 0.5)
    pipe = df.to_diffusers(process, denoiser, (3, 4, 4), solver="dpm++2m", grid="geometric")
    pipe.set_progress_bar_config(disable=True)
    out = pipe(5, torch.Generator().manual_seed(7), 12, output_type="latent").images
    x = process.prior((5, 3, 4, 4), torch.Generator().manual_seed(7))
    route = df.plan(process, solver="dpm++2m", nfe=12, grid="geometric")
    here = df.sample(df.Reverse(process, denoiser), x, route.path, route.solver, torch.Generator())
    assert (out - here).abs().max() < 1e-5


def test_pictures_and_conditions():
    process = df.VP()
    net = df.Preconditioned(df.UNet((3, 8, 8), width=8, multipliers=(1, 1), classes=4), process)
    pipe = df.to_diffusers(process, net, (3, 8, 8), solver="deis", restarts=[(3, 1, 0.2, 2.0)])
    pipe.set_progress_bar_config(disable=True)
    out = pipe(2, [torch.Generator().manual_seed(k) for k in range(2)], 12, class_labels=torch.tensor([0, 3]))
    assert [image.size for image in out.images] == [(8, 8)] * 2
    (array,) = pipe(2, None, 12, output_type="np", return_dict=False)
    assert array.shape == (2, 8, 8, 3)
    assert 0 <= array.min() <= array.max() <= 1
    assert isinstance(pipe, diffusers.DiffusionPipeline)
    pipe.scheduler = df.DriftfieldScheduler.from_config(pipe.scheduler.config, solver="heun", restarts=[])
    assert type(pipe.scheduler.process) is df.VP
    assert pipe(1, None, 5, output_type="np").images.shape == (1, 8, 8, 3)
