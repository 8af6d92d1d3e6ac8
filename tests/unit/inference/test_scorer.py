"""The scorer gives each text its own score, whatever stands beside it and in whatever order, and refuses what
it cannot load.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tokenizers import Tokenizer

from clickbait.errors import BundleError, ConfigError
from clickbait.inference import backends
from clickbait.inference.scorer import TOKEN_BUDGET, Scorer, micro_batches
from clickbait.registry import bundle
from serve.core.engine import Engine
from serve.settings import Settings
from tests.tiny import BAIT, NEUTRAL, NEWS, tiny_bundle

WORDS = st.lists(st.sampled_from((*BAIT, *NEWS, *NEUTRAL, "unseen", "Ü!")), max_size=60).map(" ".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Scorer:
    return Scorer(folder)


def test_no_text_gives_no_score(scorer: Scorer) -> None:
    scores = scorer.score([])
    assert scores.shape == (0,)
    assert scores.dtype == np.float32


@given(texts=st.lists(WORDS, max_size=40))
def test_a_score_depends_on_the_text_alone(scorer: Scorer, texts: list[str]) -> None:
    together = scorer.score(texts)
    alone = [scorer.score([text])[0] for text in texts]
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(scorer.score(texts[::-1]), together[::-1], atol=1e-6)


def test_the_score_is_softmax_of_the_logits_over_the_temperature(tmp_path: Path) -> None:
    texts = ["you won", "budget", "the secret council trick"]
    by_temperature = {
        t: Scorer(tiny_bundle(tmp_path / str(t), temperature=t)).score(texts).astype(float)
        for t in (1.0, 2.5)
    }
    logit = {t: np.log(scores / (1 - scores)) for t, scores in by_temperature.items()}
    np.testing.assert_allclose(logit[1.0], 2.5 * logit[2.5], rtol=1e-4)
    session = pytest.importorskip("onnxruntime").InferenceSession(str(tmp_path / "1.0" / "model.onnx"))
    tokenizer = Tokenizer.from_file(str(tmp_path / "1.0" / "tokenizer.json"))
    for text, score in zip(texts, by_temperature[1.0], strict=True):
        ids = np.array([tokenizer.encode(text).ids])
        (logits,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        assert score == pytest.approx(np.exp(logits[0, 1]) / np.exp(logits[0]).sum(), abs=1e-6)


def test_bait_scores_above_news(scorer: Scorer) -> None:
    bait, news = scorer.score(["you won believe the secret trick", "council approves budget report"])
    assert scorer.label(float(bait)) == "clickbait"
    assert scorer.label(float(news)) == "news"


def test_texts_are_cleaned_as_in_training(scorer: Scorer) -> None:
    plain, dirty = scorer.score(["you won", " you\x00\t\u200b won\n"])
    assert plain == dirty


def test_a_text_is_cut_at_max_tokens(folder: Path, scorer: Scorer) -> None:
    most = scorer.manifest.max_tokens - 2  # [CLS] and [SEP]
    at_the_bound, beyond = scorer.score(["you " * most, "you " * most + "council " * 100])
    assert at_the_bound == beyond


def test_logits_of_any_size_give_a_number(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    extreme = np.array([[-1e30, 1e30], [1e30, -1e30], [0, 0]], np.float32)
    monkeypatch.setattr(scorer, "_backend", lambda *_: extreme)
    assert scorer.score(["a", "a", "a"]).tolist() == [1.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("score", "label"), [(0.3, "clickbait"), (0.299999, "news"), (0.2999999, "clickbait"), (1.0, "clickbait")]
)
def test_the_label_follows_the_score_that_is_answered(tmp_path: Path, score: float, label: str) -> None:
    scorer = Scorer(tiny_bundle(tmp_path / "b", threshold=0.3, version="v7"))
    assert scorer.result(score) == {"label": label, "score": round(score, 6), "model": "v7"}


def test_a_draft_says_so(scorer: Scorer) -> None:
    assert scorer.version == scorer.result(0.5)["model"] == "draft"


@given(lengths=st.lists(st.integers(0, 700), max_size=80), budget=st.integers(1, 600))
def test_micro_batches_hold_each_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(micro_batches(lengths, budget))
    order = [row for batch in batches for row in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[row] for row in order] == sorted(lengths)
    for batch in batches:
        assert len(batch) == 1 or lengths[batch[-1]] * len(batch) <= budget
    for one, following in itertools.pairwise(batches):  # cut no earlier than owed
        assert lengths[following[0]] * (len(one) + 1) > budget


def test_padding_stays_within_a_micro_batch(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    real, shapes = scorer._backend, []

    def seen(input_ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Any:
        shapes.append(input_ids.shape)
        assert input_ids.dtype == mask.dtype == np.int64
        assert (input_ids[mask == 0] == 0).all()  # [PAD]
        return real(input_ids, mask)

    monkeypatch.setattr(scorer, "_backend", seen)
    scorer.score(["you " * 30] * 20 + ["you"] * 20)
    assert all(rows * columns <= TOKEN_BUDGET for rows, columns in shapes)
    assert (20, 3) in shapes  # the short ones, unpadded


@pytest.mark.parametrize(
    ("device", "given", "rows"), [("cuda", None, [40]), ("cpu", None, [8] * 5), ("cuda", 192, [6] * 6 + [4])]
)
def test_a_gpu_computes_more_at_a_time(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: Literal["cpu", "cuda"],
    given: int | None,
    rows: list[int],
) -> None:
    """No GPU is needed: what would compute on it is a double, which gives what a core gives."""
    core, shapes = Scorer(folder), []

    def load(*_: Any, **options: Any) -> Any:
        assert options["device"] == device

        def compute(input_ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Any:
            shapes.append(input_ids.shape)
            return core._backend(input_ids, mask)

        return compute

    monkeypatch.setattr(backends, "load", load)
    engine = Engine(
        Scorer(folder, device=device), Settings(device=device, batch_tokens=given), lambda _: None
    )
    texts = ["you " * 60] * 40

    async def ask() -> list[float]:
        answer = await engine.score(texts, asyncio.get_running_loop().time() + 60)
        await engine.close()
        return answer.scores

    assert asyncio.run(ask()) == core.score(texts).tolist()
    assert [shape[0] for shape in shapes] == rows


def test_a_runtime_by_name(folder: Path) -> None:
    assert Scorer(folder).runtime == "int8"
    assert Scorer(folder, runtime="fp32").runtime == "fp32"
    with pytest.raises(ConfigError, match=r'runtime "cuda".* fp32, int8$'):
        Scorer(folder, runtime="cuda")


def test_a_changed_byte_is_refused_unless_just_verified(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path / "b")
    data = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(data))  # the same tokenizer in other bytes
    with pytest.raises(BundleError):
        Scorer(folder)
    assert len(Scorer(folder, verified=True).score(["a"])) == 1


def _other_contract(path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", [value], [out])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


@pytest.mark.parametrize(
    ("file", "spoil", "told"),
    [
        ("model.onnx", lambda path: path.write_bytes(b"not a model"), "onnxruntime cannot load it"),
        ("model.onnx", _other_contract, "goes from x to y"),
        ("tokenizer.json", lambda path: path.write_text("{}"), "tokenizers cannot load it"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_one_line(tmp_path: Path, file: str, spoil: Any, told: str) -> None:
    folder = tiny_bundle(tmp_path / "b")
    manifest = bundle.read_manifest(folder)
    spoil(folder / file)
    bundle.seal(folder, **manifest.model_dump(exclude={"files"}))
    with pytest.raises(BundleError, match=told) as raised:
        Scorer(folder)
    assert "\n" not in str(raised.value)
    assert str(folder / file) in str(raised.value)
    assert "export it again" in str(raised.value)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads by Linux's /proc")
def test_one_compute_thread_means_no_new_thread(folder: Path) -> None:
    """In a process of its own: a pool of tokenizers, once started, stays. Whatever the environment says."""
    script = f"""
        import os
        from pathlib import Path
        import onnxruntime  # its import alone starts a thread, which sleeps
        from clickbait.inference.scorer import Scorer
        threads = lambda: set(os.listdir("/proc/self/task"))
        before = threads()
        scorer = Scorer(Path({str(folder)!r}))
        scorer.score(["you won the secret"] * 200)
        assert threads() == before, len(threads() - before)
    """
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "true", "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120, env=environment)


def test_no_training_library_is_imported(folder: Path) -> None:
    script = f"""
        import sys
        from pathlib import Path
        from clickbait.inference.scorer import Scorer
        import serve.standalone
        Scorer(Path({str(folder)!r})).score(["a"])
        heavy = {{"torch", "transformers", "pyarrow", "sklearn", "ray", "tyro", "google.cloud", "wandb"}} & set(sys.modules)
        assert not heavy, heavy
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)
