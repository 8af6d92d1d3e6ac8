"""A graph as this machine computes it: optimised by onnxruntime, its attention rewritten
(`clickbait.inference.attention_rewrite`), its weights laid out for the processor's kernels in a file that
every process maps.

onnxruntime optimises a graph and repacks its weights each time it loads it, and each process keeps its own
copy. Here that is done once a machine: replicas map one file, so they share its pages, in memory and in the
processor's cache (`make bench-engine`). What is made depends on the model's bytes, on this file's `_FORM`,
onnxruntime's version and the processor, and is named by them. A graph that was rewritten computes what the
bundle's does, up to the rounding of its sums, and is used only once the two were seen to agree.

with graph(Path("bundle/model.onnx"), sha256, folder()) as (path, ready): ...   # load it with `options(threads, ready=ready)`

The files' SHA-256 are kept beside them: a file that is torn or altered is made again
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

import numpy as np

from clickbait import telemetry
from clickbait.inference import attention_rewrite
from clickbait.registry.bundle import sha256 as digest
from clickbait.storage import PART, replacing, user_cache
from clickbait.storage.folder_cache import Cache

GRAPH, WEIGHTS = "graph.onnx", "weights.bin"
_SUMS = "sums.json"  # the SHA-256 of the two; written last
_FORM = 3  # another number where another version of this code makes another graph of the same model
# of the largest logit: rounding is a hundredth of that; int8 may round a few otherwise, so medians are held
# against it
_AGREE = 1e-4
_SHAPES = ((1, 2), (4, 7))  # headlines and tokens that the two graphs are compared on
_TOKENS = 16  # whose ids every vocabulary has
_KEPT = 8  # versions: production, staging, a canary, and their predecessors
_NAMES = re.compile(r"[0-9a-f]{32}|\.new-.*")  # the second of earlier releases
_SMALLEST = 1024  # bytes of a tensor that goes to the file; what is smaller stays in the graph
_log = logging.getLogger(__name__)


def folder() -> Path:
    """Where this user's prepared graphs are."""
    return user_cache.path("prepared")


def options(threads: int, *, ready: bool) -> Any:
    """The session's options; `ready` for a graph that `prepare` gave. Why each: docs/serving.md."""
    telemetry.off()
    import onnxruntime

    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    chosen.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # idle threads would burn the neighbours' cores
    chosen.log_severity_level = 3  # errors: what we cannot load we say ourselves
    if ready:
        chosen.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return chosen


@contextlib.contextmanager
def graph(model: Path, sha256: str, where: Path | None) -> Iterator[tuple[Path, bool]]:
    """The graph made of `model`, whose bytes have that SHA-256: found in `where`, or made there now; and that
    it is ready.

    With None it is made for this process alone, and its files may go once it is loaded. Of several processes
    one makes it, and the others wait. What cannot be written or made costs speed and the sharing, not the
    serving: `model` itself comes back then, not ready, and the log says why.
    """
    with contextlib.ExitStack() as stack:
        try:
            if where is None:
                made = Path(
                    stack.enter_context(
                        tempfile.TemporaryDirectory(prefix="clickbait-", ignore_cleanup_errors=True)
                    )
                )
                _make(model, made)
            else:
                user_cache.own(where)
                lease = Cache(where, keep=_KEPT, names=_NAMES, variable="TMPDIR").take(
                    _name(sha256), _Prepared(model)
                )
                stack.callback(lease.close)
                made = lease.folder
        except Exception as error:  # onnxruntime's share no base but Exception
            _log.warning(
                "%s: not prepared, and its weights are not shared: %s",
                model,
                " ".join(str(error).split())[:200],
            )
            yield model, False
            return
        yield made / GRAPH, True


def _name(sha256: str) -> str:
    telemetry.off()
    import onnxruntime

    return hashlib.sha256(f"{_FORM} {sha256} {onnxruntime.__version__} {_processor()}".encode()).hexdigest()[
        :32
    ]


@dataclass(frozen=True)
class _Prepared:
    """A prepared graph in the cache (`clickbait.storage.folder_cache.Entry`)."""

    model: Path

    def whole(self, folder: Path) -> bool:
        try:
            return bool(
                json.loads((folder / _SUMS).read_bytes())
                == {name: digest(folder / name) for name in (GRAPH, WEIGHTS)}
            )
        except (OSError, ValueError):  # not there or torn; StorageError is a ValueError
            return False

    def lacking(self, _: Path) -> int:
        return (
            3 * self.model.stat().st_size
        )  # the optimised graph, and then the prepared one with its weights, which are padded

    def fill(self, folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder, prefix=PART, ignore_cleanup_errors=True) as name:
            fresh = Path(name)
            _make(self.model, fresh)
            (folder / _SUMS).unlink(missing_ok=True)  # of other files from here on
            sums = {}
            for name in (WEIGHTS, GRAPH):
                with replacing(folder / name) as temporary:
                    os.rename(fresh / name, temporary)
                sums[name] = digest(folder / name)
            with replacing(folder / _SUMS) as temporary:
                temporary.write_text(json.dumps(sums))


def _make(model: Path, fresh: Path) -> None:
    """Writes graph and weights."""
    optimised = fresh / "optimised.onnx"
    chosen = options(1, ready=False)
    chosen.optimized_model_filepath = str(optimised)
    plain = _session(model, chosen)
    rewritten = attention_rewrite.rewrite(optimised.read_bytes())
    if rewritten is not None:
        optimised.write_bytes(rewritten)
        if not _agree(plain, _session(optimised, options(1, ready=True))):
            _log.warning(
                "%s: its attention, rewritten, does not give the same scores: it is served as it is", model
            )
            _session(model, chosen)
    chosen = options(1, ready=True)
    chosen.optimized_model_filepath = str(fresh / GRAPH)
    chosen.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
    chosen.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", str(_SMALLEST)
    )
    chosen.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    _session(optimised, chosen)
    optimised.unlink()
    (fresh / WEIGHTS).touch()  # a model without a tensor of that size writes none


def _session(path: Path, chosen: Any) -> Any:
    telemetry.off()
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), chosen, providers=["CPUExecutionProvider"])


def _agree(one: Any, other: Any) -> bool:
    """Whether two sessions give the same logits for the same tokens."""
    random = np.random.default_rng(0)
    for shape in _SHAPES:
        tokens = random.integers(0, _TOKENS, shape)
        mask = np.tril(
            np.ones(shape, np.int64), k=shape[1] - shape[0]
        )  # the last headline alone is of full length
        a, b = (
            session.run(["logits"], {"input_ids": tokens, "attention_mask": mask})[0]
            for session in (one, other)
        )
        if not np.median(np.abs(a - b)) <= _AGREE * np.abs(a).max():  # also where one is no number
            return False
    return True


def _processor() -> str:
    """What decides how onnxruntime lays out weights: the architecture and the instructions that the processor
    has.
    """
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        told = sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
        return f"{platform.machine()} {told}"
    return f"{platform.machine()} {platform.processor()} {platform.version()}"
