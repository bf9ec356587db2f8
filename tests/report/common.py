"""Runs small enough to report on many times: trained for a few steps, which is all that a page needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from driftfield.train.fit import fit
from driftfield.train.load import store

from ..train.common import TINY

UNET = ["network.width=8", "network.multipliers=1,2", "network.attention=()", "training.batch=16"]
MLP = ["network.width=16", "training.batch=16"]


def trained(data, folder: Path, settings=(), process=None) -> Path:
    """The folder of a run of six steps, judged twice."""
    often = ["training.held_every=3", "training.snapshots=0"]
    fit(data, steps=6, folder=folder, settings=[*settings, *often], process=process, device="cpu", progress=False)
    return folder


def untrained(folder: Path, nfe: int | None = None) -> Path:
    """The weights in `folder` of a network that has learned nothing, which draws as well as any."""
    path = folder / "model.safetensors"
    recipe = TINY.resolved(TINY.data.load().info)
    if nfe is not None:
        recipe = replace(recipe, sampling=replace(recipe.sampling, nfe=nfe))
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        store(path, recipe.denoiser(), recipe)
    return path


def vectors(folder: Path) -> Path:
    """A file of 60 vectors of 5 numbers."""
    path = folder / "vectors.npy"
    np.save(path, 3 + 2 * np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32))
    return path
