"""Every score of a sample against a reference, with the record that lets somebody else repeat it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from torch import Tensor

from ..rng import seeded
from .features import Features, features
from .frechet import frechet
from .kid import kid
from .nearest import nearest_ratio
from .wasserstein import sliced_wasserstein


@dataclass(frozen=True)
class Scores:
    """Distances of a sample from a reference, and how they were taken. Each is 0, or near it, for the law itself.

    `frechet` is in squared units of a feature, `kid` is a squared discrepancy, `sliced` is in units of a feature;
    `kid_error` and `sliced_error` are one standard error, over samples and over directions. `nearest` is a ratio of
    distances, None where no training set was given. `frechet` and `sliced` have a floor that falls with the sample
    size: compare only values whose record agrees.

    The record: the features' name, numbers of samples, of reference and of training points, which split the reference
    is, the seed and number of the directions, the seed of the samples where it is known, and driftfield's version.
    """

    frechet: float
    kid: float
    kid_error: float
    sliced: float
    sliced_error: float
    nearest: float | None
    features: str
    n: int
    n_reference: int
    n_train: int | None
    split: str
    seed: int
    projections: int
    sample_seed: int | None
    version: str

    def as_dict(self) -> dict[str, float | int | str | None]:
        """All fields by name, as plain values that JSON keeps."""
        return asdict(self)

    def __str__(self) -> str:
        """A short table, errors as +-, and the record in its last lines."""
        lines = [
            f"frechet  {self.frechet:.6g}",
            f"kid      {self.kid:.6g} +- {self.kid_error:.2g}",
            f"sliced   {self.sliced:.6g} +- {self.sliced_error:.2g}",
        ]
        if self.nearest is not None:
            lines.append(f"nearest  {self.nearest:.6g} (against {self.n_train} training points)")
        drawn = "unknown" if self.sample_seed is None else self.sample_seed
        lines.append(f"{self.features} features of {self.n} samples (seed {drawn})")
        lines.append(f"against {self.n_reference} of the {self.split} split")
        lines.append(f"{self.projections} directions (seed {self.seed}), driftfield {self.version}")
        return "\n".join(lines)


def evaluate(
    samples: Tensor | np.ndarray,
    reference: Tensor | np.ndarray,
    *,
    features: str | Features | Callable[[Tensor], Tensor] = "raw",
    train: Tensor | np.ndarray | None = None,
    held: Tensor | np.ndarray | None = None,
    split: str = "held-out",
    seed: int = 0,
    projections: int = 256,
    sample_seed: int | None = None,
) -> Scores:
    """The scores of `samples` against `reference`, on the same features of both.

    Shapes: all sets are `(n, *shape)`, of floating type, in the same units, at least 4 rows each (1 for `train`).
            They are compared on the device of `samples`, in float64 (features in their network's own type).
    `train`: the training set, where the nearest-training-point ratio is wanted, and `held`, data kept from training
             to compare with; the reference itself where it is held out and `held` is not given.
    `split`: what the reference is, in words; `sample_seed`: what the samples were drawn with. Both only recorded.
    `seed`: of the sliced distance's directions, `projections` of them.
    Raises: ValueError for shapes that differ, too few rows, values that are not finite (naming how many), unknown
            features; TypeError for what is not an array of floats.
    """
    extract = _named(features)
    x = _array(samples, "samples", 4)
    y = _array(reference, "reference", 4).to(x.device)
    z = None if train is None else _array(train, "train", 1).to(x.device)
    h = y if held is None else _array(held, "held", 1).to(x.device)
    for name, other in (("reference", y), ("train", z), ("held", h)):
        if other is not None and other.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"samples are of shape {tuple(x.shape[1:])} but the {name} set of {tuple(other.shape[1:])}; "
                "give both in the same shape"
            )
    a, b = extract(x), extract(y)
    distance, error = kid(a, b)
    sliced, sliced_error = sliced_wasserstein(a, b, seeded(seed), projections)
    return Scores(
        frechet=frechet(a, b),
        kid=distance,
        kid_error=error,
        sliced=sliced,
        sliced_error=sliced_error,
        nearest=None if z is None else nearest_ratio(a, extract(z), b if held is None else extract(h)),
        features=extract.name,
        n=len(x),
        n_reference=len(y),
        n_train=None if z is None else len(z),
        split=split,
        seed=seed,
        projections=projections,
        sample_seed=sample_seed,
        version=_version(),
    )


_named = features  # the keyword of `evaluate` hides the function


def _array(x: Tensor | np.ndarray, name: str, least: int) -> Tensor:
    """`x` as a tensor of finite floats with at least `least` rows."""
    if not isinstance(x, Tensor | np.ndarray):
        raise TypeError(f"{name} should be a tensor or an array, got {type(x).__name__}")
    x = torch.as_tensor(x).detach()
    if not x.is_floating_point():
        raise TypeError(f"{name} should be floats in the model's units, got {x.dtype}; convert both sets alike")
    if x.ndim < 2 or len(x) < least or not x[0].numel():
        raise ValueError(f"{name} should have shape (n, *shape) with n at least {least}, got {tuple(x.shape)}")
    bad = ~x.isfinite()
    if bool(bad.any()):
        hit = int(bad.flatten(1).any(1).sum())
        raise ValueError(
            f"{name} should be finite, but {int(bad.sum())} values in {hit} of {len(x)} rows are NaN or infinite; "
            "find out where they come from before scoring"
        )
    return x


def _version() -> str:
    try:
        return version("driftfield")
    except PackageNotFoundError:
        return "not installed"  # a copy of the sources: the record says so
