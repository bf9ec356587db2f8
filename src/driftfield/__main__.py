"""`python -m driftfield` is the command line."""

from .cli import main

main()
