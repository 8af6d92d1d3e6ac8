"""A graph as this machine computes it, its weights laid out for the processor's kernels in a file that every process maps.

onnxruntime optimises a graph and repacks its weights each time it loads it, and each process keeps its own copy. Here that is done once a
machine: replicas map one file, so they share its pages, in memory and in the processor's cache (two replicas of MiniLM that take turns need
a sixth less time for a headline; `python -m tests.performance.bench_engine`). What is made depends on the model's bytes, onnxruntime's
version and the processor, and is named by them. The scores are the same to the bit.

prepare(Path("bundle/model.onnx"), sha256, folder())   # the graph to load, with `options(threads, ready=True)`
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

from clickbait import scratch

GRAPH, WEIGHTS = "graph.onnx", "weights.bin"
_KEPT = 8  # versions: production, staging, a canary, and their predecessors
_SMALLEST = 1024  # bytes of a tensor that goes to the file; what is smaller stays in the graph
_log = logging.getLogger(__name__)


def folder() -> Path:
    """Where this user's prepared graphs are."""
    return scratch.path("prepared")


def options(threads: int, *, ready: bool) -> Any:
    """The session's options; `ready` for a graph that `prepare` gave. Why each: docs/serving.md."""
    import onnxruntime

    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads would burn the neighbours' cores
    chosen.log_severity_level = 3  # errors: what we cannot load we say ourselves
    if ready:
        chosen.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return chosen


def prepare(model: Path, sha256: str, where: Path) -> Path:
    """The graph made of `model`, whose bytes have that SHA-256: found in `where`, or made there now.

    Several processes may do so at once: whoever is first wins. What cannot be written or made costs the sharing, not the serving: `model`
    itself comes back then, and the log says why.
    """
    import onnxruntime

    made = where / hashlib.sha256(f"{sha256} {onnxruntime.__version__} {_processor()}".encode()).hexdigest()[:32]
    if _whole(made):
        with contextlib.suppress(OSError):
            os.utime(made)  # in use: the last to be cleared away
        return made / GRAPH
    try:
        scratch.own(where)
        with tempfile.TemporaryDirectory(dir=where, prefix=".new-", ignore_cleanup_errors=True) as fresh:
            _make(model, Path(fresh))
            with contextlib.suppress(OSError):  # another process was first
                os.rename(fresh, made)
                os.mkdir(fresh)  # what the context removes
        _clear(where, made)
    except Exception as error:  # onnxruntime's share no base but Exception
        _log.warning("%s: weights are not shared: %s", model, " ".join(str(error).split())[:200])
    return made / GRAPH if _whole(made) else model


def _make(model: Path, fresh: Path) -> None:
    import onnxruntime

    chosen = options(1, ready=False)
    chosen.optimized_model_filepath = str(fresh / GRAPH)
    chosen.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
    chosen.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", str(_SMALLEST))
    chosen.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    onnxruntime.InferenceSession(str(model), chosen, providers=["CPUExecutionProvider"])
    (fresh / WEIGHTS).touch()  # a model without a tensor of that size writes none


def _whole(made: Path) -> bool:
    """A folder is renamed to its name when all is written."""
    return (made / GRAPH).is_file() and (made / WEIGHTS).is_file()


def _clear(where: Path, kept: Path) -> None:
    """Removes the longest unused beyond `_KEPT`. Whoever has one mapped keeps it."""
    old = sorted((path for path in where.iterdir() if path != kept), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in old[_KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)


def _processor() -> str:
    """What decides how onnxruntime lays out weights: the architecture and the instructions that the processor has."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        told = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
        return f"{platform.machine()} {told}"
    return f"{platform.machine()} {platform.processor()} {platform.version()}"
