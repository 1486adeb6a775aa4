"""Checkpoints: whole ones are found, broken ones named, old ones removed, and nobody's files deleted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from qa import checkpoints
from qa.checkpoints import (
    MANIFEST,
    RUN_MARK,
    ResumePoint,
    checkpoints_in,
    find_fault,
    find_resume_point,
    prepare_output_dir,
    remove_old,
    require_whole,
    set_aside,
    write_manifest,
)
from qa.errors import InputError

NEWEST = "newest"


def make_checkpoint(output_dir: Path, step: int, sealed: bool = True) -> Path:
    folder = output_dir / f"checkpoint-{step}"
    (folder / "deep").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4)
    (folder / "optimizer.pt").write_bytes(b"moments of step %d" % step)
    (folder / "deep" / MANIFEST).write_text("{}")  # only the manifest at the top is ours
    (folder / "empty").touch()
    if sealed:
        write_manifest(folder)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def prepare(
    output_dir: Path, resume: str | None = None, overwrite: bool = False, **options: object
) -> ResumePoint:
    settings: dict = {"training": True, "resume": resume, "overwrite": overwrite, "newest": NEWEST}
    return prepare_output_dir(output_dir, **(settings | options))


def test_a_manifest_names_every_file_with_size_and_sum(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, 5)
    content = json.loads((folder / MANIFEST).read_text())
    assert set(content["files"]) == {"model.safetensors", "optimizer.pt", f"deep/{MANIFEST}", "empty"}
    assert content["files"]["empty"] == {
        "bytes": 0,
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
    assert find_fault(folder) is None
    (folder / "notes.txt").write_text("came later")
    assert find_fault(folder) is None


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _cut_in_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(bytes(content))


FAULTS = {
    "truncated": (lambda f: _truncate(f / "optimizer.pt"), "optimizer.pt has 17 bytes instead of 18"),
    "bit flipped": (
        lambda f: _flip_a_bit(f / "model.safetensors"),
        "model.safetensors has changed since it was written",
    ),
    "file missing": (lambda f: (f / "optimizer.pt").unlink(), "optimizer.pt is missing"),
    "a folder instead": (lambda f: ((f / "empty").unlink(), (f / "empty").mkdir()), "empty is missing"),
    "deep file missing": (lambda f: shutil.rmtree(f / "deep"), f"deep/{MANIFEST} is missing"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "it was never finished (no manifest)"),
    "half a manifest": (lambda f: _cut_in_half(f / MANIFEST), "its manifest cannot be read"),
    "empty manifest": (lambda f: (f / MANIFEST).write_text(""), "its manifest cannot be read"),
    "zeros": (lambda f: (f / MANIFEST).write_bytes(b"\0" * 80), "its manifest cannot be read"),
    "not UTF-8": (lambda f: (f / MANIFEST).write_bytes(b"\xff\xfe"), "its manifest cannot be read"),
    "a list": (lambda f: (f / MANIFEST).write_text("[]"), "its manifest cannot be read"),
    "no files key": (lambda f: (f / MANIFEST).write_text("{}"), "its manifest cannot be read"),
    "files is a list": (lambda f: (f / MANIFEST).write_text('{"files": [1]}'), "its manifest cannot be read"),
    "no sums": (
        lambda f: (f / MANIFEST).write_text('{"files": {"empty": {"bytes": 0}}}'),
        "its manifest cannot be read",
    ),
    "names nothing": (lambda f: (f / MANIFEST).write_text('{"files": {}}'), "its manifest names no file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named_and_the_one_before_is_taken(tmp_path: Path, fault: str) -> None:
    older, whole, broken = (make_checkpoint(tmp_path, step) for step in (8, 9, 10))
    damage, description = FAULTS[fault]
    damage(broken)
    assert find_fault(broken) == description
    assert find_fault(older) is None
    assert find_resume_point(tmp_path) == ResumePoint(whole, ((broken, description),))
    with pytest.raises(InputError, match="cannot be trusted") as error:
        require_whole(broken)
    assert description in str(error.value)


def test_sizes_are_looked_at_before_any_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(tmp_path, 1)
    _truncate(folder / "optimizer.pt")
    monkeypatch.setattr(checkpoints, "file_sha256", lambda path: pytest.fail(f"read {path}"))
    assert find_fault(folder) == "optimizer.pt has 16 bytes instead of 17"


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(tmp_path, 1)

    def fail(path: Path) -> str:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(checkpoints, "file_sha256", fail)
    assert find_fault(folder) == "its files cannot be read (Input/output error)"


def test_checkpoints_are_ordered_by_number(tmp_path: Path) -> None:
    assert checkpoints_in(tmp_path / "missing") == []
    for step in (900, 1000, 50):
        make_checkpoint(tmp_path, step)
    for name in ("checkpoint-2000.set-aside", "checkpoint-", "checkpoint-x", "old-checkpoint-3"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-3000").write_text("a file")
    assert [path.name for path in checkpoints_in(tmp_path)] == [
        "checkpoint-1000",
        "checkpoint-900",
        "checkpoint-50",
    ]


def test_broken_ones_are_set_aside_and_never_deleted(tmp_path: Path) -> None:
    moved = [set_aside(make_checkpoint(tmp_path, 7, sealed=False)) for _ in range(3)]
    assert [path.name for path in moved] == [
        "checkpoint-7.set-aside",
        "checkpoint-7.set-aside-2",
        "checkpoint-7.set-aside-3",
    ]
    assert all((path / "optimizer.pt").is_file() for path in moved)
    assert checkpoints_in(tmp_path) == []
    assert find_resume_point(tmp_path) == ResumePoint(None)


def test_nothing_whole_means_from_the_start(tmp_path: Path) -> None:
    first, second = make_checkpoint(tmp_path, 1, sealed=False), make_checkpoint(tmp_path, 2, sealed=False)
    unfinished = "it was never finished (no manifest)"
    assert find_resume_point(tmp_path) == ResumePoint(None, ((second, unfinished), (first, unfinished)))


@pytest.mark.parametrize(
    ("keep", "best", "kept"),
    [
        (None, None, {2, 10, 100, 1000}),
        (0, 10, {2, 10, 100, 1000}),
        (-1, None, {2, 10, 100, 1000}),
        (4, 2, {2, 10, 100, 1000}),
        (9, None, {2, 10, 100, 1000}),
        (3, None, {10, 100, 1000}),
        (3, 2, {2, 100, 1000}),
        (3, 1000, {10, 100, 1000}),
        (2, 10, {10, 1000}),
        (2, 1000, {100, 1000}),
        (1, None, {1000}),
        (1, 1000, {1000}),
        (1, 2, {2, 1000}),  # the newest and the best stay
    ],
)
def test_remove_old_keeps_newest_and_best(
    tmp_path: Path, keep: int | None, best: int | None, kept: set[int]
) -> None:
    steps = (2, 10, 100, 1000)
    for step in steps:
        make_checkpoint(tmp_path, step)
    (tmp_path / "eval").mkdir()
    set_aside(make_checkpoint(tmp_path, 1, sealed=False))
    removed = remove_old(
        tmp_path, keep, None if best is None else tmp_path / "x" / ".." / f"checkpoint-{best}"
    )
    assert removed == [tmp_path / f"checkpoint-{step}" for step in reversed(steps) if step not in kept]
    expected = {f"checkpoint-{step}" for step in kept} | {"eval", "checkpoint-1.set-aside"}
    assert names(tmp_path) == expected
    assert all(find_fault(tmp_path / f"checkpoint-{step}") is None for step in kept)


def test_a_best_checkpoint_elsewhere_takes_no_place(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        make_checkpoint(tmp_path / "run", step)
    elsewhere = make_checkpoint(tmp_path / "other", 1)
    assert remove_old(tmp_path / "run", 2, elsewhere) == [tmp_path / "run" / "checkpoint-1"]
    assert names(tmp_path / "run") == {"checkpoint-2", "checkpoint-3"}
    assert elsewhere.is_dir()


def test_an_interrupted_deletion_leaves_an_unfinished_checkpoint_and_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        make_checkpoint(tmp_path, step)

    def killed(path: Path) -> None:
        (path / "model.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_old(tmp_path, 2, None)
    assert find_fault(tmp_path / "checkpoint-1") == "it was never finished (no manifest)"
    make_checkpoint(tmp_path, 4)
    assert remove_old(tmp_path, 3, None) == [tmp_path / "checkpoint-1"]
    assert names(tmp_path) == {"checkpoint-2", "checkpoint-3", "checkpoint-4"}


def test_what_is_not_whole_takes_no_place(tmp_path: Path) -> None:
    for step in (1, 2, 4):
        make_checkpoint(tmp_path, step)
    leftover = make_checkpoint(tmp_path, 3, sealed=False)
    assert remove_old(tmp_path, 3, None) == [leftover]
    assert names(tmp_path) == {"checkpoint-1", "checkpoint-2", "checkpoint-4"}


def test_a_fresh_folder_is_made_and_marked(tmp_path: Path) -> None:
    output_dir = tmp_path / "new" / "run"
    assert prepare(output_dir) == ResumePoint(None)
    assert names(output_dir) == {RUN_MARK}
    assert prepare(output_dir) == ResumePoint(
        None
    )  # as a second rank finds it, or a run killed before its first save


def test_without_training_what_is_there_stays(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "old", 1, sealed=False)
    assert prepare(tmp_path / "old", training=False, overwrite=True, resume=NEWEST) == ResumePoint(None)
    assert names(tmp_path / "old") == {"checkpoint-1"}
    # A folder made for an evaluation is a run's own, too: a training may overwrite it.
    assert prepare(tmp_path / "new", training=False) == ResumePoint(None)
    (tmp_path / "new" / "eval").mkdir()
    assert prepare(tmp_path / "new", overwrite=True) == ResumePoint(None)
    assert names(tmp_path / "new") == {RUN_MARK}


@pytest.mark.parametrize("training", [True, False])
def test_a_file_is_no_output_folder(tmp_path: Path, training: bool) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match=r"output_dir: .*file is a file; name a folder"):
        prepare(tmp_path / "file", training=training)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match=r"cannot be used \(Not a directory: .*\); name another folder"):
        prepare(tmp_path / "file" / "run")


@pytest.mark.parametrize("earlier", ["checkpoint", "unfinished checkpoint", "record"])
def test_an_earlier_run_is_never_mixed_with(tmp_path: Path, earlier: str) -> None:
    output_dir = tmp_path / "run"
    prepare(output_dir)
    if earlier == "record":
        (output_dir / "run.json").write_text("{}")
    else:
        make_checkpoint(output_dir, 4, sealed=earlier == "checkpoint")
    before = names(output_dir)
    with pytest.raises(InputError) as error:
        prepare(output_dir)
    message = str(error.value)
    assert message.startswith(f"output_dir: {output_dir} holds an earlier run; ")
    assert "--resume_from_checkpoint" in message
    assert "--overwrite_output_dir true" in message
    assert message.count(". ") == 0
    assert names(output_dir) == before
    assert prepare(output_dir, overwrite=True) == ResumePoint(None)
    assert names(output_dir) == {RUN_MARK}


def test_resume_from_the_newest(tmp_path: Path) -> None:
    output_dir = tmp_path / "run"
    assert prepare(output_dir, NEWEST) == ResumePoint(None)  # killed before it wrote anything
    assert names(output_dir) == {RUN_MARK}
    assert prepare(output_dir, NEWEST) == ResumePoint(None)
    whole, broken = make_checkpoint(output_dir, 4), make_checkpoint(output_dir, 12, sealed=False)
    point = ResumePoint(whole, ((broken, "it was never finished (no manifest)"),))
    assert prepare(output_dir, NEWEST) == point
    assert broken.is_dir()  # it only looks


def test_resume_from_a_named_checkpoint_sets_newer_ones_aside(tmp_path: Path) -> None:
    output_dir = tmp_path / "run"
    prepare(output_dir)
    old, middle, new = (make_checkpoint(output_dir, step) for step in (8, 9, 10))
    assert prepare(output_dir, str(new)) == ResumePoint(new)
    newer = "it is newer than checkpoint-8"
    assert prepare(output_dir, str(old)) == ResumePoint(old, ((new, newer), (middle, newer)))


def test_resume_from_another_folder(tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other", 3)
    assert prepare(tmp_path / "run", str(other)) == ResumePoint(other)
    make_checkpoint(tmp_path / "run", 1)
    with pytest.raises(InputError, match="holds another run than the one of"):
        prepare(tmp_path / "run", str(other))
    with pytest.raises(InputError, match="there is no folder nowhere; leave the value out"):
        prepare(tmp_path / "run", "nowhere")


@pytest.mark.parametrize(
    "ours", [(), ("run.json",), ("data_report.json", "settings.yaml"), ("checkpoint-4",)]
)
def test_overwriting_deletes_no_folder_that_a_run_did_not_make(tmp_path: Path, ours: tuple[str, ...]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if not ours:
        assert prepare(tmp_path) == ResumePoint(None)  # writing into it is allowed
    for name in ours:
        make_checkpoint(tmp_path, 4) if name == "checkpoint-4" else (tmp_path / name).write_text("{}")
    before = names(tmp_path)
    with pytest.raises(InputError, match="was not made by a run and is not deleted") as error:
        prepare(tmp_path, overwrite=True)
    assert sorted(before)[0] in str(error.value)
    assert names(tmp_path) == before == {"thesis.tex", *ours}
    if "run.json" in ours or "checkpoint-4" in ours:
        with pytest.raises(
            InputError, match="to go on with it, or name another folder"
        ):  # no offer to delete
            prepare(tmp_path)


def test_overwriting_the_root_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints.shutil, "rmtree", lambda path: pytest.fail(f"deleted {path}"))
    monkeypatch.setattr(Path, "unlink", lambda path, **_: pytest.fail(f"deleted {path}"))
    with pytest.raises(InputError, match=r"overwrite_output_dir: / was not made by a run"):
        prepare(Path("/"), overwrite=True)


def test_overwriting_empties_a_runs_own_folder(tmp_path: Path) -> None:
    output_dir, linked = tmp_path / "run", tmp_path / "linked"
    prepare(output_dir)
    make_checkpoint(output_dir, 4)
    linked.mkdir()
    (linked / "kept.txt").write_text("not of this run")
    (output_dir / "link").symlink_to(linked)
    (output_dir / "dangling").symlink_to(tmp_path / "nowhere")
    assert prepare(output_dir, overwrite=True) == ResumePoint(None)
    assert names(output_dir) == {RUN_MARK}
    assert names(linked) == {"kept.txt"}
    assert prepare(tmp_path / "fresh", overwrite=True) == ResumePoint(None)


def test_overwriting_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    prepare(tmp_path / "run")
    make_checkpoint(tmp_path / "run", 4)
    prepare(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run").is_symlink()
    assert names(tmp_path / "disk") == {RUN_MARK}


def test_an_interrupted_overwriting_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output_dir = tmp_path / "run"
    prepare(output_dir)
    for step in (1, 2):
        make_checkpoint(output_dir, step)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(output_dir, overwrite=True)
    assert names(output_dir) == {RUN_MARK, "checkpoint-1", "checkpoint-2"}
    prepare(output_dir, overwrite=True)
    assert names(output_dir) == {RUN_MARK}
