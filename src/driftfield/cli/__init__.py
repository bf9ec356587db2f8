"""The command line: one file per verb. Nothing here imports torch until a command needs it."""

from __future__ import annotations

import os
import sys

import typer

from . import doctor, evaluate, recipes, sample, train

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
for verb in (train, sample, evaluate, recipes, doctor):
    app.command()(getattr(verb, verb.__name__.rpartition(".")[2]))


def main() -> None:
    """Run a command: exit status 0, 1 (failed), 2 (usage) or 130 (interrupted), and one sentence for an error."""
    import warnings

    warnings.showwarning = lambda message, *rest, **more: print(f"Warning: {message}", file=sys.stderr)
    try:
        app()
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except Exception as error:
        if os.environ.get("DRIFTFIELD_DEBUG") or not isinstance(error, _expected()):
            raise
        _fail(" ".join(str(error).split()), 130 if type(error).__name__ == "Interrupted" else 1)


def _expected() -> tuple[type[Exception], ...]:
    interrupted = getattr(sys.modules.get("driftfield.train.interrupt"), "Interrupted", OSError)
    return (ValueError, TypeError, OSError, ImportError, FloatingPointError, interrupted)


def _fail(message: str, status: int) -> None:
    print(f"Error: {message}" if status != 130 else message, file=sys.stderr)
    raise SystemExit(status)
