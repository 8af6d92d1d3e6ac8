"""Backends give the same scores, packed weights are shared safely, and a missing GPU is one clear line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from clickbait.config import TrainConfig
from clickbait.errors import BundleError, ConfigError
from clickbait.inference import backends, graph_cache
from clickbait.inference.scorer import Scorer
from clickbait.models import load
from clickbait.registry import bundle
from clickbait.training import export
from tests.tiny import tiny_bundle

TEXTS = [
    "you won believe the secret trick",
    "council approves budget report",
    "you",
    "the market of one minister " * 3,
]


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one small transformer, with large weights so that scores differ."""
    folder = tiny_bundle(tmp_path_factory.mktemp("backends") / "bundle")
    config = TrainConfig(model="scratch:transformer", layers=1, hidden=32, dataset="none", output="none")
    model = load.load(config, (folder / "tokenizer.json").read_bytes(), 32).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(4)
    model.save_pretrained(folder)
    export.to_onnx(load.load_checkpoint(folder), folder / "model.fp32.onnx", 32)
    export.quantize(folder / "model.fp32.onnx", folder / "model.onnx")
    fields = bundle.read_manifest(folder).model_dump(exclude={"files"})
    graphs = {name: export.optimize(folder, file) for name, file in fields["runtimes"].items()}
    bundle.seal(folder, **fields | {"optimized": graphs})
    return folder


def computed(folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The graphs that onnxruntime is given when each runtime is loaded."""
    loaded = []
    real = onnxruntime.InferenceSession

    def session(path: str, *arguments: object, **options: object) -> object:
        loaded.append(Path(path).name)
        return real(path, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    for runtime in ("int8", "fp32"):
        Scorer(folder, runtime=runtime)
    return loaded


def test_the_optimised_graph_is_computed(
    transformer: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert computed(transformer, caplog, monkeypatch) == ["model.optimized.onnx", "model.fp32.optimized.onnx"]
    assert not caplog.records


def test_another_onnxruntime_computes_the_plain_graph(
    transformer: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Scorer(transformer, runtime="fp32").score(TEXTS)
    monkeypatch.setattr(onnxruntime, "__version__", "1.99.0")
    assert computed(transformer, caplog, monkeypatch) == ["model.onnx", "model.fp32.onnx"]
    assert "this is 1.99.0: model.onnx is loaded instead" in caplog.text
    np.testing.assert_allclose(Scorer(transformer, runtime="fp32").score(TEXTS), expected, atol=1e-5)


def test_a_bundle_of_an_earlier_release_is_computed_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_bundle(tmp_path / "bundle")
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["optimized"]
    path.write_text(json.dumps(manifest))
    assert computed(folder, caplog, monkeypatch) == ["model.onnx", "model.fp32.onnx"]
    assert not caplog.records


def test_torch_scores_as_the_exported_graph_does(transformer: Path) -> None:
    threads = torch.get_num_threads()
    try:
        by_torch = Scorer(transformer, runtime="torch").score(TEXTS)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(by_torch, Scorer(transformer, runtime="fp32").score(TEXTS), atol=1e-5)
    assert np.ptp(by_torch) > 0.01, "the texts must differ, or anything would pass"


@pytest.mark.parametrize("runtime", ["int8", "fp32"])
def test_shared_weights_give_the_same_scores_to_the_bit(
    transformer: Path, tmp_path: Path, runtime: str
) -> None:
    own = Scorer(transformer, runtime=runtime).score(TEXTS)
    for _ in range(2):  # made, then found
        shared = Scorer(transformer, runtime=runtime, shared=tmp_path / "prepared").score(TEXTS)
        np.testing.assert_array_equal(shared, own)
    (made,) = (tmp_path / "prepared").iterdir()
    assert (made / graph_cache.WEIGHTS).stat().st_size > 1024


def test_weights_are_mapped_not_copied(transformer: Path, tmp_path: Path) -> None:
    scorer = Scorer(transformer, shared=tmp_path / "prepared")
    scorer.score(TEXTS)
    assert graph_cache.WEIGHTS in Path("/proc/self/maps").read_text()


def test_processes_that_prepare_at_once_all_score(transformer: Path, tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from clickbait.inference.scorer import Scorer
print(Scorer(Path({str(transformer)!r}), shared=Path({str(tmp_path / "prepared")!r})).score(["you won"])[0])
"""
    children = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    told = {child.communicate(timeout=120)[0] for child in children}
    assert all(child.returncode == 0 for child in children)
    assert len(told) == 1
    assert len(list((tmp_path / "prepared").iterdir())) == 1, "nothing half made is left behind"


def test_another_model_is_prepared_apart_and_old_ones_go(tmp_path: Path) -> None:
    where = tmp_path / "prepared"
    folders = [tiny_bundle(tmp_path / str(number)) for number in range(graph_cache._KEPT + 3)]
    for number, folder in enumerate(folders):
        with graph_cache.graph(folder / "model.onnx", f"{number}", where) as (graph, ready):
            assert ready
            assert graph.parent.parent == where
        os.utime(graph.parent, (number, number))
    left = sorted(path.stat().st_mtime for path in where.iterdir())
    assert len(left) == graph_cache._KEPT
    assert left[0] == 3, "the longest unused went first"


@pytest.mark.parametrize("mode", [0o777, 0o702])
def test_a_folder_that_others_may_write_to_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    folder, where = tiny_bundle(tmp_path / "bundle"), tmp_path / "prepared"
    where.mkdir()
    where.chmod(mode)
    model = folder / "model.onnx"
    with graph_cache.graph(model, "0", where) as found:
        assert found == (model, False), "not ready: onnxruntime has yet to optimise it"
    assert "others may write to it" in caplog.text


def test_what_cannot_be_written_costs_the_sharing_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    folder = tiny_bundle(tmp_path / "bundle")
    assert len(Scorer(folder, shared=tmp_path / "file" / "prepared").score(["you"])) == 1
    assert "weights are not shared" in caplog.text


def test_a_model_that_does_not_load_is_named_by_the_bundles_file(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path / "bundle")
    manifest = bundle.read_manifest(folder)
    (folder / "model.onnx").write_bytes(b"not a model")
    bundle.seal(folder, **manifest.model_dump(exclude={"files"}))
    with pytest.raises(BundleError, match=r"bundle/model\.onnx: onnxruntime cannot load it"):
        Scorer(folder, shared=tmp_path / "prepared")


def test_a_gpu_that_is_not_there_is_one_line(transformer: Path) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ConfigError, match="install onnxruntime-gpu"):
            Scorer(transformer, device="cuda")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="torch found no GPU"):
            Scorer(transformer, device="cuda", runtime="torch")
    with pytest.raises(ConfigError, match=r'device "gpu": known are cpu and cuda'):
        Scorer(transformer, device="gpu")


def test_a_gpu_computes_fp32_unless_told(transformer: Path, tmp_path: Path) -> None:
    manifest = bundle.read_manifest(transformer)
    assert backends.choose(manifest, None, "cuda") == "fp32"
    assert backends.choose(manifest, None, "cpu") == manifest.default_runtime == "int8"
    assert backends.choose(manifest, "int8", "cuda") == "int8"
    plain = bundle.read_manifest(tiny_bundle(tmp_path / "plain"))
    with pytest.raises(ConfigError, match=r'runtime "torch": the bundle has fp32, int8$'):
        backends.choose(plain, "torch", "cpu")
