"""Reads back what an offline wandb run wrote: the records of its `.wandb` file.

The file is a LevelDB log (google/leveldb: doc/log_format.md) behind a header of 7 bytes, in blocks of 32 kB;
each record is a `Record` of wandb's own protocol.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, HEADER, RECORD = 32768, 7, 7
FULL, LAST = 1, 4


@dataclass
class OfflineRun:
    """run: name, group, tags, job type, id, project. history: a dict per log. artifacts: name -> type."""

    run: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None


def read_offline_run(folder: Path) -> OfflineRun:
    """Everything in the one offline run below `folder`."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("**/run-*.wandb")
    found = OfflineRun()
    for payload in _payloads(path.read_bytes()):
        record = Record()
        record.ParseFromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found.run = {
                "name": run.display_name,
                "group": run.run_group,
                "tags": list(run.tags),
                "job_type": run.job_type,
                "id": run.run_id,
                "project": run.project,
            }
            found.config |= _items(run.config.update)
        elif kind == "config":
            found.config |= _items(record.config.update)
        elif kind == "history":
            found.history.append(_items(record.history.item))
        elif kind == "summary":
            found.summary |= _items(record.summary.update)
        elif kind == "artifact":
            found.artifacts[record.artifact.name] = record.artifact.type
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            artifact = record.request.log_artifact.artifact
            found.artifacts[artifact.name] = artifact.type
        elif kind == "metric":
            found.steps[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def _items(items: Any) -> dict[str, Any]:
    """Keys may be a path of several words, which are joined by a point."""
    return {(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in items}


def _payloads(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B"
    position, parts = HEADER, b""
    while position + RECORD <= len(data):
        if BLOCK - position % BLOCK < RECORD:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if kind == 0:
            position += BLOCK - position % BLOCK
            continue
        parts += data[position + RECORD : position + RECORD + length]
        position += RECORD + length
        if kind in (FULL, LAST):
            yield parts
            parts = b""
