"""Handwritten digits by PFGM as it was published: the normalised field of a large batch."""

from __future__ import annotations

from dataclasses import replace

from ..objective.poisson import PoissonField
from ..recipe import Recipe, Sampling
from .digits import digits


def pfgm() -> Recipe:
    """PFGM on the digits, for a network and a budget like those of `digits`; scores are in docs/benchmarks.md.

    `driftfield train digits --process PFGM` trains the same process by its perturbation kernel, as PFGM++ at D = 1.
    """
    return replace(digits(), objective=PoissonField(), sampling=Sampling(grid="geometric"))
