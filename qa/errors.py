"""Errors that end a run with one sentence instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one sentence that names the place (file, record, setting) and the remedy. Command-line
    entry points print it without a traceback and exit with status 2.
    """


class NotFiniteError(RuntimeError):
    """Loss or gradients are no longer finite; nothing of that step has touched the weights."""


def run_program(main: Callable[[], int | None], name: str) -> None:
    """Run a command line and exit: with what `main` returns, or, after an InputError's sentence, with 2."""
    try:
        sys.exit(main())
    except InputError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
