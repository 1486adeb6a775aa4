"""Command lines for the tests of settings: parsed, or refused with one sentence."""

from __future__ import annotations

import pytest

from qa.arguments import parse_settings
from qa.errors import InputError
from qa.settings import Settings

TRAIN = ("--use_cpu", "--do_train", "--dataset_name", "sample")


def train(*words: str) -> Settings:
    """Settings of a training on the sample questions."""
    return parse_settings([*TRAIN, *words])


def refused(*words: str) -> str:
    """The message of the InputError, which has to be a single line."""
    with pytest.raises(InputError) as caught:
        parse_settings(list(words))
    message = str(caught.value)
    assert "\n" not in message
    return message
