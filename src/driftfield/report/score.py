"""Scores of a run: its samples against the data it was trained on or kept from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch import Tensor

from ..data.base import Data, Source
from ..data.recognise import find
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
    trust: Sequence[str] = (),
    progress: bool = False,
) -> tuple[Scores, int]:
    """Draw `n` samples of `run` and score them against a split of its data; the scores, and evaluations per sample.

    `split` is "held-out" or "train". Where the model has classes they are drawn in the proportions of the reference.
    `data` is where the same data are now, if they have moved. Raises: ValueError or OSError.
    """
    _, denoiser, recipe = load(run, trust)
    info = recipe.info
    assert info is not None
    source = (recipe.data if data is None else _moved(recipe.data, data)).load()
    if source.info != info:
        raise ValueError(
            f"these are not the data that {run} was trained on, so their splits would not match; "
            "train anew, or give the data as they were with --data"
        )
    reference, labels = _split(source, split)
    where = device_named(device)
    cond = None if labels is None or not info.classes else labels[torch.arange(n) % len(labels)].to(where)
    samples = recipe.sample(
        denoiser.to(where),
        n,
        solver=solver,
        nfe=nfe,
        grid=grid,
        seed=seed,
        cond=cond,
        batch=batch,
        device=where,
        progress=progress,
    )
    spent: int = samples.nfe  # type: ignore[attr-defined]
    if info.kind == "image":  # a picture has 8 bits: score what a person would be shown
        samples = info.to_model(info.to_user(samples))
    train, held = (source.train()[0], source.held()[0]) if info.count else (None, None)
    scores = evaluate(samples, reference, features=features, train=train, held=held, split=split, sample_seed=seed)
    return scores, spent


def _moved(data: Data, path: str) -> Data:
    """The same data at another path, read with the same settings."""
    found = find(path)
    if type(found) is type(data) and any(f.name == "path" for f in fields(data)):  # type: ignore[arg-type]
        return replace(data, path=found.path)  # type: ignore[type-var, attr-defined]
    return found


def _split(source: Source, name: str) -> tuple[Tensor, Tensor | None]:
    return pick(name, {"held-out": source.held, "train": source.train}, "split")()
