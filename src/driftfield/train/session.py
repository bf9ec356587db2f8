"""A training run in a folder: resumed, logged, judged on held-out data, and saved whole or not at all."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..data.base import Source
from ..data.picture import picture
from ..files import sweep, write, write_text
from ..generation import plan
from ..plain import packages_in, to_plain
from ..recipe import Recipe, differing
from ..rng import seeded
from .checkpoint import newest, read, save, states
from .held import Losses, judged, losses_by_level
from .load import LAST, WEIGHTS, fill, find, store
from .loop import Step, train

LOG_EVERY = 20
_SHOWN = 64


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
    recipe: Recipe, source: Source, folder: Path, warn: Callable[[str], None], device: str = ""
) -> Generator[Report, None, None]:
    """Train `recipe` on its opened data in `folder`, yielding after every step; the same again goes on from there.

    Closing the iterator keeps the state at the last step. Raises: ValueError for a folder that holds another recipe,
    naming the fields that differ; FloatingPointError for a loss that is not finite; OSError where a file cannot be
    written (the last saved state stays whole).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("training by several processes is not supported yet; start one without torchrun")
    resolved = _open(recipe, folder, source, device)
    sweep(folder)
    found = newest(folder, warn)
    saved, notes = found if found is not None else (_initial(resolved), {})
    best: float | None = notes.get("best")
    steps = int(resolved.training.steps or 0)
    _trim(folder / "log.jsonl", int(saved["count/step"]) if saved is not None and "count/step" in saved else 0)
    begun, first = time.perf_counter(), None
    sets = judged(source, resolved.training.seed)
    loss, pending, count, skipped = float("nan"), torch.zeros(()), 0, 0
    for now in train(resolved, source, saved, device):
        first = now.step - 1 if first is None else first
        if now.guard.skipped == skipped:  # a skipped step has no loss to speak of
            pending, count = pending.to(now.loss.device) + now.loss, count + 1
        skipped, losses = now.guard.skipped, None
        if now.step % resolved.training.held_every == 0 or now.step == steps:
            now.guard.flush()
            losses = losses_by_level(resolved, now.average, sets, now.loss.device)
            if not math.isfinite(losses.held_mean):
                raise FloatingPointError(f"the held-out loss is {losses.held_mean} at step {now.step}")
            if best is None or losses.held_mean < best:
                best = losses.held_mean
                store(folder / WEIGHTS, now.average, resolved, step=now.step, held=best)
        due = now.step % LOG_EVERY == 0 or now.step == steps or losses is not None or now.step - first == 1
        if due and count:
            loss, pending, count = float(pending) / count, torch.zeros(()), 0
        elapsed = time.perf_counter() - begun
        report = Report(
            now.step,
            steps,
            loss,
            (now.step - first) * resolved.training.batch / elapsed,
            elapsed / (now.step - first) * (steps - now.step),
            losses,
        )
        if due:
            _log(folder / "log.jsonl", report, now)
        if now.step % resolved.training.save_every == 0 or now.step == steps:
            _keep(folder, now, resolved, best)
        if now.step % resolved.training.show_every == 0 or now.step == steps:
            show(folder, resolved, now)
        try:
            yield report
        except GeneratorExit:
            if now.step % resolved.training.save_every and now.step != steps:
                _keep(folder, now, resolved, best)
            raise


def _open(recipe: Recipe, folder: Path, source: Source, device: str) -> Recipe:
    """Claim `folder` for `recipe`, or recognise it as its own; the resolved recipe."""
    asked, resolved_file = folder / "recipe.json", folder / "resolved.json"
    if states(folder) and asked.exists() and resolved_file.exists():
        there = _recipe_in(asked, recipe)
        if there != recipe:
            lines = differing(to_plain(there), to_plain(recipe))
            raise ValueError(
                f"{folder} holds a run of another recipe; they differ in {'; '.join(lines)}. "
                "Choose another folder, or use --from to start a new run from this one"
            )
        resolved = _recipe_in(resolved_file, recipe)
        if resolved.info != source.info:
            raise ValueError(f"the data of {folder} have changed since the run began; start a new run for the new data")
        return replace(resolved, data=recipe.data)
    resolved = recipe.resolved(source.info)
    _rehearse(resolved)
    if resolved.training.steps is None:
        minutes = 5.0 if resolved.training.minutes is None else resolved.training.minutes
        steps = _steps_in(minutes, resolved, source, device)
        resolved = replace(resolved, training=replace(resolved.training, steps=steps, minutes=None))
    write_text(resolved_file, resolved.to_json())
    write_text(asked, recipe.to_json())
    return resolved


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
    """The state to begin with when the recipe starts from another run: its average as model and average."""
    if recipe.init is None:
        return None
    path = find(recipe.init)
    weights, _ = read(path)
    fill(recipe.denoiser(), weights, path)
    both = {f"{group}/{name}": tensor for group in ("model", "average") for name, tensor in weights.items()}
    return {**both, "count/step": torch.tensor(0), "count/skipped": torch.tensor(0)}


def _steps_in(minutes: float, recipe: Recipe, source: Source, device: str) -> int:
    """How many steps fit into `minutes`, judging and drawing included: by timing a few on a network thrown away."""
    training = replace(recipe.training, steps=1_000_000_000, minutes=None)
    begun, timed = time.perf_counter(), 0
    for now in train(replace(recipe, training=training), source, None, device):
        if now.step == 3:
            now.loss.item()
            begun = time.perf_counter()
        timed = now.step - 3
        if timed > 0 and (timed >= 50 or time.perf_counter() - begun > 2):
            now.loss.item()
            break
    step = (time.perf_counter() - begun) / timed
    begun = time.perf_counter()
    losses_by_level(recipe, now.average, judged(source, training.seed), now.loss.device)
    judge, begun = time.perf_counter() - begun, time.perf_counter()
    _draw(recipe, now)
    draw = time.perf_counter() - begun
    return max(1, int(60 * minutes / (step + judge / training.held_every + draw / training.show_every)))


def _draw(recipe: Recipe, now: Step) -> torch.Tensor | None:
    info = recipe.info
    if info is None or info.kind == "array":
        return None
    count = _SHOWN if info.kind == "image" else 4 * _SHOWN**2
    device = now.loss.device
    cond = torch.arange(count, device=device) % len(info.classes) if info.classes else None
    return recipe.sample(now.average, count, cond=cond, batch=count, device=device)


def show(folder: Path, recipe: Recipe, now: Step) -> None:
    """Write a picture of samples from the average, `samples/STEP.png`, for data that have one."""
    samples = _draw(recipe, now)
    if samples is None or recipe.info is None:
        return
    image = picture(samples, recipe.info)
    if image is not None:
        write(folder / "samples" / f"{now.step:08d}.png", lambda part: image.save(part, format="PNG"))


def _keep(folder: Path, now: Step, recipe: Recipe, best: float | None) -> None:
    save(folder / f"state-{now.step:08d}.safetensors", now.tensors(), {"best": best})
    store(folder / LAST, now.average, recipe, step=now.step)
    for old in states(folder)[2:]:
        old.unlink()


def _log(path: Path, report: Report, now: Step) -> None:
    line: dict[str, Any] = {
        "step": report.step,
        "loss": report.loss,
        "lr": now.lr,
        "samples_per_second": round(report.rate, 2),
        "skipped": now.guard.skipped,
    }
    if report.losses is not None:
        line["by_level"] = report.losses.plain()
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def _trim(path: Path, step: int) -> None:
    """Drop the log lines after `step`, which the run will say again, and a last line torn by a kill."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
        write_text(path, "".join(line + "\n" for line in lines))


def _step_of(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
