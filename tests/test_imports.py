"""What may import what: an `ast` walk over the project against the table below.

A new module fails here until it has its line: put it below all it imports and name the packages it needs.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# A module imports only modules that stand above it in this table, inside functions or not. Beside each one:
# the packages it may import beyond the standard library; "+" = only inside functions, so that the module
# itself stays cheap to import.
LAYERS = {
    "the words that all use": {
        "qa.errors": "",
        "qa.records": "",
        "qa.files": "",
        "qa.cpu": "",
        "qa.cpu.allocation": "",
    },
    "metrics: the standard library only, but for what adapts them to `evaluate`": {
        "qa.metrics.answers": "",
        "qa.metrics.no_answer": "",
        "qa.metrics.squad": "",
        "qa.metrics.oracle": "",
        "qa.metrics.bootstrap": "",
        "qa.metrics.signature": "",
        "qa.metrics.files": "",
        "qa.metrics": "",
        "qa.metrics.__main__": "",
        "qa.metrics.evaluate_module": "datasets evaluate",
    },
    "scores to answers: NumPy only": {
        "qa.decoding.window_scores": "numpy",
        "qa.decoding.candidates": "numpy",
        "qa.decoding.duplicates": "numpy",
        "qa.decoding.spans": "numpy",
        "qa.decoding.n_best": "numpy",
        "qa.decoding": "",
        "qa.confidence.temperature": "numpy",
        "qa.confidence.final_answers": "numpy",
        "qa.confidence.thresholds": "numpy",
        "qa.confidence": "",
    },
    "records and checkpoints on disk": {
        "qa.results": "",
        "qa.checkpoints": "",
        "qa.tracking.deadlines": "",
        "qa.tracking.summary": "",
        "qa.tracking.runs": "+wandb",
        "qa.tracking": "",
        "qa.tracking.online": "+wandb",
    },
    "files to examples": {
        "qa.datasets.answers": "",
        "qa.datasets.source": "",
        "qa.datasets.content": "+pyarrow",
        "qa.datasets.checking": "",
        "qa.datasets.judging": "",
        "qa.datasets.table": "+datasets +pyarrow",
        "qa.datasets.cache": "+datasets",
        "qa.datasets.squad": "",
        "qa.datasets.splitting": "",
        "qa.datasets.mrqa": "",
        "qa.datasets.flat": "",
        "qa.datasets.sample": "",
        "qa.datasets.hub": "+datasets",
        "qa.datasets.readers": "",
        "qa.datasets.load": "+numpy",
        "qa.datasets.report": "",
        "qa.datasets": "",
    },
    "examples to windows to batches": {
        "qa.tokenizers": "+tokenizers +transformers",
        "qa.windows.labels": "numpy",
        "qa.windows.reading": "numpy",
        "qa.windows.slices": "numpy",
        "qa.windows.columns": "numpy pyarrow +datasets",
        "qa.windows.building": "numpy +datasets +pyarrow",
        "qa.windows": "",
        "qa.packing": "torch",
        "qa.batching": "numpy torch",
        "qa.questions": "",
    },
    "the model, its loss and what of it trains": {
        "qa.losses": "torch",
        "qa.reduction": "numpy torch",
        "qa.gradients": "torch",
        "qa.cpu.products": "torch",
        "qa.cpu.dropout": "torch",
        "qa.cpu.layers": "torch",
        "qa.attention": "torch transformers",
        "qa.layers": "+torch",
        "qa.models": "+safetensors +torch +transformers",
        "qa.model_sizes": "+torch",
        "qa.hub": "+huggingface_hub",
        "qa.peft_methods.registration": "peft torch",
        "qa.peft_methods.heads": "peft torch",
        "qa.peft_methods.saving": "peft safetensors torch transformers",
        "qa.peft_methods.prompts": "peft torch transformers",
        "qa.peft_methods.bitfit": "peft torch",
        "qa.peft_methods.layernorm": "peft torch",
        "qa.peft_methods.bottleneck": "peft torch transformers",
        "qa.peft_methods.question_answering": "peft torch",
        "qa.peft_methods": "",
        "qa.peft_methods.attaching": "peft safetensors torch",
        "qa.peft_methods.rank_allocation": "safetensors torch transformers",
        "qa.strategies.base": "",
        "qa.strategies.full": "",
        "qa.strategies.head": "",
        "qa.strategies.top_layers": "",
        "qa.strategies.adapters": "",
        "qa.strategies.lora": "+peft",
        "qa.strategies.adalora": "+peft +torch",
        "qa.strategies.ia3": "+peft",
        "qa.strategies.adapter": "",
        "qa.strategies.bitfit": "",
        "qa.strategies.layernorm": "",
        "qa.strategies.prompt": "+peft",
        "qa.strategies.p_tuning": "+peft",
        "qa.strategies.prefix": "+peft",
        "qa.strategies": "",
    },
    "one run": {
        "qa.configuration": "transformers yaml",
        "qa.adapters": "",
        "qa.run_settings": "",
        "qa.training_arguments": "torch transformers",
        "qa.settings": "",
        "qa.arguments": "",
        "qa.evaluation": "",
        "qa.reporting": "",
        "qa.reporting.data_report": "numpy",
        "qa.reporting.predictions": "",
        "qa.reporting.model_card": "+huggingface_hub",
        "qa.reporting.result_table": "",
        "qa.tracking.answers": "",
        "qa.tracking.following": "transformers",
        "qa.trainer": "torch transformers",
        "qa.session": "yaml",
        "run_qa": "+transformers",
    },
    "many runs: tables": {
        "qa.tables": "",
        "qa.tables.spec": "",
        "qa.tables.identity": "",
        "qa.tables.record": "",
        "qa.tables.plan": "",
        "qa.tables.locks": "",
        "qa.tables.launching": "",
        "qa.tables.statistics": "",
        "qa.tables.values": "",
        "qa.tables.reported": "yaml",
        "qa.tables.store": "",
        "qa.tables.runner": "",
        "qa.tables.cells": "",
        "qa.tables.rendering": "",
        "qa.reporting.point_labels": "",
        "qa.reporting.plots": "+matplotlib",
        "qa.reporting.compared_runs": "",
        "qa.reporting.comparison": "",
        "qa.tables.__main__": "",
    },
    "answers to new questions": {
        "qa.predicting": "",
        "qa.predicting.inputs": "",
        "qa.predicting.loading": "+torch +transformers +yaml",
        "qa.predicting.options": "",
        "qa.predicting.reading": "numpy torch +pyarrow",
        "qa.predicting.answers": "",
        "qa.reporting.explanation_page": "",
        "qa.explanations": "numpy torch",
        "qa.predictor": "+tqdm",
        "qa.pipeline": "transformers",
        "qa.documents": "+pypdf",
        "qa.ask": "+transformers",
        "qa.readers": "",
        "qa.readers.pack": "+safetensors +yaml",
        # The front door opens on first use: importing the package imports nothing.
        "qa": "",
    },
}
ORDER = [module for layer in LAYERS.values() for module in layer]

HEAVY = {"torch", "transformers", "datasets", "peft", "accelerate", "evaluate", "wandb", "pyarrow"}
LIGHT = [
    *("qa.errors", "qa.records", "qa.files", "qa.results", "qa.checkpoints", "qa.tracking"),
    *("qa.decoding", "qa.confidence", "qa.windows", "qa.metrics", "qa.metrics.__main__"),
]
"""Modules to import on a machine without torch, in milliseconds: whatever they import counts as theirs."""


@dataclass(frozen=True)
class Imports:
    """What a module imports, type checking left out. now: with the module; later: inside functions."""

    now: frozenset[str]
    later: frozenset[str]


def source_files() -> dict[str, Path]:
    """Module name -> its file."""
    files = {}
    for path in [*REPOSITORY.glob("qa/**/*.py"), REPOSITORY / "run_qa.py"]:
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


FILES = source_files()


def imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    """The modules an import statement names; `from package import module` means the module."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    assert node.module is not None
    assert node.level == 0, "relative imports hide where they point"
    submodules = {f"{node.module}.{alias.name}" for alias in node.names}
    return {name if name in FILES else node.module for name in submodules}


