"""What a run is told in `--config` files and on a command line that wins -> checked settings."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from qa.adapters import SAVED_SETTINGS, SavedAdapter, find_adapter
from qa.configuration import COMMAND_LINE, SettingsParser, merge_files, nearest, read_yaml
from qa.decoding import DecodingSettings
from qa.errors import InputError
from qa.hub import reader_folder
from qa.models import ModelArguments, local_folder
from qa.run_settings import DataArguments, MonitoringSettings, OptimizationSettings, RunSettings
from qa.settings import Settings, checked
from qa.strategies import STRATEGIES, Strategy
from qa.windows import WindowSettings

Group = TypeVar("Group")

# In the order of --help.
_GROUPS: tuple[type, ...] = (
    RunSettings,
    ModelArguments,
    DataArguments,
    WindowSettings,
    DecodingSettings,
    OptimizationSettings,
    MonitoringSettings,
)


def parse_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Read `--config a.yaml b.yaml --key value ...` into settings; `--help` and `--help_all` print and exit.

    Files are merged left to right, the command line wins, and below both stand the settings that were saved
    with the reader that is read. Raises InputError for an unknown key or choice (naming the nearest), a value
    of another type, and what cannot be together.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    values, origin = _read_files(words)
    strategy_name, adapter = _look_ahead(words, values, origin)
    strategy_type = _strategy_type(strategy_name)
    if not {"-h", "--help", "--help_all", "--help-all"}.isdisjoint(words):
        print(_help(strategy_name, everything=not {"--help_all", "--help-all"}.isdisjoint(words)), end="")
        raise SystemExit(0)

    from qa.training_arguments import QATrainingArguments, remaining_group

    parser = _parser((*_GROUPS, strategy_type, remaining_group()))
    _refuse_other_strategies(parser, origin, words, strategy_name)
    parser.apply_defaults(values, origin)
    saved, place = _saved_reader_settings(parser.parse(words), adapter)
    parser.apply_defaults(saved | values, dict.fromkeys(saved, place) | origin)
    told = parser.parse(words)
    if not told.do_train:
        _forget_training(told)
    if adapter is not None:
        _begin_with(adapter, told)
    settings = Settings(
        model=_made(ModelArguments, told),
        data=_made(DataArguments, told),
        windows=_made(WindowSettings, told),
        decoding=_made(DecodingSettings, told),
        training=_made(QATrainingArguments, told),
        strategy=_made(strategy_type, told),
    )
    return checked(settings)


def _made(group: type[Group], told: argparse.Namespace) -> Group:
    fields = dataclasses.fields(group)  # type: ignore[arg-type]
    return group(**{f.name: getattr(told, f.name) for f in fields if f.init})


def _forget_training(told: argparse.Namespace) -> None:
    """Neutral values for what only training asks, so that an experiment's files also evaluate its reader."""
    if told.resume_from_checkpoint:
        raise InputError("resume_from_checkpoint: nothing is trained; add --do_train, or leave it out")
    told.eval_strategy = told.save_strategy = "no"
    told.load_best_model_at_end = told.eval_before_training = False
    told.early_stopping_patience = None


