"""The sections of a report that show and measure: samples, neighbours, scores, quality, losses, ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from . import figures, measure, pictures
from . import quality as judge
from .facts import data_groups
from .figures import History
from .parts import Picture, Row, Section, Table, measured
from .style import look_of_run
from .subject import Subject

Advance = Callable[[str, int], None]
Results = dict[str, dict[str, Any]]
_LACKING = (ValueError, OSError, ImportError)  # what opening the data of a run may raise
_UNITS = "Euclidean distance in the model's units"
METRICS = {
    "frechet": "Fréchet distance (squared units of a feature; lower is better)",
    "kid": "KID (squared discrepancy; lower is better)",
    "sliced": "sliced Wasserstein distance (units of a feature; lower is better)",
    "nearest": "distance to the nearest training item, over that of held-out data (1 is new, 0 a copy)",
    "marginal": "distance of a column's law, mean over columns (0 to 1; lower is better)",
    "marginal_max": "distance of a column's law, the greatest (0 to 1; lower is better)",
    "pairs": "change of the association of two columns, mean (lower is better)",
    "pairs_max": "change of the association of two columns, the greatest (lower is better)",
    "auc": "area under the curve of a classifier that tells samples from data (0.5 is the best)",
    "copies": "share of samples that are copies of training rows",
}


def samples(subjects: Sequence[Subject], seed: int, advance: Advance) -> Section:
    """Samples of each run: pictures, points beside the data, or quantiles of coordinates against the data."""
    section = Section("samples", "Samples", f"Drawn as each recipe says, with seed {seed}; not chosen.")
    for i, s in enumerate(subjects):
        advance(f"{s.name}: samples", 0)
        x, labels = measure.shown(s, seed)
        how, values = measure.user(x, s.info)
        look, nfe = look_of_run(i), s.nfe
        if how == "images":
            columns = measure.columns(s.info)
            names = s.info.classes[: len(x) // columns] if labels is not None else ()
            by = f"{len(names)} classes, a row each" if names else "one after another"
            section.pictures.append(
                _of(s, i, "samples", pictures.mosaic(values, columns, names), f"{len(x)} samples, {by}.")
            )
        else:
            data = _lacking(section, s, partial(measure.held, s, len(x)))
            if how == "plane":
                caption = f"Held-out data and samples, {len(values):,} of each." if data is not None else "Samples."
                section.pictures.append(_of(s, i, "samples", pictures.plane(values, data, look), caption))
            elif data is not None:
                some = dict(list(data.items())[:9])
                of = "" if len(some) == len(data) else f", the first {len(some)} of {len(data)}"
                caption = (
                    f"Quantiles of {len(x)} samples against those of held-out data, a panel per column{of}; "
                    "on the line the laws are equal. Columns of names show the shares of each name."
                )
                section.pictures.append(_of(s, i, "samples", figures.marginals(values, some, look), caption))
        advance("", len(x) * nfe)
    return section


def neighbours(subjects: Sequence[Subject], seed: int, advance: Advance) -> Section:
    """The training items nearest to samples: would a copy be seen?"""
    section = Section(
        "neighbours",
        "Nearest training items",
        f"Each sample beside the training items nearest to it ({_UNITS}). A copy would be at distance 0; "
        "samples as new as new data follow the dotted line of the held-out items.",
    )
    found: dict[int, measure.Near] = {}
    for i, s in enumerate(subjects):
        advance(f"{s.name}: nearest training items", 0)
        near = _lacking(section, s, partial(measure.near, s, seed))
        if near is None:
            continue
        found[i] = near
        if measure.user(near.samples, s.info.seen)[0] == "images":
            shown = {}
            for space, items in near.items.items():
                flat = measure.user(items.flatten(0, 1), s.info.seen)[1]
                shown[space] = flat.reshape(*items.shape[:2], *flat.shape[1:]), near.distances[space].numpy()
            figure = pictures.neighbours(measure.user(near.samples, s.info.seen)[1], shown)
            section.pictures.append(
                _of(s, i, "neighbours", figure, "Samples, left, and their nearest training items with the distances.")
            )
    for g, group in enumerate(data_groups(subjects)):
        here = [i for i in group if i in found]
        for space in found[here[0]].ours if here else ():
            ours = {subjects[i].name: found[i].ours[space].numpy() for i in here}
            held = found[here[0]].held[space].numpy()
            looks = [look_of_run(i) for i in here]
            figure = figures.proximity(ours, held, looks, f"{space}, model units")
            ratio = ", ".join(f"{n}: {np.median(d) / np.median(held):.2f}" for n, d in ours.items() if np.median(held))
            caption = (
                f"Distances to the nearest training item by {space}: of {len(next(iter(ours.values())))} samples and "
                f"of {len(held)} held-out items. Median over that of held-out items: {ratio}."
            )
            name = f"proximity-{space.replace(' ', '-')}" + (f"-{g + 1}" if g else "")
            section.pictures.append(Picture(name, figure, caption, f"Cumulative distances by {space}. {caption}"))
    return section


def scores(
    subjects: Sequence[Subject], n: int, seed: int, trust: Sequence[str], advance: Advance, results: Results
) -> Section:
    """The score table, with standard errors and the record that lets somebody else repeat it."""
    section = Section("scores", "Scores", "Samples against held-out data; ± is one standard error where one is known.")
    found: dict[int, Mapping[str, Any]] = {}
    for i, s in enumerate(subjects):
        advance(f"{s.name}: scores", 0)
        score = _lacking(section, s, partial(judge.scores, s, n, seed, trust))
        advance("", n * s.nfe)
        if score is not None:
            found[i] = score
            results[s.name]["scores"] = score
            section.notes += [f"{s.name}: {text}." for text in score["warnings"]]
    if not found:
        return section
    head, keys = ("", *(subjects[i].name for i in found)), ("", *(look_of_run(i).colour for i in found))
    names = dict.fromkeys(name for f in found.values() for name in f["values"])

    def row(m: str) -> Row:
        return Row(METRICS.get(m, m), tuple(_cell(f, m) for f in found.values()), number=True)

    section.tables.append(Table("Scores", head, tuple(row(m) for m in names if "[" not in m), keys))
    if parts := tuple(row(m) for m in names if "[" in m):
        section.tables.append(Table("By column or class", head, parts, keys, folded=True))
    record = dict.fromkeys(name for f in found.values() for name in f["record"])
    rows = [Row(r, tuple(str(f["record"].get(r, "–")) for f in found.values())) for r in record]
    section.tables.append(Table("How they were taken", head, tuple(rows), keys, folded=True))
    if len([g for g in data_groups(subjects) if any(i in found for i in g)]) > 1:
        section.notes.append("The runs learned different data, so these numbers are not comparable between them.")
    return section


def _cell(score: Mapping[str, Any], metric: str) -> str:
    value = score["values"].get(metric)
    return "–" if value is None else measured(value, score["errors"].get(metric))


def quality(subjects: Sequence[Subject], n: int, seed: int, advance: Advance, results: Results) -> Section:
    """Quality against evaluations for every solver, a figure per run on axes shared by runs of the same data."""
    section = Section(
        "quality",
        "Quality against evaluations",
        f"How good {n} samples are for what they cost, against held-out data; bars are one standard error (by "
        "random halves of both). The dotted line is what as many training items score: no sample needs to be better. "
        "Both metrics have a floor that falls with the number of samples, so compare only equal numbers.",
    )
    found = {}
    for i, s in enumerate(subjects):
        tell = lambda text, work, name=s.name: advance(text and f"{name}: {text}", work)
        curves = _lacking(section, s, partial(judge.quality, s, n, seed, tell))
        if curves is not None:
            found[i] = curves
            section.notes += [f"{s.name}: {text}." for text in curves.warnings]
            results[s.name]["quality"] = {
                m: {solver: list(zip(c.x, c.y, c.error, strict=True)) for solver, c in by.items()}
                for m, by in curves.curves.items()
            }
    for group in data_groups(subjects):
        here = [i for i in group if i in found]
        limits = {m: _limits([found[i] for i in here], m) for m in (judge.METRICS if here else ())}
        for i in here:
            curves = found[i]
            figure = figures.quality(curves.curves, list(judge.SOLVERS), curves.floors, limits, judge.METRICS)
            best = {m: min((c.y[-1], c.error[-1], who) for who, c in by.items()) for m, by in curves.curves.items()}
            parts = [f"{m} {measured(value, error)} ({who})" for m, (value, error, who) in best.items()]
            caption = f"The best at the largest budget: {', '.join(parts)}."
            section.pictures.append(_of(subjects[i], i, "quality", figure, caption))
    return section


def _limits(found: Sequence[judge.Quality], metric: str) -> tuple[float, float]:
    curves = [c for q in found for c in q.curves[metric].values()]
    return figures.limits_of(curves, [q.floors[metric][0] for q in found])


def losses(subjects: Sequence[Subject]) -> Section:
    """Losses by noise level and over training, from the logs."""
    section = Section(
        "losses",
        "Losses",
        "The loss is the weighted squared error of the denoiser per value. Where held-out rises above training, the "
        "network has begun to learn items by heart.",
    )
    logs = {i: h for i, s in enumerate(subjects) if (h := s.history()) is not None}
    for i, s in enumerate(subjects):
        if i not in logs:
            section.notes.append(f"{s.name} has no log beside its weights, so its losses are not shown.")
    if not logs:
        return section
    for name, draw, caption, some in (
        (
            "training",
            figures.training_curve,
            "The training loss, and markers of the held-out loss, over training.",
            logs,
        ),
        (
            "loss-by-level",
            figures.loss_by_level,
            "The last loss at each of eight noise levels (equal shares of the training times), held out and training.",
            {i: h for i, h in logs.items() if h.judged},
        ),
    ):
        if some:
            figure = draw({subjects[i].name: h for i, h in some.items()}, [look_of_run(i) for i in some])
            section.pictures.append(Picture(name, figure, caption, f"{caption} Runs: {_listed(subjects, some)}."))
    for i, history in logs.items():
        if len(history.judged) > 1:
            figure = figures.loss_over_training(history)
            caption = "The held-out loss at each noise level over training."
            section.pictures.append(_of(subjects[i], i, "loss-over-training", figure, caption))
    return section


def ways(subjects: Sequence[Subject], seed: int, advance: Advance) -> Section:
    """Samples on their way from noise."""
    section = Section(
        "ways",
        "On the way",
        "From noise to sample: the state of the flow, and the denoiser's estimate of where it ends. States are divided "
        "by how much wider than the data the noise has made them.",
    )
    for i, s in enumerate(subjects):
        advance(f"{s.name}: trajectories", 0)
        way = measure.way(s, seed)
        how, _ = measure.user(way.states[-1], s.info)
        kept = [way.states, way.estimates]
        look = look_of_run(i)
        if how == "images":
            caption = f"{way.states.shape[1]} samples at {len(way.levels)} noise levels, from the most to none."
            states, estimates = (_user_path(x, s) for x in kept)
            section.pictures.append(_of(s, i, "way", pictures.way_of_images(states, estimates, way.levels), caption))
        elif how == "plane":
            caption = f"The paths of {way.states.shape[1]} particles and of their estimates; dots are the samples."
            states, estimates = (_user_path(x, s) for x in kept)
            section.pictures.append(_of(s, i, "way", pictures.way_in_plane(states, estimates, way.levels), caption))
        else:
            states, estimates = (x.flatten(2).numpy() for x in kept)
            caption = "The first coordinates of samples in the model's units: lines are states, dots the estimates."
            section.pictures.append(
                _of(s, i, "way", pictures.way_of_values(states, estimates, way.levels, look), caption)
            )
    return section


def _user_path(x: Any, subject: Subject) -> Any:
    values = measure.user(x.flatten(0, 1), subject.info)[1]
    return values.reshape(*x.shape[:2], *values.shape[1:])


def _of(subject: Subject, index: int, name: str, figure: Any, caption: str) -> Picture:
    """A picture that belongs to one run."""
    safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in subject.name)
    alt = f"{name} of {subject.name}: {caption}"
    return Picture(f"{name}-{safe}", figure, caption, alt, subject.name, look_of_run(index).colour)


def _listed(subjects: Sequence[Subject], some: Mapping[int, History]) -> str:
    return ", ".join(subjects[i].name for i in some)


def _lacking(section: Section, subject: Subject, make: Callable[[], Any]) -> Any:
    """What `make` returns; None, and a note that says why, where the data of the run cannot be had."""
    try:
        return make()
    except _LACKING as error:
        section.notes.append(f"Not shown for {subject.name}: {error}.")
        return None
