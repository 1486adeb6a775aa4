"""wandb without a key, without a network, with its server away: the run goes on, with one warning."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qa import tracking
from qa.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[1]
INSTALLED = importlib.util.find_spec("wandb") is not None
needs_wandb = pytest.mark.skipif(not INSTALLED, reason="wandb is not installed")


@pytest.mark.parametrize(
    ("report_to", "wanted"),
    [
        ("wandb", True),
        (["wandb"], True),
        (["tensorboard", "wandb"], True),
        (("wandb",), True),
        ("all", INSTALLED),
        (["all"], INSTALLED),
        ("none", False),
        (["none"], False),
        ([], False),
        (None, False),
        ("tensorboard", False),
        ("wandbx", False),
    ],
)
def test_what_report_to_means(report_to: Any, wanted: bool) -> None:
    assert tracking.wants_wandb(report_to) is wanted


RUN = """
from pathlib import Path
from qa import tracking

tracking.start({"output_dir": "out", "learning_rate": 1e-3}, name="first", group="seeds")
import wandb

print("mode", wandb.run.settings.mode, wandb.run.name, wandb.run.group, wandb.run.project)
print("config", wandb.run.config["learning_rate"])
record = Path("record.json")
record.write_text('{"f1": 61.5}')
tracking.finish({"eval/f1": 61.5}, record)
print("open", wandb.run)
tracking.finish({"eval/f1": 61.5}, record)
"""


def run_real_wandb(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A process with an empty home, no key and no terminal; `tmp_path` is its current folder."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "NETRC"))}
    environment = {**kept, "HOME": str(home), "PYTHONPATH": str(REPOSITORY), **variables}
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        environment.pop(name, None)
    return subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@needs_wandb
@pytest.mark.parametrize("wandb_dir", [None, "elsewhere"])
def test_without_a_key_a_run_is_tracked_offline_in_its_own_folder(
    tmp_path: Path, wandb_dir: str | None
) -> None:
    variables = {} if wandb_dir is None else {"WANDB_DIR": str(tmp_path / wandb_dir), "WANDB_PROJECT": "mine"}
    began = time.monotonic()
    done = run_real_wandb(tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 60  # 3 seconds on an idle machine; a server that is waited for takes 90
    project = "spanbert-qa" if wandb_dir is None else "mine"
    assert done.stdout.splitlines() == [f"mode offline first seeds {project}", "config 0.001", "open None"]
    warnings = [line for line in done.stderr.splitlines() if line.startswith("wandb: there is no key")]
    folder = tmp_path / (wandb_dir or "out")
    assert warnings == [
        "wandb: there is no key (set WANDB_API_KEY or run `wandb login`); this run is tracked offline, in "
        f"{folder / 'wandb'}"
    ]
    (run_dir,) = folder.glob("wandb/offline-run-*")
    copy = run_dir / "files" / "record.json"
    assert copy.read_text() == '{"f1": 61.5}'
    assert not copy.is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"home", "record.json", folder.name}
    assert list((tmp_path / "home").iterdir()) == []


class FakeServer:
    """Takes the place of wandb's calls; `faults` says what happens in each mode (or at the login)."""

    def __init__(self, faults: dict[str, Exception], key: bool = True) -> None:
        self.faults, self.key, self.calls = faults, key, []  # type: ignore[var-annotated]

    def login(self, **options: Any) -> bool:
        assert options == {"prompt": False}
        self.calls.append("login")
        self._fail("login")
        return self.key

    def init(self, *, mode: str, **options: Any) -> None:
        if options:
            assert options["settings"].init_timeout == tracking.START_SECONDS <= 15
            assert options["settings"].finish_timeout == tracking.FINISH_SECONDS
        self.calls.append(mode)
        self._fail(mode)

    def teardown(self) -> None:
        self.calls.append("teardown")

    def _fail(self, place: str) -> None:
        if place in self.faults:
            raise self.faults[place]


Connect = Callable[..., FakeServer]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Connect:
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv(
        "WANDB_CACHE_DIR", str(tmp_path)
    )  # set, so that start() has no variable to leave behind
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))

    def make(faults: dict[str, Exception], key: bool = True) -> FakeServer:
        server = FakeServer(faults, key)
        for name in ("login", "init", "teardown"):
            monkeypatch.setattr(wandb, name, getattr(server, name))
        return server

    return make


def faults_of_wandb() -> dict[str, Exception]:
    from wandb.errors import AuthenticationError, CommError, UsageError

    return {
        "away": CommError("Timed out while retrying: connection refused\nConsider increasing the timeout."),
        "late": TimeoutError("no answer"),
        "no key": UsageError("api_key not configured (no-tty)"),
        "wrong key": AuthenticationError("invalid key"),
        "silent": RuntimeError(""),
    }


@needs_wandb
@pytest.mark.parametrize("place", ["login", "online"])
@pytest.mark.parametrize("fault", ["away", "late", "no key", "wrong key", "silent"])
def test_a_server_that_cannot_be_used_costs_one_warning(
    connect: Connect, caplog: pytest.LogCaptureFixture, tmp_path: Path, place: str, fault: str
) -> None:
    error = faults_of_wandb()[fault]
    server = connect({place: error})
    with caplog.at_level(logging.INFO, logger="qa.tracking"):
        tracking.start({}, name="run")
    asked = ["login"] if place == "login" else ["login", "online"]
    assert server.calls == [*asked, "teardown", "offline"]
    first_line = (str(error).splitlines() or ["RuntimeError"])[0].rstrip(".")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            f"wandb: the server cannot be used ({first_line}); this run is tracked offline, in "
            f"{tmp_path / 'wandb'}",
        )
    ]


@needs_wandb
def test_a_server_that_answers_is_used_without_a_word(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    server = connect({})
    tracking.start({}, name="run")
    assert server.calls == ["login", "online"]
    assert caplog.records == []


@needs_wandb
@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_mode_that_was_asked_for_is_taken_without_a_word(
    connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    server = connect({})
    monkeypatch.setenv("WANDB_MODE", mode)
    tracking.start({}, name="run")
    assert server.calls == [mode]
    assert caplog.records == []


@needs_wandb
def test_where_not_even_offline_works_the_run_goes_on_untracked(
    connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = connect({"offline": OSError("disk full")})
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracking.start({}, name="run")
    assert server.calls == ["offline", "disabled"]
    assert [record.getMessage() for record in caplog.records] == ["wandb: disk full; this run is not tracked"]


@needs_wandb
def test_a_fault_at_the_end_does_not_fail_the_run(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import wandb

    class Run:
        summary: dict[str, float] = {}  # noqa: RUF012
        dir = str(tmp_path / "missing" / "files")

    monkeypatch.setattr(wandb, "run", Run())
    (tmp_path / "run.json").write_text("{}")
    tracking.finish({"f1": 3.0}, tmp_path / "run.json")
    assert Run.summary == {"f1": 3.0}
    (record,) = caplog.records
    assert record.getMessage().startswith("wandb: [Errno 2] No such file or directory")
    assert record.getMessage().endswith(f"the final scores are in {tmp_path / 'run.json'}")


def test_a_missing_wandb_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "unused"))
    with pytest.raises(InputError, match="report_to: wandb is not installed; run `pip install wandb`"):
        tracking.start({}, name="run")
    assert not (tmp_path / "unused").exists()
