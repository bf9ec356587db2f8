"""The phases of a data set, as a proposal would train on it."""

from __future__ import annotations

import numpy as np

from ..data.base import Source
from ..data.spacing import QUANTILES
from ..objective.phases import Phases, phases
from ..process.poisson import PFGMPP
from ..rng import permutation, seeded
from .propose import Proposal

LEVELS = 20
_MOST = 2**26  # numbers that are looked at
_CLOSE = 20  # at a twentieth of the distance to the nearest item no two could have made the same noisy sample
_SUBSET = 0x50484153  # the stream that chooses which items are looked at


def measured(source: Source, proposal: Proposal) -> Phases:
    """The phases of the training split, without its classes, over the levels of the proposal that matter.

    Raises: ValueError where values are missing.
    """
    if source.info.incomplete:
        raise ValueError("phases need data without missing values; fill or remove these first")
    x, _ = source.train()
    most = _MOST // x[0].numel()
    if len(x) > most:
        x = x[permutation(len(x), seeded(0, _SUBSET))[:most]]
    (low, high), nearest = proposal.span, proposal.facts.spacing.nearest[QUANTILES.index(0.05)]
    levels = np.geomspace(min(max(low, nearest / _CLOSE), high / 2), high, LEVELS)
    return phases(PFGMPP(D=proposal.D, span=proposal.span), x, levels.tolist())


def helps(found: Phases, proposal: Proposal) -> dict[int, float]:
    """The share of the proposed training times at which a reference helps, by its size."""
    process = PFGMPP(D=proposal.D, span=proposal.span)
    return {size: found.share(process, proposal.times, size) for size in found.sizes}