def import_statements(
    node: ast.AST, inside_function: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """(statement, whether it stands in a function), `if TYPE_CHECKING:` blocks passed over."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, inside_function
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            for other in child.orelse:
                yield from import_statements(ast.Module([other], []), inside_function)
        else:
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from import_statements(child, inside_function or is_function)


@cache
def imports_of(module: str) -> Imports:
    found: dict[bool, set[str]] = {False: set(), True: set()}
    for statement, inside_function in import_statements(ast.parse(FILES[module].read_text("utf-8"))):
        found[inside_function] |= imported(statement)
    return Imports(frozenset(found[False]), frozenset(found[True]))


def is_ours(name: str) -> bool:
    return name.split(".")[0] in {"qa", "run_qa"}


def packages(names: frozenset[str]) -> set[str]:
    """Third-party packages among imported names."""
    tops = {name.split(".")[0] for name in names if not is_ours(name)}
    return tops - sys.stdlib_module_names


def everything_imported_with(module: str) -> set[str]:
    """What importing a module imports, directly or not, packages' `__init__` files included."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if name in FILES:
            waiting.extend(imports_of(name).now)
            waiting.extend(parent for parent in [name.rpartition(".")[0]] if parent)
    return found


def test_every_module_has_its_line_and_every_line_its_module() -> None:
    assert len(ORDER) == len(set(ORDER))
    assert set(ORDER) == set(FILES), "add a new module to LAYERS, below everything it imports"


@pytest.mark.parametrize("module", ORDER)
def test_imports_point_one_way(module: str) -> None:
    above = set(ORDER[: ORDER.index(module)])
    found = {name for name in imports_of(module).now | imports_of(module).later if is_ours(name)}
    assert found <= above, f"{module} may import only what stands above it in LAYERS"


@pytest.mark.parametrize("module", ORDER)
def test_packages_are_the_ones_allowed(module: str) -> None:
    (words,) = [layer[module].split() for layer in LAYERS.values() if module in layer]
    at_once = {word for word in words if not word.startswith("+")}
    assert packages(imports_of(module).now) <= at_once
    assert packages(imports_of(module).later) <= {word.removeprefix("+") for word in words}


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    drawers = {"utils", "util", "common", "helpers", "helper", "misc", "tools", "shared"}
    assert {module for module in FILES if drawers & set(module.split("."))} == set()


def test_no_cycle_among_the_modules() -> None:
    """On its own feet: it holds whatever stands in the table."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a cycle: {' -> '.join((*path[path.index(module) :], module))}"
        if module in done:
            return
        for name in imports_of(module).now & FILES.keys():
            visit(name, (*path, module))
        done.add(module)

    for module in FILES:
        visit(module, ())
    assert done == set(FILES)


@pytest.mark.parametrize("module", [module for module in ORDER if module.startswith("qa.metrics")])
def test_metrics_need_the_standard_library_only(module: str) -> None:
    allowed = {"qa.errors", "qa.records"} | {name for name in FILES if name.startswith("qa.metrics")}
    found = imports_of(module).now | imports_of(module).later
    assert {name for name in found if is_ours(name)} <= allowed
    outside = {"datasets", "evaluate"} if module == "qa.metrics.evaluate_module" else set()
    assert packages(frozenset(found)) == outside


@pytest.mark.parametrize(
    ("package", "home"),
    [("wandb", "qa.tracking"), ("matplotlib", "qa.reporting"), ("evaluate", "qa.metrics.evaluate_module")],
)
def test_some_packages_have_one_home(package: str, home: str) -> None:
    users = {
        module for module in FILES if package in packages(imports_of(module).now | imports_of(module).later)
    }
    assert {user for user in users if user != home and not user.startswith(f"{home}.")} == set()


def test_nobody_imports_the_script() -> None:
    users = {module for module in FILES if "run_qa" in imports_of(module).now | imports_of(module).later}
    assert users == set()


def test_nobody_takes_another_modules_private_names() -> None:
    found = [
        f"{module}: {alias.name}"
        for module, path in FILES.items()
        for statement, _ in import_statements(ast.parse(path.read_text("utf-8")))
        if isinstance(statement, ast.ImportFrom) and is_ours(statement.module or "")
        for alias in statement.names
        if alias.name.startswith("_")
    ]
    assert found == []


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_reach_nothing_heavy(module: str) -> None:
    assert {name.split(".")[0] for name in everything_imported_with(module)} & HEAVY == set()


def test_light_modules_load_nothing_heavy() -> None:
    """The same, as Python sees it."""
    code = f"import sys, importlib; [importlib.import_module(name) for name in {LIGHT!r}]; "
    code += f"print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_the_walk_sees_what_it_should() -> None:
    """The checks above rest on it."""
    code = """
import os, torch.nn as nn
from qa import errors
from qa.metrics.answers import f1
if TYPE_CHECKING:
    import wandb
else:
    import numpy
try:
    import peft
except ImportError:
    pass
class A:
    import yaml
    def method(self):
        import evaluate
        if x:
            from transformers.models import bert
"""
    found: dict[bool, set[str]] = {False: set(), True: set()}
    for statement, inside_function in import_statements(ast.parse(code)):
        found[inside_function] |= imported(statement)
    assert found[False] == {"os", "torch.nn", "qa.errors", "qa.metrics.answers", "numpy", "peft", "yaml"}
    assert found[True] == {"evaluate", "transformers.models"}
    assert packages(frozenset(found[False])) == {"torch", "numpy", "peft", "yaml"}
