"""The one error that a user's mistake raises."""

from __future__ import annotations


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one sentence that names the place (file, record, setting) and the remedy. Command-line
    entry points print it without a traceback and exit with status 2.
    """
