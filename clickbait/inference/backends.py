"""What computes a model's logits: onnxruntime on CPU or GPU, or torch from the bundle's safetensors.

Each is called with `input_ids` and `attention_mask`, int64 (batch, sequence), and gives `logits`, float32
(batch, 2). Only one thread at a time may call it.
`python -m tests.performance.bench_engine` compares onnxruntime's options; docs/LEADERBOARD.md has the table.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clickbait import cores, telemetry
from clickbait.errors import BundleError, ConfigError
from clickbait.inference import graph_cache
from clickbait.registry.bundle import TORCH, Manifest

CPU, CUDA = "cpu", "cuda"
# By default products are rounded to 10 bits, and a score differs by up to 1e-3.
CUDA_OPTIONS = {"use_tf32": "0"}
_log = logging.getLogger(__name__)


class Backend(Protocol):
    """A loaded model."""

    def __call__(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Logits, float32 (batch, 2), in the order of the manifest's labels."""


def choose(manifest: Manifest, runtime: str | None, device: str) -> str:
    """The runtime to load: `runtime`, else fp32 on a GPU, else the bundle's default.

    onnxruntime has no dynamic int8 on a GPU.

    Raises:
        ConfigError: the bundle has no such runtime, or there is no such device.
    """
    if device not in (CPU, CUDA):
        raise ConfigError(f'device "{device}": known are {CPU} and {CUDA}')
    known = sorted(manifest.runtimes) + [TORCH] * ("model.safetensors" in manifest.files)
    chosen = runtime or ("fp32" if device == CUDA and "fp32" in known else manifest.default_runtime)
    if chosen not in known:
        raise ConfigError(f'runtime "{chosen}": the bundle has {", ".join(known)}')
    return chosen


def load(
    folder: Path,
    manifest: Manifest,
    runtime: str,
    *,
    device: str = CPU,
    threads: int = 1,
    shared: Path | None = None,
) -> Backend:
    """The backend of one of the bundle's runtimes. Files are verified already.

    Args:
        folder: the bundle.
        manifest: its manifest.
        runtime: as `choose` gives it.
        device: `cpu` or `cuda`.
        threads: compute threads on the CPU; never more than the cores that this process may use.
        shared: folder of `clickbait.inference.graph_cache`, where this machine's processes share one copy
            of the weights; None: this process has its own.

    Raises:
        BundleError: a file cannot be loaded.
        ConfigError: a GPU or torch is missing.
    """
    threads = cores.bounded(threads)
    if runtime == TORCH:
        return _Torch(folder, device, threads)
    if device == CUDA:
        return _Onnx(folder / manifest.runtimes[runtime], device, threads)
    file, optimized = _graph(manifest, runtime)
    path = folder / file
    if shared is None:
        return _Onnx(path, device, threads, optimized=optimized)
    sha256 = manifest.files[file].sha256
    with graph_cache.graph(path, sha256, shared, optimized=optimized) as (packed, optimized):
        return _Onnx(packed, device, threads, optimized=optimized, source=path)


def _graph(manifest: Manifest, runtime: str) -> tuple[str, bool]:
    """The runtime's graph for a CPU, and whether it is the optimised one.

    The optimised graph has onnxruntime's own operators, which another version may compute differently or
    not have. Such a version loads the plain graph.
    """
    telemetry.off()
    import onnxruntime

    graph = manifest.optimized.get(runtime)
    if graph is None:
        return manifest.runtimes[runtime], False
    if graph.onnxruntime != onnxruntime.__version__:
        _log.warning(
            "%s was optimised by onnxruntime %s, this is %s: %s is loaded instead, which is slower; export "
            "the model again with this version",
            graph.file,
            graph.onnxruntime,
            onnxruntime.__version__,
            manifest.runtimes[runtime],
        )
        return manifest.runtimes[runtime], False
    return graph.file, True


class _Onnx:
    def __init__(
        self,
        path: Path,
        device: str,
        threads: int,
        *,
        optimized: bool = False,
        source: Path | None = None,
    ) -> None:
        """`optimized`: the graph is, and is loaded as it is; `source`: the bundle's file, for messages."""
        telemetry.off()
        import onnxruntime

        source = source or path
        providers: list[Any] = ["CPUExecutionProvider"]
        if device == CUDA:
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise ConfigError(
                    "device cuda: this onnxruntime computes on CPUs only: install onnxruntime-gpu in its "
                    "place, or use cpu"
                )
            onnxruntime.preload_dlls()  # CUDA and cuDNN of pip's packages, where no loader looks
            providers.insert(0, ("CUDAExecutionProvider", CUDA_OPTIONS))
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), graph_cache.options(threads, optimized=optimized), providers=providers
            )
        except Exception as error:  # onnxruntime's exceptions share no base but Exception
            raise cannot_load("onnxruntime", source, error) from None
        # onnxruntime says nothing when it falls back to the CPU.
        if device == CUDA and self._session.get_providers()[0] != "CUDAExecutionProvider":
            raise ConfigError(
                "device cuda: onnxruntime found no GPU that it can use: see nvidia-smi, or use cpu"
            )
        inputs, outputs = (
            {i.name for i in self._session.get_inputs()},
            {o.name for o in self._session.get_outputs()},
        )
        if inputs != {"input_ids", "attention_mask"} or "logits" not in outputs:
            named = f"{', '.join(sorted(inputs))} to {', '.join(sorted(outputs))}"
            raise BundleError(
                f"{source}: goes from {named}, not from input_ids and attention_mask to logits; "
                f"export it again"
            )

    def __call__(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        (logits,) = self._session.run(["logits"], {"input_ids": input_ids, "attention_mask": attention_mask})
        return logits  # type: ignore[no-any-return]  # onnxruntime has no types


class _Torch:
    def __init__(self, folder: Path, device: str, threads: int) -> None:
        try:
            import torch

            from clickbait.models import load as modeling
        except ImportError as error:
            raise ConfigError(
                f"runtime torch: {error.name} is not installed: install the `train` extra, or use fp32"
            ) from None
        if device == CUDA and not torch.cuda.is_available():
            raise ConfigError("device cuda: torch found no GPU that it can use: see nvidia-smi, or use cpu")
        if device == CPU:
            torch.set_num_threads(threads)
        self._torch: Any = torch
        self._device = device
        self._model = modeling.load_checkpoint(folder).to(device)

    def __call__(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        torch = self._torch
        with torch.inference_mode():
            ids, mask = (torch.from_numpy(array).to(self._device) for array in (input_ids, attention_mask))
            logits = self._model(input_ids=ids, attention_mask=mask).logits
        return logits.float().cpu().numpy()  # type: ignore[no-any-return]


def cannot_load(library: str, path: Path, error: Exception) -> BundleError:
    """The error for a file that a library cannot load."""
    reason = " ".join(str(error).split())[:200]
    return BundleError(f"{path}: {library} cannot load it ({reason}); export it again")
