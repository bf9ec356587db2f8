"""The scales of data beside the noise that is proposed for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..data.spacing import QUANTILES
from ..train.propose import Proposal
from .style import FAINT, INK, MARKERS, RUNS, blank, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def scales(proposal: Proposal) -> Figure:
    """Distances between items above, the levels that training draws below, over one axis of levels in model units.

    The shaded band is the proposed span of the noise, the dashed line `sigma_data`. Distances of copies, which are 0,
    have no place on the axis.
    """
    with styled():
        figure, (above, below) = blank(4.0, lines=2, share=True)
        gaps, (low, high), times = proposal.facts.spacing, proposal.span, proposal.times
        for values, name, colour, marker in (
            (gaps.nearest, "to the nearest item", RUNS[0], MARKERS[0]),
            (gaps.pairwise, "between any two", RUNS[1], MARKERS[1]),
        ):
            pairs = [(v, q) for v, q in zip(values, QUANTILES, strict=True) if v > 0]
            above.plot(*zip(*pairs, strict=True), color=colour, marker=marker, label=name)
        least = min([low, *(v for v in gaps.nearest if v > 0)])
        level = np.geomspace(least / 3, high * 3, 400)
        score = (np.log(level) - times.mean) / times.std
        below.fill_between(level, np.exp(-(score**2) / 2), color=RUNS[2], alpha=0.35, linewidth=0)
        below.plot(level, np.exp(-(score**2) / 2), color=RUNS[2], label="law of the training levels")
        for axes in (above, below):
            axes.axvspan(low, high, color=FAINT, alpha=0.35, linewidth=0, zorder=0, label="span of the noise")
            axes.axvline(proposal.sigma_data, color=INK, linestyle=(0, (5, 2)), linewidth=1, label="sigma_data")
            axes.set_xscale("log")
            axes.set_ylim(0, 1.08)
        above.set_ylabel("share below")
        below.set_ylabel("training levels\n(peak = 1)")
        below.set_xlabel("distance, or level of the noise (model units)")
        handles = {
            name: h for axes in (above, below) for h, name in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=2)
        return figure
