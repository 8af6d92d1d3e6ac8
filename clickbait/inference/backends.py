"""What computes a model's logits: onnxruntime on a CPU core or a GPU, or torch from the same bundle's
safetensors.

Each is called with `input_ids` and `attention_mask`, int64 (batch, sequence), and gives `logits`, float32
(batch, 2). One thread at a time calls it. The options of onnxruntime were chosen by `python -m
tests.performance.bench_engine`; docs/LEADERBOARD.md has its table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clickbait import cores, telemetry
from clickbait.errors import BundleError, ConfigError
from clickbait.inference import graph_cache
from clickbait.registry.bundle import TORCH, Manifest

CPU, CUDA = "cpu", "cuda"
CUDA_OPTIONS = {
    "use_tf32": "0"
}  # fp32 is fp32: by default its products are rounded to 10 bits, and a score differs by up to 1e-3


class Backend(Protocol):
    """A loaded model."""

    def __call__(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Logits, float32 (batch, 2), in the order of the manifest's labels."""


def choose(manifest: Manifest, runtime: str | None, device: str) -> str:
    """The runtime to load: the one asked for, else the bundle's own, else fp32 on a GPU, whose kernels know
    no dynamic int8.

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
        shared: folder of `clickbait.inference.graph_cache`, where this machine's processes find one copy of
            the weights; None: this one has its own.

    Raises:
        BundleError: a file that cannot be loaded.
        ConfigError: a GPU, or torch, that is not there.
    """
    threads = cores.bounded(threads)
    if runtime == TORCH:
        return _Torch(folder, device, threads)
    path = folder / manifest.runtimes[runtime]
    if device == CUDA:
        return _Onnx(path, device, threads)
    with graph_cache.graph(path, manifest.files[path.name].sha256, shared) as (graph, ready):
        return _Onnx(graph, device, threads, ready=ready, told=path)


class _Onnx:
    def __init__(
        self, path: Path, device: str, threads: int, *, ready: bool = False, told: Path | None = None
    ) -> None:
        """`ready`: the graph is optimised already; `told`: the bundle's file, for messages."""
        telemetry.off()
        import onnxruntime

        told = told or path
        providers: list[Any] = ["CPUExecutionProvider"]
        if device == CUDA:
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise ConfigError(
                    "device cuda: this onnxruntime computes on CPUs only: install onnxruntime-gpu in its "
                    "place, or take cpu"
                )
            onnxruntime.preload_dlls()  # CUDA and cuDNN of pip's packages, where no loader looks
            providers.insert(0, ("CUDAExecutionProvider", CUDA_OPTIONS))
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), graph_cache.options(threads, ready=ready), providers=providers
            )
        except Exception as error:  # onnxruntime's exceptions share no base but Exception
            raise cannot_load("onnxruntime", told, error) from None
        if (
            device == CUDA and self._session.get_providers()[0] != "CUDAExecutionProvider"
        ):  # onnxruntime says nothing when it falls back
            raise ConfigError(
                "device cuda: onnxruntime found no GPU that it can use: see nvidia-smi, or take cpu"
            )
        inputs, outputs = (
            {i.name for i in self._session.get_inputs()},
            {o.name for o in self._session.get_outputs()},
        )
        if inputs != {"input_ids", "attention_mask"} or "logits" not in outputs:
            named = f"{', '.join(sorted(inputs))} to {', '.join(sorted(outputs))}"
            raise BundleError(
                f"{told}: goes from {named}, not from input_ids and attention_mask to logits; export it again"
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
                f"runtime torch: {error.name} is not installed: install the `train` extra, or take fp32"
            ) from None
        if device == CUDA and not torch.cuda.is_available():
            raise ConfigError("device cuda: torch found no GPU that it can use: see nvidia-smi, or take cpu")
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
            given = [torch.from_numpy(array).to(self._device) for array in (input_ids, attention_mask)]
            logits = self._model(input_ids=given[0], attention_mask=given[1]).logits
        return logits.float().cpu().numpy()  # type: ignore[no-any-return]


def cannot_load(library: str, path: Path, error: Exception) -> BundleError:
    """What a library's refusal comes to."""
    said = " ".join(str(error).split())[:200]
    return BundleError(f"{path}: {library} cannot load it ({said}); export it again")
