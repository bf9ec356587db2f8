"""A training run in a folder: resumed, logged, judged on held-out data, and saved whole or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..data.base import Source
from ..data.picture import picture
from ..generation import generate
from ..plain import from_plain, to_plain
from ..recipe import Recipe, differing
from .checkpoint import newest, read, save, states, write, write_text
from .held import Losses, losses_by_level
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
    resolved = _open(recipe, folder, source, device)
    found = newest(folder, warn)
    saved, notes = found if found is not None else (_initial(resolved), {})
    best: float | None = notes.get("best")
    steps = int(resolved.training.steps or 0)
    _trim(folder / "log.jsonl", int(saved["count/step"]) if saved is not None and "count/step" in saved else 0)
    begun, first = time.perf_counter(), None
    loss, pending, count = float("nan"), torch.zeros(()), 0
    for now in train(resolved, source, saved, device):
        first = now.step - 1 if first is None else first
        pending, count = pending.to(now.loss.device) + now.loss, count + 1
        losses = None
        if now.step % resolved.training.held_every == 0 or now.step == steps:
            losses = losses_by_level(resolved, now.average, source, now.loss.device)
            if best is None or losses.held_mean < best:
                best = losses.held_mean
                store(folder / WEIGHTS, now.average, resolved, step=now.step, held=best)
        if now.step % LOG_EVERY == 0 or now.step == steps or losses is not None or count == now.step - first == 1:
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
        if count == 0:
            _log(folder / "log.jsonl", report, now)
        if now.step % resolved.training.show_every == 0 or now.step == steps:
            show(folder, resolved, now)
        if now.step % resolved.training.save_every == 0 or now.step == steps:
            _keep(folder, now, resolved, best)
        try:
            yield report
        except GeneratorExit:
            if now.step % resolved.training.save_every and now.step != steps:
                _keep(folder, now, resolved, best)
            raise


def _open(recipe: Recipe, folder: Path, source: Source, device: str) -> Recipe:
    """Claim `folder` for `recipe`, or recognise it as its own; the resolved recipe."""
    asked, resolved_file = folder / "recipe.json", folder / "resolved.json"
    plain = to_plain(recipe)
    if asked.exists() and resolved_file.exists():
        there = json.loads(asked.read_text())
        if there != plain:
            raise ValueError(
                f"{folder} holds a run of another recipe; they differ in {'; '.join(differing(there, plain))}. "
                "Choose another folder, or use --from to start a new run from this one"
            )
        resolved = from_plain(json.loads(resolved_file.read_text()), trust=_prefixes(plain))
        if resolved.info != source.info:
            raise ValueError(f"the data of {folder} have changed since the run began; start a new run for the new data")
        kept: Recipe = replace(resolved, data=recipe.data)
        return kept
    resolved = recipe.resolved(source.info)
    if resolved.training.steps is None:
        minutes = 5.0 if resolved.training.minutes is None else resolved.training.minutes
        steps = _steps_in(minutes, resolved, source, device)
        resolved = replace(resolved, training=replace(resolved.training, steps=steps))
    write_text(resolved_file, resolved.to_json())
    write_text(asked, recipe.to_json())
    return resolved


def _prefixes(plain: Any) -> tuple[str, ...]:
    """The packages that a recipe names: it is the user's own, so they are trusted."""
    if isinstance(plain, dict):
        own = {str(plain[k]).partition(".")[0].partition(":")[0] for k in ("is", "target") if k in plain}
        return tuple(own | {p for v in plain.values() for p in _prefixes(v)})
    return tuple({p for v in plain for p in _prefixes(v)}) if isinstance(plain, list) else ()


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
    plan = replace(recipe.training, steps=1_000_000_000)
    begun, timed = time.perf_counter(), 0
    for now in train(replace(recipe, training=plan), source, None, device):
        if now.step == 3:
            now.loss.item()
            begun = time.perf_counter()
        timed = now.step - 3
        if timed > 0 and (timed >= 50 or time.perf_counter() - begun > 2):
            now.loss.item()
            break
    step = (time.perf_counter() - begun) / timed
    begun = time.perf_counter()
    losses_by_level(recipe, now.average, source, now.loss.device)
    judge, begun = time.perf_counter() - begun, time.perf_counter()
    _draw(recipe, now)
    draw = time.perf_counter() - begun
    return max(1, int(60 * minutes / (step + judge / plan.held_every + draw / plan.show_every)))


def _draw(recipe: Recipe, now: Step) -> torch.Tensor | None:
    info = recipe.info
    if info is None or info.kind == "array":
        return None
    count = _SHOWN if info.kind == "image" else 4 * _SHOWN**2
    device = now.loss.device
    cond = torch.arange(count, device=device) % len(info.classes) if info.classes else None
    s, average = recipe.sampling, now.average
    return generate(
        recipe.objective.process,
        average,
        (count, *info.shape),
        solver=s.solver,
        nfe=s.nfe,
        grid=s.grid,
        cond=cond,
        batch=count,
        device=device,
    )


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
    """Drop the log lines after `step`: a run that was killed says them again."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if _whole(line) and json.loads(line)["step"] <= step]
        write_text(path, "".join(line + "\n" for line in lines))


def _whole(line: str) -> bool:
    return line.startswith("{") and line.endswith("}")
