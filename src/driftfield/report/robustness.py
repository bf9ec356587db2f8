"""How gracefully trained models fail: noise on the way, fewer steps, weights of fewer bits; a line for each run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..batches import bar
from ..denoise.learned import Learned
from ..deploy.quantize import quantized, rounded
from ..generation import plan
from ..names import pick
from ..process.base import Isotropic
from ..solve.base import Solver
from ..solve.jolted import Jolted
from ..solve.rk import Heun
from .facts import data_groups
from .figures import Curve
from .measure import as_seen
from .quality import LEAST, Judge
from .studies import STUDIES, Found, Line, Study
from .subject import Result, Subject, subjects

NFE = 35  # Heun's method on 18 steps, as published
TORCHAO = (8, 4)  # the bits for which torchao chooses scales here


def robustness(
    runs: Sequence[str | Path],
    *,
    studies: Mapping[str, Sequence[float]] | Sequence[str] | None = None,
    n: int = 1000,
    seed: int = 0,
    split: str = "train",
    data: str | None = None,
    device: str | None = None,
    trust: Sequence[str] = (),
    progress: bool = False,
) -> list[Found]:
    """What becomes of the Frechet distance of `runs` of the same data, as sampling is made harder in each study.

    "noise": Gaussian noise of `alpha` times the noise at each step is added before it, which the model is not told of;
    "steps": fewer evaluations; "weights": the inner weights are rounded to so many bits, each tensor by the published
    affine rule (`rounded`), and besides, at 8 and 4 bits, by torchao's scales for all layers (`quantized`). All else
    is as published: Heun's method with 35 evaluations on the natural grid, without other noise. `studies` are names,
    or settings by name; all of them unless given. Each of `n` samples begins at the same noise in every cell, classes
    are drawn as often as in the `split` ("train" or "held-out") that samples are compared with, and the features are
    those of the data's shipped classifier, else raw values. Cells are kept in RUN/report and not measured again.
    Standard errors are over random halves of the samples: of one run, they say nothing of another training seed.
    Raises: ValueError for an unknown study or split, a setting out of its range, too few samples, or runs of unlike
            data; and as `subjects`.
    Source: Xu et al. 2023, Sec. 6.2. [xu2023pfgmpp]
    """
    chosen = _chosen(studies)
    if n < LEAST:
        raise ValueError(f"a score with a standard error needs at least {LEAST} samples, got n={n}")
    opened = subjects(runs, device, trust, data)
    if len(data_groups(opened)) > 1:
        raise ValueError("these runs learned different data, so their distances cannot be compared; give runs of one")
    judges = [Judge(s, seed, split, ["frechet"]) for s in opened]
    work = sum(_spent(s, study, at) for s in opened for study in chosen for at in study.settings)
    found = []
    with bar("sampling", n * work, 1, progress) as advance:
        for study in chosen:
            said: dict[str, None] = {}
            lines = [_line(judge, study, n, said, advance) for judge in judges]
            found.append(Found(study, tuple(lines), judges[0].extract.name, n, split, seed, tuple(said)))
    return found


def _chosen(studies: Mapping[str, Sequence[float]] | Sequence[str] | None) -> list[Study]:
    """The studies asked for, each with its settings from the easiest to the hardest."""
    asked = {} if isinstance(studies, Sequence) or studies is None else studies
    names = list(STUDIES) if studies is None else list(studies)
    if not names:
        raise ValueError(f"no study was asked for; choose from {', '.join(STUDIES)}")
    made = []
    for name in names:
        study = pick(name, STUDIES, "study")
        settings = sorted(set(asked.get(name, study.settings)), reverse=study.falling)
        if not settings:
            raise ValueError(f"the study of {name} needs one setting or more, such as {study.settings[-1]:g}")
        for at in settings:
            _check(name, at)
        made.append(Study(name, tuple(settings), study.title, study.axis, study.falling))
    return made


def _check(name: str, at: float) -> None:
    if name == "noise":
        Jolted(Heun(), at)
    elif not float(at).is_integer() or not 1 <= at <= (16 if name == "weights" else math.inf):
        what = "bits are whole numbers from 1 to 16" if name == "weights" else "evaluations are counted from 1 up"
        raise ValueError(f"{what}, got {at:g} for the study of {name}")


def _budget(study: Study, at: float) -> int:
    return int(at) if study.name == "steps" else NFE


def _spent(subject: Subject, study: Study, at: float) -> int:
    """Evaluations per sample of one cell, that of torchao included."""
    one = plan(subject.recipe.objective.process, solver=Heun(), nfe=_budget(study, at)).nfe
    return one * (1 + (study.name == "weights" and at in TORCHAO))


def _line(judge: Judge, study: Study, n: int, said: dict[str, None], advance: Callable[[int], None]) -> Line:
    subject, cells, others = judge.subject, [], []
    for at in study.settings:
        cells.append((at, *_cell(judge, study, at, n, said, False)))
        if study.name == "weights" and at in TORCHAO and _has_torchao():
            others.append((at, *_cell(judge, study, at, n, said, True)))
        advance(n * _spent(subject, study, at))
    process = subject.recipe.objective.process
    try:
        D = process.freedom if isinstance(process, Isotropic) else None
    except TypeError:  # another law than Student's t
        D = None
    return Line(subject.name, D, _curve(cells), _curve(others) if others else None)


def _curve(cells: Sequence[tuple[float, float, float]]) -> Curve:
    return Curve(*(tuple(column) for column in zip(*cells, strict=True)))


def _has_torchao() -> bool:
    from importlib.util import find_spec

    return find_spec("torchao") is not None


def _cell(judge: Judge, study: Study, at: float, n: int, said: dict[str, None], torchao: bool) -> tuple[float, float]:
    """The Frechet distance of one cell and its standard error, measured or as it was kept."""
    subject = judge.subject
    # The easiest setting of a study of noise or steps may be the same samples; a kept cell is named by what it is.
    alpha = at if study.name == "noise" else 0.0
    bits = int(at) if study.name == "weights" else None
    settings = {"n": n, "seed": judge.seed, "split": judge.split, "features": judge.extract.name}
    cell = {"alpha": alpha, "nfe": _budget(study, at), "bits": bits, "torchao": torchao}

    def make() -> Result:
        solver: Solver = Jolted(Heun(), alpha) if alpha else Heun()
        x = subject.recipe.sample(
            _changed(subject, bits, torchao),
            n,
            solver=solver,
            nfe=_budget(study, at),
            grid="natural",
            seed=judge.seed,
            cond=judge.cond(n),
            device=subject.device,
        )
        return {}, judge(as_seen(x, subject.info))

    notes = subject.kept(f"robustness-{study.name}", {**settings, **cell}, make)[1]
    said |= dict.fromkeys(notes["warnings"])
    return notes["values"]["frechet"], notes["errors"]["frechet"]


def _changed(subject: Subject, bits: int | None, torchao: bool) -> Learned:
    """The run's denoiser, with weights of so many bits where they are asked for."""
    if bits is None:
        return subject.denoiser
    if torchao:
        return quantized(subject.denoiser, bits)
    return rounded(subject.denoiser, bits, subject.info.shape)
