"""Classifier-free guidance: one denoiser asked twice, with the condition and without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..denoise.base import Denoiser, evaluations


@dataclass(frozen=True, eq=False)
class CFG:
    """A denoiser pushed towards its condition: `y_null + scale (y_cond - y_null)`.

    `scale` 1 is the condition alone, 0 none, above 1 more than the model was trained for; `null_cond` is what the
    model takes for no condition. Noise estimates and data estimates combine alike, being in line at one state. Each
    estimate costs two evaluations, or one where `scale` is 0 or 1. On a process with noise that is not Gaussian it is
    a heuristic: there the scores that would be combined do not follow from the estimates.
    Source: Ho and Salimans 2022, Eq. 6, with `scale = 1 + w`. [ho2022guidance]
    """

    denoiser: Denoiser
    scale: float
    null_cond: Any = None

    @property
    def evaluations(self) -> int:
        """Calls of the model for one estimate."""
        return evaluations(self.denoiser) * (1 if self.scale in (0, 1) else 2)

    def __call__(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        if self.scale == 0:
            return self.denoiser(x, t, self.null_cond)
        y = self.denoiser(x, t, cond)
        if self.scale == 1:
            return y
        null = self.denoiser(x, t, self.null_cond)
        return null + self.scale * (y - null)
