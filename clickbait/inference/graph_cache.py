"""One copy of a model's weights per machine: laid out for the CPU's kernels, in a file that processes map.

onnxruntime packs a model's weights each time it loads them, and each process keeps its own copy. Here that is
done once per machine. Replicas map one file, so they share its pages, in memory and in the CPU's cache (`make
bench-engine`). What is written depends on the graph's bytes, on this file's `_FORM`, on onnxruntime's version
and on the CPU, and its name is a hash of them. The logits are the same to the bit.

    with graph(Path("bundle/model.onnx"), sha256, folder(), optimized=False) as (path, ready):
        ...   # load `path` with `options(threads, optimized=ready)`

The SHA-256 of both files is kept beside them: a file that is torn or altered is made again
(`clickbait.storage.folder_cache`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clickbait import telemetry
from clickbait.registry.bundle import sha256 as digest
from clickbait.storage import PART, replacing, user_cache
from clickbait.storage.folder_cache import Cache

GRAPH, WEIGHTS = "graph.onnx", "weights.bin"
_SUMS = "sums.json"  # the SHA-256 of the two; written last
_FORM = 4  # another number where another version of this code writes other files for the same graph
_KEPT = 8  # graphs: production, staging, a canary, and their predecessors
_NAMES = re.compile(r"[0-9a-f]{32}|\.new-.*")  # the second: of earlier releases
_SMALLEST = 1024  # bytes of a tensor that goes to the weights' file; smaller ones stay in the graph
_log = logging.getLogger(__name__)


def folder() -> Path:
    """Where this user's graphs with packed weights are."""
    return user_cache.path("prepared")


def options(threads: int, *, optimized: bool) -> Any:
    """The session's options (reasons: docs/serving.md). `optimized`: the graph is, and is loaded as it is."""
    telemetry.off()
    import onnxruntime

    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = threads
    session.inter_op_num_threads = 1
    session.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Idle threads that spin would take the neighbours' cores.
    session.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session.log_severity_level = 3  # errors: what cannot be loaded is reported here
    if optimized:
        session.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return session


@contextlib.contextmanager
def graph(model: Path, sha256: str, cache: Path, *, optimized: bool = False) -> Iterator[tuple[Path, bool]]:
    """The graph `model` with packed weights, from `cache` or written there now, and whether it is optimised.

    One process writes it, and the others wait. If it cannot be written, the log says why and the result is
    `model` itself: each process then has its own copy of the weights.

    Args:
        model: the graph in the bundle.
        sha256: of its bytes.
        cache: the folder of this machine's graphs.
        optimized: `model` is optimised already. If not, onnxruntime optimises it first.
    """
    try:
        user_cache.own(cache)
        name = _name(sha256)
        lease = Cache(cache, keep=_KEPT, names=_NAMES, variable="TMPDIR").take(
            name, _Packed(model, optimized)
        )
    except Exception as error:  # onnxruntime's exceptions share no base but Exception
        reason = " ".join(str(error).split())[:200]
        _log.warning("%s: not prepared, and its weights are not shared: %s", model, reason)
        yield model, optimized
        return
    try:
        yield lease.folder / GRAPH, True
    finally:
        lease.close()


def _name(sha256: str) -> str:
    telemetry.off()
    import onnxruntime

    inputs = f"{_FORM} {sha256} {onnxruntime.__version__} {_processor()}"
    return hashlib.sha256(inputs.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class _Packed:
    """A graph with packed weights in the cache (`clickbait.storage.folder_cache.Entry`)."""

    model: Path
    optimized: bool

    def whole(self, folder: Path) -> bool:
        try:
            return bool(
                json.loads((folder / _SUMS).read_bytes())
                == {name: digest(folder / name) for name in (GRAPH, WEIGHTS)}
            )
        except (OSError, ValueError):  # not there or torn; StorageError is a ValueError
            return False

    def lacking(self, _: Path) -> int:
        return 2 * self.model.stat().st_size  # packed weights are padded

    def fill(self, folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder, prefix=PART, ignore_cleanup_errors=True) as name:
            fresh = Path(name)
            _pack(self.model, fresh, self.optimized)
            (folder / _SUMS).unlink(missing_ok=True)  # of other files from here on
            sums = {}
            for name in (WEIGHTS, GRAPH):
                with replacing(folder / name) as temporary:
                    os.rename(fresh / name, temporary)
                sums[name] = digest(folder / name)
            with replacing(folder / _SUMS) as temporary:
                temporary.write_text(json.dumps(sums))


def _pack(model: Path, target: Path, optimized: bool) -> None:
    """Writes graph and weights into the folder `target`."""
    telemetry.off()
    import onnxruntime

    session = options(1, optimized=optimized)
    session.optimized_model_filepath = str(target / GRAPH)
    for key, value in (
        ("optimized_model_external_initializers_file_name", WEIGHTS),
        ("optimized_model_external_initializers_min_size_in_bytes", str(_SMALLEST)),
        ("save_external_prepacked_constant_initializers", "1"),
    ):
        session.add_session_config_entry(f"session.{key}", value)
    onnxruntime.InferenceSession(str(model), session, providers=["CPUExecutionProvider"])
    (target / WEIGHTS).touch()  # a model without a tensor of that size writes none


def _processor() -> str:
    """What onnxruntime packs weights for: the architecture and the CPU's instruction sets."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        features = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
        return f"{platform.machine()} {features}"
    return f"{platform.machine()} {platform.processor()} {platform.version()}"
