"""A training run in a folder: resumed, logged, judged on held-out data, and saved whole or not at all."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import ranks
from ..data.base import Source, alike
from ..data.picture import picture
from ..files import sweep, write, write_text
from ..generation import plan
from ..plain import packages_in, to_plain
from ..recipe import Recipe, differing
from ..rng import seeded
from .checkpoint import newest, read, save, states
from .held import Losses, judged, losses_by_level
from .load import LAST, WEIGHTS, fill, find, store
from .log import NAME, Window, trim
from .loop import Step, shared, train
from .snapshots import due, forget, keep, snapshots
from .track import Track, scalars, untracked

LOG_EVERY = 20
_SHOWN = {"image": 64, "audio": 16, "points": 4096}  # samples in a picture, for what has one


@dataclass(frozen=True)
class Report:
    """How a run stands after a step. `rate` is samples per second, `left` seconds to go, `losses` only when judged."""

    step: int
    steps: int
    loss: float
    rate: float
    left: float
    losses: Losses | None = None


def session(
    recipe: Recipe,
    source: Source,
    folder: Path,
    warn: Callable[[str], None],
    device: str = "",
    fsdp: bool = False,
    track: Track = untracked,
) -> Generator[Report, None, None]:
    """Train `recipe` on its opened data in `folder`, yielding after every step; the same again goes on from there.

    Closing the iterator keeps the state at the last step. Where several processes are `joined` each runs this, over the
    same folder, and closes it at the same step; rank 0 judges, draws and writes for all. `fsdp` is that of `train`;
    `track` is told what is logged and drawn. A state can be gone on from by any number of processes.
    Raises: ValueError for a folder that holds another recipe, naming the fields that differ; FloatingPointError for a
    loss that is not finite; FileExistsError for a file of something else that would be written over; OSError where a
    file cannot be written (the last saved state stays whole).
    """
    warn = warn if ranks.rank() == 0 else lambda text: None
    _alike(folder, [p.name for p in states(folder)], source)
    resolved = _open(recipe, folder, source, device, fsdp)
    ranks.first(sweep, folder)
    ranks.first(sweep, folder / "ema")
    found = newest(folder, warn)
    saved, notes = found if found is not None else (_initial(resolved), {})
    if (before := notes.get("processes", ranks.count())) != ranks.count():
        warn(
            f"{before} processes began this run and {ranks.count()} go on with it: each piece of a batch has its own "
            "draws, so it will differ from a run that was left alone, within its randomness"
        )
    best: float | None = notes.get("best")
    steps = int(resolved.training.steps or 0)
    begin, skipped = (0, 0) if saved is None else (int(saved["count/step"]), int(saved["count/skipped"]))
    ranks.first(trim, folder / NAME, begin)
    ranks.first(forget, folder, begin)
    begun, first = time.perf_counter(), None
    sets = judged(source, resolved.training.seed, resolved.objective.reference)
    window = Window.of(saved or {})
    for now in train(resolved, source, saved, device, fsdp):
        first = now.step - 1 if first is None else first
        if now.guard.skipped == skipped:  # a skipped step has no loss to speak of
            window.add(now.loss)
        skipped, losses = now.guard.skipped, None
        if now.step % resolved.training.held_every == 0 or now.step == steps:
            now.guard.flush()
            average = now.whole().average
            losses = ranks.first(losses_by_level, resolved, average, sets, now.loss.device)
            if not math.isfinite(losses.held_mean):
                raise FloatingPointError(f"the held-out loss is {losses.held_mean} at step {now.step}")
            if best is None or losses.held_mean < best:
                best = losses.held_mean
                ranks.first(partial(store, folder / WEIGHTS, average, resolved, step=now.step, held=best))
        logged = now.step % LOG_EVERY == 0 or now.step == steps or losses is not None or now.step == 1
        if logged:
            window.close()
        elapsed = time.perf_counter() - begun
        report = Report(
            now.step,
            steps,
            window.mean,
            (now.step - first) * resolved.training.batch / elapsed,
            elapsed / (now.step - first) * (steps - now.step),
            losses,
        )
        if logged:
            ranks.first(_log, folder / NAME, report, now, track)
        if now.step % resolved.training.show_every == 0 or now.step == steps:
            ranks.first(show, folder, resolved, now.whole(), track)
        if due(now.step, steps, resolved.training.snapshots):
            now.guard.flush()
            ranks.first(keep, folder, now.step, now.whole().averages, resolved)
        if now.step % resolved.training.save_every == 0 or now.step == steps:  # last: all that it has seen is written
            _keep(folder, now, resolved, best, window)
        try:
            yield report
        except GeneratorExit:
            if now.step % resolved.training.save_every and now.step != steps:
                _keep(folder, now, resolved, best, window)
            raise


def _alike(folder: Path, there: list[str], source: Source) -> None:
    """Raises: ValueError unless all processes find the same states in `folder`, and the same data."""
    seen = ranks.gathered((there, source.info))
    if any(states != there or not alike(info, source.info) for states, info in seen):
        raise ValueError(
            f"the processes do not see the same data and the same run in {folder}; "
            "both must lie where every machine of the job can read them"
        )


def _open(recipe: Recipe, folder: Path, source: Source, device: str, fsdp: bool) -> Recipe:
    """Claim `folder` for `recipe`, or recognise it as its own; the resolved recipe."""
    asked, resolved_file = folder / "recipe.json", folder / "resolved.json"
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; a run goes into a folder of its own, so choose another")
    if states(folder) and asked.exists() and resolved_file.exists():
        there = _recipe_in(asked, recipe)
        if there != recipe:
            lines = differing(to_plain(there), to_plain(recipe))
            raise ValueError(
                f"{folder} holds a run of another recipe; they differ in {'; '.join(lines)}. "
                "Choose another folder, or use --from to start a new run from this one"
            )
        resolved = _recipe_in(resolved_file, recipe)
        if not alike(resolved.info, source.info):
            raise ValueError(f"the data of {folder} have changed since the run began; start a new run for the new data")
        return replace(resolved, data=recipe.data)
    _check_free(folder, recipe)
    resolved = recipe.resolved(source.info)
    shared(resolved, fsdp)
    _rehearse(resolved)
    if resolved.training.steps is None:
        minutes = 5.0 if resolved.training.minutes is None else resolved.training.minutes
        steps = _steps_in(minutes, resolved, source, device, fsdp)
        resolved = replace(resolved, training=replace(resolved.training, steps=steps, minutes=None))
    ranks.first(write_text, resolved_file, resolved.to_json())
    ranks.first(write_text, asked, recipe.to_json())
    return resolved


def _check_free(folder: Path, recipe: Recipe) -> None:
    """Raises: FileExistsError for a file that a new run would write over, unless a run left it before its first state.

    Such a run has left two recipes.
    """
    recipes = [folder / "recipe.json", folder / "resolved.json"]
    others = [folder / name for name in ("proposal.json", NAME, WEIGHTS, LAST)]
    pictures = sorted(folder.glob(f"samples/{8 * '[0-9]'}.png"))
    there = [p for p in (*states(folder), *recipes, *others, *snapshots(folder).values(), *pictures) if p.exists()]
    try:
        left = [_recipe_in(path, recipe) for path in recipes]
    except (ValueError, OSError):
        left = []
    if there and (states(folder) or not left):
        raise FileExistsError(f"{there[0]} is there, but not from a run that can go on here; choose another folder")


def _recipe_in(path: Path, asked: Recipe) -> Recipe:
    try:
        return Recipe.from_json(path.read_text(), trust=packages_in(to_plain(asked)))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}); choose another folder") from None


def _rehearse(recipe: Recipe) -> None:
    """Build what a recipe names and throw it away, so that a mistake in it is met before a folder is claimed."""
    s = recipe.sampling
    plan(recipe.objective.process, solver=s.solver, nfe=s.nfe, grid=s.grid)
    seeded(recipe.training.seed)
    try:
        recipe.training.optimizer.build(recipe.denoiser())
    except TypeError as error:
        raise ValueError(f"the network or optimiser cannot be built with these options: {error}") from None
    _initial(recipe)


def _initial(recipe: Recipe) -> dict[str, torch.Tensor] | None:
    """The state to begin with when the recipe starts from another run: its average as model and averages."""
    if recipe.init is None:
        return None
    path = find(recipe.init)
    weights, _ = read(path)
    fill(recipe.denoiser(), weights, path)
    groups = ["model", *(f"average{i}" for i in range(len(recipe.training.ema)))]
    every = {f"{group}/{name}": tensor for group in groups for name, tensor in weights.items()}
    return {**every, "count/step": torch.tensor(0), "count/skipped": torch.tensor(0)}


def _steps_in(minutes: float, recipe: Recipe, source: Source, device: str, fsdp: bool) -> int:
    """How many steps fit into `minutes`, judging and drawing included: by timing a few on a network thrown away."""
    training = replace(recipe.training, steps=1_000_000_000, minutes=None)
    begun, timed = time.perf_counter(), 0
    for now in train(replace(recipe, training=training), source, None, device, fsdp):
        if now.step == 3:
            now.loss.item()
            begun = time.perf_counter()
        timed = now.step - 3
        if timed > 0 and ranks.agree(timed >= 50 or time.perf_counter() - begun > 2):
            now.loss.item()
            break
    step, now = (time.perf_counter() - begun) / timed, now.whole()

    def fitting() -> int:
        begun = time.perf_counter()
        sets = judged(source, training.seed, recipe.objective.reference)
        losses_by_level(recipe, now.average, sets, now.loss.device)
        judge, begun = time.perf_counter() - begun, time.perf_counter()
        _draw(recipe, now)
        draw = time.perf_counter() - begun
        return max(1, int(60 * minutes / (step + judge / training.held_every + draw / training.show_every)))

    return ranks.first(fitting)


def _draw(recipe: Recipe, now: Step) -> torch.Tensor | None:
    info = recipe.info
    count = 0 if info is None else _SHOWN.get(info.seen.kind, 0)
    if info is None or not count:
        return None
    device = now.loss.device
    cond = torch.arange(count, device=device) % len(info.classes) if info.classes else None
    return recipe.sample(now.average, count, cond=cond, batch=count, device=device)


def show(folder: Path, recipe: Recipe, now: Step, track: Track = untracked) -> None:
    """Write a picture of samples from the average, `samples/STEP.png`, for data that have one."""
    samples = _draw(recipe, now)
    if samples is None or recipe.info is None:
        return
    image = picture(samples, recipe.info)
    if image is not None:
        write(folder / "samples" / f"{now.step:08d}.png", lambda part: image.save(part, format="PNG"))
        track(now.step, {}, image)


def _keep(folder: Path, now: Step, recipe: Recipe, best: float | None, window: Window) -> None:
    tensors, average = now.tensors() | window.tensors(), now.whole().average

    def write_all() -> None:
        save(folder / f"state-{now.step:08d}.safetensors", tensors, {"best": best, "processes": ranks.count()})
        store(folder / LAST, average, recipe, step=now.step)
        for old in states(folder)[2:]:
            old.unlink()

    ranks.first(write_all)


def _log(path: Path, report: Report, now: Step, track: Track) -> None:
    line: dict[str, Any] = {
        "step": report.step,
        "loss": report.loss,
        "lr": now.lr,
        "samples_per_second": round(report.rate, 2),
        "skipped": now.guard.skipped,
    }
    if math.isfinite(norm := now.norm.item()):
        line["gradient_norm"] = norm
    if report.losses is not None:
        line["by_level"] = report.losses.plain()
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")
    track(report.step, scalars(line), None)
