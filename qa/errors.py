"""Errors that end a run with one sentence instead of a traceback."""

from __future__ import annotations


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one sentence that names the place (file, record, setting) and the remedy. Command-line
    entry points print it without a traceback and exit with status 2.
    """


class NotFiniteError(RuntimeError):
    """Loss or gradients are no longer finite; nothing of that step has touched the weights."""
