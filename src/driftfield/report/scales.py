"""The scales of data beside the noise that is proposed for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..data.spacing import QUANTILES
from ..objective.phases import Phases
from ..train.propose import Proposal
from .style import DASHES, FAINT, INK, MARKERS, RUNS, blank, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEAST = 1e-14  # of the largest variance, that is drawn


def scales(proposal: Proposal, phases: Phases | None = None) -> Figure:
    """Distances between items above, the levels that training draws below, over one axis of levels in model units.

    The shaded band is the proposed span of the noise, the dashed line `sigma_data`. Distances of copies, which are 0,
    have no place on the axis. The variances of training targets, with the second of their `phases` shaded, come last.
    """
    with styled():
        figure, (above, below, *more) = blank(
            4.0 if phases is None else 5.8, lines=2 + (phases is not None), share=True
        )
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
        if phases is not None:
            _variances(more[0], phases)
        (more or [below])[-1].set_xlabel("distance, or level of the noise (model units)")
        handles = {
            name: h for axes in (above, below, *more) for h, name in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=2)
        return figure


def _variances(axes: Axes, found: Phases) -> None:
    """Variances of the target by level, that of one datum with two standard errors, and the three phases."""
    level, single, error = (np.array(v) for v in (found.levels, found.single, found.single_error))
    least = max(_LEAST * single.max(), 0.1 * single[single > 0].min(initial=single.max()))
    axes.plot(level, single, color=RUNS[3], marker=MARKERS[3], label="V_DSM, of one datum")
    axes.fill_between(level, np.maximum(single - 2 * error, least), single + 2 * error, color=RUNS[3], alpha=0.25, lw=0)
    for i, (size, variance) in enumerate(zip(found.sizes, found.stable, strict=True)):
        axes.plot(level, variance, color=RUNS[3], linestyle=DASHES[1 + i % 3], label=f"V_STF, of {size}")
    axes.set_yscale("log")
    axes.set_ylim(least, 30 * single.max())
    axes.set_ylabel("variance of the\ntarget (score units)")
    for phase in (1, 2, 3):
        within = [v for v, p in zip(found.levels, found.phase, strict=True) if p == phase]
        if not within:
            continue
        if phase == 2:
            axes.axvspan(within[0], within[-1], color=RUNS[3], alpha=0.1, linewidth=0, zorder=0)
        side = {1: "right", 2: "center", 3: "left"}[phase]  # the outer ones away from the band between
        place = {1: within[-1], 2: (within[0] * within[-1]) ** 0.5, 3: within[0]}[phase]
        axes.text(place, 9 * single.max(), f"phase {phase}", ha=side, va="center")
