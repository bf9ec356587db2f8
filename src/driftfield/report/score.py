"""Scores of a run: its samples against the data it was trained on or kept from."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..data.base import Source
from ..generation import generate
from ..metric.evaluate import Scores, evaluate
from ..names import pick
from ..train.load import load
from .device import device_named


def score(
    run: str | Path,
    *,
    n: int = 1000,
    features: str = "raw",
    split: str = "held-out",
    seed: int = 0,
    nfe: int | None = None,
    solver: str | None = None,
    grid: str | None = None,
    data: str | None = None,
    batch: int = 256,
    device: str | None = None,
    progress: bool = False,
) -> tuple[Scores, int]:
    """Draw `n` samples of `run` and score them against a split of its data; the scores, and evaluations per sample.

    `split` is "held-out" or "train". Where the model has classes they are drawn in the proportions of the reference.
    `data` replaces the path or name of the data where they have moved. Raises: ValueError or OSError.
    """
    process, denoiser, recipe = load(run)
    info = recipe.info
    assert info is not None
    if data is None:
        source = recipe.data.load()
    else:
        from ..data.recognise import find

        source = find(data).load()
    if tuple(source.info.shape) != tuple(info.shape):
        raise ValueError(f"the data are of shape {source.info.shape}, the model's samples of {info.shape}")
    reference, labels = _split(source, split)
    where = device_named(device)
    cond = None if labels is None or not info.classes else labels[torch.arange(n) % len(labels)].to(where)
    how = recipe.sampling
    samples = generate(
        process,
        denoiser.to(where),
        (n, *info.shape),
        solver=solver or how.solver,
        nfe=nfe or how.nfe,
        grid=grid or how.grid,
        seed=seed,
        cond=cond,
        batch=batch,
        device=where,
        progress=progress,
    )
    spent: int = samples.nfe  # type: ignore[attr-defined]
    if info.kind == "image":  # a picture has 8 bits: score what a person would be shown
        samples = info.to_model(info.to_user(samples))
    train, held = source.train()[0], source.held()[0]
    finite = info.count > 0
    scores = evaluate(
        samples,
        reference,
        features=features,
        train=train if finite else None,
        held=held if finite else None,
        split=split,
        sample_seed=seed,
    )
    return scores, spent


def _split(source: Source, name: str) -> tuple[Tensor, Tensor | None]:
    return pick(name, {"held-out": source.held, "train": source.train}, "split")()
