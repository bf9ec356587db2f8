"""The command line: one file per verb. Nothing here imports torch until a command needs it."""

from __future__ import annotations

import os
import sys
import time

import typer

from . import (
    data,
    doctor,
    ema,
    evaluate,
    export,
    latent,
    nll,
    physics,
    recipes,
    report,
    robustness,
    sample,
    search,
    train,
)

# Threads that spin while they wait for each other are 20 times slower on a core that something else also uses.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

app = typer.Typer(
    name="driftfield",
    help="Physics-inspired generative models: train, sample, score.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (train, sample, search, evaluate, nll, latent, ema, report, robustness, export, recipes, doctor):
    app.command()(getattr(verb, verb.__name__.rpartition(".")[2]))
app.add_typer(data.app, name="data")
app.add_typer(physics.app, name="physics")


def main() -> None:
    """Run a command: exit status 0, 1 (failed), 2 (usage) or 130 (interrupted), and one sentence for an error."""
    import warnings

    helper, stderr = _rank() > 0, sys.stderr
    if helper:  # of several processes the first speaks for all; the others only say why they fail
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    warnings.showwarning = lambda message, *rest, **more: print(f"Warning: {message}", file=sys.stderr)
    try:
        app()
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except Exception as error:
        sys.stderr = stderr
        status = 130 if type(error).__name__ == "Interrupted" else 1
        if helper and (status == 130 or _told(error)):
            raise SystemExit(status) from None
        if os.environ.get("DRIFTFIELD_DEBUG") or not isinstance(error, _expected()):
            raise
        _fail(" ".join(str(error).split()), status)


def _expected() -> tuple[type[Exception], ...]:
    interrupted = getattr(sys.modules.get("driftfield.train.interrupt"), "Interrupted", OSError)
    return (ValueError, TypeError, OSError, ImportError, FloatingPointError, interrupted)


def _told(error: Exception) -> bool:
    """Whether the first process has met this error too, and says so."""
    ranks = sys.modules.get("driftfield.ranks")
    return ranks is not None and bool(ranks.said(error))


def _rank() -> int:
    """This process's number among those that torchrun or accelerate started."""
    return int(os.environ.get("RANK", "0")) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0


def _fail(message: str, status: int) -> None:
    if _rank() > 0 and status != 130:
        time.sleep(3)  # if the first process has met this too, it says so, and the launcher ends this one meanwhile
        message = f"rank {_rank()}: {message}"
    print(f"Error: {message}" if status != 130 else message, file=sys.stderr)
    raise SystemExit(status)
