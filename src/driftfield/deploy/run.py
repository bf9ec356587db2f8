"""From a run to an exported file, with what quantising its weights costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..data.base import Source, alike
from ..denoise.learned import Learned
from ..names import pick
from ..recipe import Recipe
from ..train.held import judged, losses_by_level
from ..train.load import find, load
from .export import Exported, difference, export
from .quantize import Footprint, footprint, quantized

SUFFIX = {"torch": ".pt2", "onnx": ".onnx"}
BITS = {"int8": 8, "int4": 4}


@dataclass(frozen=True)
class Cost:
    """What quantisation changed: bytes of weights before and after, the output, and the held-out loss.

    `error` is the largest difference of the output on random inputs, relative as in `Exported`. The losses, before and
    after, are means over eight noise levels; they are None where the data of the run are not to be had, and `missing`
    says why.
    """

    before: Footprint
    after: Footprint
    error: float
    losses: tuple[float, float] | None
    missing: str = ""


def export_run(
    run: str | Path,
    to: str,
    out: str | Path | None = None,
    *,
    quantize: str | None = None,
    batch: int | None = None,
    opset: int | None = None,
    force: bool = False,
    trust: Sequence[str] = (),
) -> tuple[Exported, Cost | None]:
    """Export the denoiser of `run` `to` "torch" or "onnx"; into the run's folder, unless `out` names a file.

    `quantize` is "int8" or "int4"; its cost is then measured, too. Raises: ValueError, OSError or ImportError with one
    sentence; FileExistsError for a file that is there, unless `force` is given.
    """
    suffix = pick(to, SUFFIX, "format")
    bits = None if quantize is None else pick(quantize, BITS, "kind of weights")
    home = Path(run) if Path(run).is_dir() else Path(run).parent
    path = Path(out) if out is not None else home / f"model{'' if quantize is None else '-' + quantize}{suffix}"
    if path.suffix != suffix:
        raise ValueError(f"a file exported to {to} ends in {suffix}, got {path}")
    find(run)
    if path.exists() and not force:
        raise FileExistsError(f"{path} is already there; choose another --out, or replace it with --force")
    _, denoiser, recipe = load(run, trust)
    if bits is None:
        return export(denoiser, recipe, path, batch=batch, opset=opset), None
    small = quantized(denoiser, bits)
    made = export(small, recipe, path, batch=batch, opset=opset)
    losses, missing = _losses(recipe, denoiser, small)
    error = difference(small, denoiser, recipe)
    return made, Cost(footprint(denoiser), footprint(small), error, losses, missing)


def _losses(recipe: Recipe, before: Learned, after: Learned) -> tuple[tuple[float, float] | None, str]:
    """The held-out losses, or why there are none."""
    try:
        source: Source = recipe.data.load()
    except (ValueError, OSError, ImportError) as error:
        return None, str(error)
    if not alike(source.info, recipe.info):
        return None, "the data are not those that the run was trained on"
    sets, cpu = judged(source, recipe.training.seed, recipe.objective.reference), torch.device("cpu")
    a, b = (losses_by_level(recipe, model, sets, cpu).held_mean for model in (before, after))
    return (a, b), ""
