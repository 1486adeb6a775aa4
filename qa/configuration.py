"""Settings as text -> values: YAML files, merged left to right, under a command line that wins.

`HfArgumentParser.parse_yaml_file` converts no types and checks no choices (`3e-5` arrives as a string, `no`
as False). Here a scalar of a file is the characters that were typed, and goes through the same conversion as
a word of the command line; the files become the parser's defaults.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser

from qa.errors import InputError

COMMAND_LINE = "on the command line"
_NULL = ("", "~", "null")
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "string_to_bool": "true or false",
    "dict": "a mapping",
}
_METAVARS = {"int": "INT", "float": "NUMBER", "string_to_bool": "BOOL"}

# Names of transformers 4 and of its example scripts, which no similarity of spelling finds.
_FORMER_NAMES = {
    "fp32": "precision fp32",
    "group_by_length": "batching grouped",
    "no_cuda": "use_cpu",
    "pad_to_max_length": "batching",
    "tokenizer_name": "model_name_or_path",
    "version_2_with_negative": "nothing: unanswerable questions are noticed",
    "warmup_ratio": "warmup_steps, a share of all steps where it is below 1",
}


class SettingsParser(HfArgumentParser):
    """HfArgumentParser whose mistakes are InputErrors of one sentence and whose help has a line per setting.

    Spellings with hyphens (`--max-seq-length`) and `--no_...` are understood, but not listed.
    """

    def __init__(self, dataclass_types: Iterable[type], **options: Any) -> None:
        groups = list(dataclass_types)
        super().__init__(groups, allow_abbrev=False, formatter_class=_HelpFormatter, **options)  # type: ignore[arg-type]
        # argparse takes -1e9 for an option: its own pattern of negative numbers knows no exponent.
        self._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
        self.hints = {name: hint for group in groups for name, hint in get_type_hints(group).items()}
        for action in self._actions:
            if action.dest not in self.hints:
                continue
            if action.option_strings[0].startswith("--no_"):
                action.help = argparse.SUPPRESS
            else:
                _prepare(action, self.hints[action.dest])

    def error(self, message: str) -> Any:
        """argparse's `argument --key: what is wrong`, without its two pages of usage."""
        raise InputError(message.removeprefix("argument --"))

    def names(self) -> set[str]:
        """Names of all settings."""
        return {action.dest for action in self._actions} - {"help"}

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse a command line. Raises InputError for the first word that cannot be used."""
        namespace, unknown = self.parse_known_args(list(words))
        if unknown and not unknown[0].startswith("-"):
            raise InputError(
                f"{unknown[0]}: this word belongs to no setting; settings files come after --config"
            )
        if unknown:
            key = unknown[0].partition("=")[0].lstrip("-").replace("-", "_")
            raise InputError(no_such_setting(key, self.names(), COMMAND_LINE))
        return namespace

    def apply_defaults(self, values: Mapping[str, Any], origin: Mapping[str, str]) -> None:
        """Make the values of files the defaults, converted and checked as the command line's are.

        origin: key -> the file it was read from. Raises InputError for an unknown key or an impossible value.
        """
        actions: dict[str, list[argparse.Action]] = {}
        for action in self._actions:
            actions.setdefault(action.dest, []).append(action)
        for key, value in values.items():
            if key not in self.hints:
                raise InputError(no_such_setting(key, self.names(), f"in {origin[key]}"))
            converted = _convert(actions[key][0], value, self.hints[key], f"{origin[key]}: {key}")
            for action in actions[key]:
                action.default, action.required = converted, False


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults are shown where there is one to show."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        nothing = action.default is None or action.default is False or action.default in ("", [])
        return action.help if nothing else super()._get_help_string(action)


class _ReadWord:
    """One word of text -> a setting's value, or an ArgumentTypeError that says what would do."""

    def __init__(self, convert: Callable[[str], Any], choices: Iterable[Any] | None, hint: Any) -> None:
        self.convert = convert
        self.kind = getattr(convert, "__name__", "")
        self.choices = None if choices is None else list(choices)
        self.hint = hint

    def __call__(self, text: str) -> Any:
        if text == "null" and _allows(self.hint, types.NoneType):
            return None
        if _allows(self.hint, dict) and text.startswith("{"):
            try:
                return json.loads(text)
            except ValueError as error:
                raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error})") from error
        try:
            value = self.convert(text)
        except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
            kind = _KINDS.get(self.kind, f"a {self.kind}")
            raise argparse.ArgumentTypeError(f"{text!r} is not {kind}") from error
        if value != value:
            raise argparse.ArgumentTypeError(f"{text!r} is not {_KINDS['float']}")
        if self.choices is not None and value not in self.choices:
            raise argparse.ArgumentTypeError(
                f"{text}: no such choice; {nearest(text, map(str, self.choices))}"
            )
        return value