def _read_files(words: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of the files after --config, and the file of each."""
    parser = SettingsParser((), add_help=False)
    parser.add_argument("--config", nargs="+", action="extend", default=[])
    named, _ = parser.parse_known_args(list(words))
    return merge_files([Path(name) for name in named.config])


@dataclass
class _LookAhead:
    """The settings that decide which other settings there are."""

    strategy: str | None = None
    model_name_or_path: str | None = None
    adapter_name_or_path: list[str] | None = None
    adapter_name: str | None = None
    model_revision: str | None = None
    allow_pickle_weights: bool = False
    output_dir: str | None = RunSettings.output_dir
    do_train: bool = False


def _look_ahead(
    words: Sequence[str], values: Mapping[str, Any], origin: Mapping[str, str]
) -> tuple[str | None, SavedAdapter | None]:
    """The strategy's name, and the adapter that is read, which knows the strategy it was trained by."""
    parser = SettingsParser([_LookAhead], add_help=False)
    parser.apply_defaults({key: value for key, value in values.items() if key in parser.names()}, origin)
    named, _ = parser.parse_known_args(list(words))
    finished = None if named.do_train else named.output_dir
    adapter = find_adapter(
        named.adapter_name_or_path,
        named.adapter_name,
        named.model_name_or_path,
        finished,
        # A training names an adapter of the hub as one: what it is asked must not depend on the network.
        on_hub=not named.do_train,
        revision=named.model_revision,
        allow_pickle=named.allow_pickle_weights,
    )
    return (named.strategy if adapter is None else adapter.settle_strategy(named.strategy)), adapter


def _begin_with(adapter: SavedAdapter, told: argparse.Namespace) -> None:
    """Settle model and strategy of a run that reads an adapter: the base, the folder, the hyper-parameters.

    Raises InputError for a hyper-parameter that is not the loaded adapter's: it would have no effect.
    """
    told.model_name_or_path = adapter.settle_base(told.model_name_or_path)
    if adapter.as_model:
        told.adapter_name_or_path = [adapter.place]
        # It was the adapter's, where that is on the hub.
        told.model_revision = told.model_revision if local_folder(adapter.place).exists() else None
    kind = STRATEGIES[told.strategy]
    if _made(kind, told).reader_folder is None:
        return
    parser = SettingsParser([kind], add_help=False)
    saved = {name: value for name, value in adapter.settings.items() if name in parser.names()}
    parser.apply_defaults(saved, dict.fromkeys(saved, adapter.settings_file))
    trained = vars(parser.parse([]))
    for name in saved:
        if getattr(told, name) != trained[name]:
            raise InputError(
                f"{name}: {getattr(told, name)}, but {adapter.place} was trained with {trained[name]}; "
                "take it out, or train a new adapter beside: --adapter_name NAME"
            )


def _strategy_type(name: str | None) -> type[Strategy]:
    name = "full" if name is None else name
    if name not in STRATEGIES:
        raise InputError(f"strategy: {name}: no such choice; {nearest(name, STRATEGIES)}")
    return STRATEGIES[name]


def _parser(groups: Sequence[type]) -> SettingsParser:
    parser = SettingsParser(
        groups,
        prog="run_qa.py",
        add_help=False,
        usage="run_qa.py [--config FILE ...] [--setting VALUE ...]",
        description="Fine-tune a span reader on questions, score it with the official metrics, ask it.",
    )
    parser.add_argument(
        "--config",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="YAML files of `setting: value` lines; later ones win over earlier, the command line over all.",
    )
    parser.add_argument("-h", "--help", action="store_true", help="Print this and stop.")
    parser.add_argument(
        "--help_all", action="store_true", help="Print transformers' settings, too, and stop."
    )
    return parser


_HELP_END = """
An experiment is a few files and a difference:
  --config experiments/base.yaml experiments/datasets/squad1.yaml --learning_rate 2e-5
Every other setting of transformers.TrainingArguments is understood as well
(--lr_scheduler_type, --optim, --data_seed, ...): --help_all lists them.
"""


def _help(strategy: str | None, *, everything: bool) -> str:
    """Help by groups: ours, every strategy's (or only the named one's), transformers' where asked for."""
    parts = list(STRATEGIES.values()) if strategy is None else [_strategy_type(strategy)]
    if everything:
        from qa.training_arguments import remaining_group

        parts.append(remaining_group())
    # Strategies may share names of settings, so each has a parser of its own.
    helps = [SettingsParser([part], usage=argparse.SUPPRESS, add_help=False).format_help() for part in parts]
    return "\n".join([_parser(_GROUPS).format_help(), *filter(None, helps)]) + _HELP_END


def _refuse_other_strategies(
    parser: SettingsParser, origin: Mapping[str, str], words: Sequence[str], chosen: str | None
) -> None:
    """A setting of another strategy is not unknown: say whose it is."""
    flags = [word for word in words if word.startswith("--")]
    typed = {flag.partition("=")[0].lstrip("-").replace("-", "_"): COMMAND_LINE for flag in flags}
    known = parser.names()
    for key, place in {**{key: f"in {file}" for key, file in origin.items()}, **typed}.items():
        owners = [name for name, kind in STRATEGIES.items() if key in kind.__dataclass_fields__]
        if owners and key not in known:
            raise InputError(
                f"{key}: a setting of strategy {' or '.join(owners)} ({place}), but this run's is "
                f"{chosen or 'full'}; add --strategy {owners[0]} or take it out"
            )


def _saved_reader_settings(
    named: argparse.Namespace, adapter: SavedAdapter | None
) -> tuple[dict[str, Any], str]:
    """Settings saved with the reader that is read, so that nobody has to repeat them, and their file.

    A reader that trains on is the one that `model_name_or_path` names: what `output_dir` may hold is an
    earlier run's, and has no say.
    """
    if adapter is not None:
        return adapter.reader_settings, adapter.settings_file
    folder = named.model_name_or_path or (None if named.do_train else named.output_dir)
    place = (
        local_folder(folder or "") if named.do_train else reader_folder(folder or "", named.model_revision)
    )
    path = place / SAVED_SETTINGS
    return (read_yaml(path) if folder and path.is_file() else {}), str(path)
