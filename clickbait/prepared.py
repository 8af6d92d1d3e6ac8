"""A graph as this machine computes it: optimised by onnxruntime, its attention rewritten (`clickbait.attention`), its weights laid out for
the processor's kernels in a file that every process maps.

onnxruntime optimises a graph and repacks its weights each time it loads it, and each process keeps its own copy. Here that is done once a
machine: replicas map one file, so they share its pages, in memory and in the processor's cache (`make bench-engine`). What is made depends
on the model's bytes, on this file's `_FORM`, onnxruntime's version and the processor, and is named by them. A graph that was rewritten
computes what the bundle's does, up to the rounding of its sums, and is used only once the two were seen to agree.

with graph(Path("bundle/model.onnx"), sha256, folder()) as (path, ready): ...   # load it with `options(threads, ready=ready)`
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clickbait import attention, scratch

GRAPH, WEIGHTS = "graph.onnx", "weights.bin"
_FORM = 3  # another number where another version of this code makes another graph of the same model
_AGREE = 1e-4  # of the largest logit: rounding is a hundredth of that; int8 may round a few otherwise, so medians are held against it
_SHAPES = ((1, 2), (4, 7))  # headlines and tokens that the two graphs are compared on
_TOKENS = 16  # whose ids every vocabulary has
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


@contextlib.contextmanager
def graph(model: Path, sha256: str, where: Path | None) -> Iterator[tuple[Path, bool]]:
    """The graph made of `model`, whose bytes have that SHA-256: found in `where`, or made there now; and that it is ready.

    With None it is made for this process alone, and its files may go once it is loaded. Several processes may make one at once: whoever is
    first wins. What cannot be written or made costs speed and the sharing, not the serving: `model` itself comes back then, not ready, and
    the log says why.
    """
    with contextlib.ExitStack() as stack:
        try:
            if where is None:
                made = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clickbait-", ignore_cleanup_errors=True)))
                _make(model, made)
            else:
                made = _shared(model, sha256, where)
        except Exception as error:  # onnxruntime's share no base but Exception
            _log.warning("%s: not prepared, and its weights are not shared: %s", model, " ".join(str(error).split())[:200])
            yield model, False
            return
        yield made / GRAPH, True


def _shared(model: Path, sha256: str, where: Path) -> Path:
    import onnxruntime

    made = where / hashlib.sha256(f"{_FORM} {sha256} {onnxruntime.__version__} {_processor()}".encode()).hexdigest()[:32]
    if _whole(made):
        with contextlib.suppress(OSError):
            os.utime(made)  # in use: the last to be cleared away
        return made
    scratch.own(where)
    with tempfile.TemporaryDirectory(dir=where, prefix=".new-", ignore_cleanup_errors=True) as fresh:
        _make(model, Path(fresh))
        with contextlib.suppress(OSError):  # another process was first
            os.rename(fresh, made)
            os.mkdir(fresh)  # what the context removes
    _clear(where, made)
    if not _whole(made):
        raise FileNotFoundError(f"{made} is not there")
    return made


def _make(model: Path, fresh: Path) -> None:
    """Writes graph and weights."""
    optimised = fresh / "optimised.onnx"
    chosen = options(1, ready=False)
    chosen.optimized_model_filepath = str(optimised)
    plain = _session(model, chosen)
    rewritten = attention.rewrite(optimised.read_bytes())
    if rewritten is not None:
        optimised.write_bytes(rewritten)
        if not _agree(plain, _session(optimised, options(1, ready=True))):
            _log.warning("%s: its attention, rewritten, does not give the same scores: it is served as it is", model)
            _session(model, chosen)
    chosen = options(1, ready=True)
    chosen.optimized_model_filepath = str(fresh / GRAPH)
    chosen.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
    chosen.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", str(_SMALLEST))
    chosen.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    _session(optimised, chosen)
    optimised.unlink()
    (fresh / WEIGHTS).touch()  # a model without a tensor of that size writes none


def _session(path: Path, chosen: Any) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), chosen, providers=["CPUExecutionProvider"])


def _agree(one: Any, other: Any) -> bool:
    """Whether two sessions give the same logits for the same tokens."""
    random = np.random.default_rng(0)
    for shape in _SHAPES:
        tokens = random.integers(0, _TOKENS, shape)
        mask = np.tril(np.ones(shape, np.int64), k=shape[1] - shape[0])  # the last headline alone is of full length
        a, b = (session.run(["logits"], {"input_ids": tokens, "attention_mask": mask})[0] for session in (one, other))
        if not np.median(np.abs(a - b)) <= _AGREE * np.abs(a).max():  # also where one is no number
            return False
    return True


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
