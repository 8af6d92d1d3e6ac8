"""Reads an offline W&B run back: LevelDB's log format (blocks of 32 KiB) with W&B's protobuf records in it.

wandb 0.31 ships no reader of its own; the format is github.com/google/leveldb/blob/main/doc/log_format.md
behind a header of 7 bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER, PREFIX = 32_768, 7, 7
FULL, LAST = 1, 4


def records(data: bytes) -> Iterator[bytes]:
    """The payloads of the log, fragments joined."""
    assert data[:4] == b":W&B", "not a W&B file"
    at, joined = PREFIX, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:  # a block's end too short for a header is padding
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        if not kind:
            return
        joined += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (FULL, LAST):
            yield joined
            joined = b""


def read_run(output: Path) -> dict[str, Any]:
    """Config, group, history and summary of the one offline run below `output`/wandb."""
    from wandb.proto import wandb_internal_pb2

    (file,) = output.glob("wandb/offline-run-*/*.wandb")
    found: dict[str, Any] = {"config": {}, "history": [], "summary": {}, "group": None}
    for payload in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["group"] = record.run.run_group
            found["config"] |= _items(record.run.config.update)
        elif kind == "history":
            found["history"].append(_items(record.history.item))
        elif kind == "summary":
            found["summary"] |= _items(record.summary.update)
    return found


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