def _prepare(action: argparse.Action, hint: Any) -> None:
    """Let an action read words through `_ReadWord`, and show it in one short form in the help."""
    convert: Any = action.type or str
    name = getattr(convert, "__name__", "")
    if action.choices is None:
        action.metavar = _METAVARS.get(name, "DICT" if name == "dict" else "TEXT")
    action.type = _ReadWord(convert, action.choices, hint)
    # `_ReadWord` has checked the choice, and better; argparse would refuse a permitted null.
    if action.choices is not None:
        action.metavar = "{" + ",".join(map(str, action.choices)) + "}"
        action.choices = None
    action.option_strings = action.option_strings[:1]


def _allows(hint: Any, kind: type) -> bool:
    """Whether a type hint, or one member of its union, is `kind` (list and dict: of anything)."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_allows(member, kind) for member in get_args(hint))
    return (get_origin(hint) or hint) is kind


def _convert(action: argparse.Action, value: Any, hint: Any, place: str) -> Any:
    """A value of a file, as `read_yaml` gives it -> a setting's value. `place` opens an error's message."""
    if isinstance(value, dict):
        if not _allows(hint, dict):
            raise InputError(f"{place}: takes one value, not a mapping")
        return _plain_yaml(value)
    if isinstance(value, list):
        if not _allows(hint, list):
            raise InputError(f"{place}: takes one value, not a list")
        return [_convert_word(action, item, place) for item in value]
    if value in _NULL and _allows(hint, types.NoneType):
        return None
    if value in _NULL and not _allows(hint, str):
        raise InputError(f"{place}: has no value; give one or take the line out")
    converted = _convert_word(action, value, place)
    return [converted] if action.nargs == "+" else converted


def _convert_word(action: argparse.Action, value: Any, place: str) -> Any:
    if not isinstance(value, str):
        raise InputError(f"{place}: {value}: a list holds single values only")
    read: Any = action.type
    try:
        return read(value)
    except argparse.ArgumentTypeError as error:
        raise InputError(f"{place}: {error}") from error


def _plain_yaml(value: Any) -> Any:
    """Scalars of a free-form mapping by YAML's own rules, and `1e-6` as the number it is meant to be."""
    if isinstance(value, dict):
        return {key: _plain_yaml(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_yaml(item) for item in value]
    plain = yaml.safe_load(value)
    try:
        return float(plain) if isinstance(plain, str) else plain
    except ValueError:
        return plain


class _TextLoader(yaml.BaseLoader):
    """YAML whose scalars stay text, and which refuses a key given twice: the first value would be lost."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            fault = None if isinstance(key.value, str) else "a key that is no text"
            if fault is None and key.value in seen:
                fault = f"key {key.value!r} is given twice"
            if fault is not None:
                raise yaml.constructor.ConstructorError(None, None, fault, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """One settings file as a mapping of text, lists and mappings. Raises InputError where it is not one."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_TextLoader)
    except FileNotFoundError as error:
        found = sorted(str(path.with_name(other.name)) for other in path.parent.glob("*.y*ml"))
        remedy = nearest(str(path), found) if found else "check the path"
        raise InputError(f"{path}: there is no such settings file; {remedy}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a YAML file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text; name a YAML file") from error
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise InputError(f"{path}: not a settings file: {where}{problem or error}") from error
    if not content:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no settings; write `key: value` lines")
    return content


def merge_files(paths: Sequence[Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """Merge settings files left to right. Returns the values and the file that each of them came from."""
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for path in paths:
        for key, value in read_yaml(path).items():
            values[key], origin[key] = value, str(path)
    return values, origin


def no_such_setting(key: str, known: Iterable[str], place: str) -> str:
    """What to say of an unknown key: where it stands, and what was probably meant."""
    former = _FORMER_NAMES.get(key)
    remedy = f"here it is {former}" if former else nearest(key, known)
    return f"{key}: no such setting ({place}); {remedy}"


def nearest(word: str, known: Iterable[str]) -> str:
    """The names most like `word`, as the end of a message; all, where none is like it and they are few."""
    names, word = sorted(known), word.replace("-", "_")
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.9) or difflib.get_close_matches(
        word, names, n=3
    )
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"there is {', '.join(names)}" if len(names) <= 20 else "--help and --help_all list the settings"
