"""The evaluation as a job, in process: whatever the transfer set and the threshold are, figures or one clear
line.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clickbait.cli import exit_code
from clickbait.config import EvaluateConfig, GateConfig, PreprocessConfig
from clickbait.data.dataset import open_dataset
from clickbait.evaluation import gate, measure
from clickbait.evaluation.measure import Split
from clickbait.inference.scorer import Scorer
from clickbait.registry import bundle, model_card
from clickbait.reports import report
from cluster import staged
from ray_jobs import evaluate
from tests.conftest import ROOT
from tests.tiny import tiny_bundle
from tests.unit.data.test_dataset import build
from tests.unit.tuning.test_compare import headlines

BEHAVIOUR = str(ROOT / "configs" / "behaviour.yaml")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """300 headlines in the words that the tiny bundle knows."""
    folder = tmp_path_factory.mktemp("evaluate")
    return build(
        PreprocessConfig(
            source=str(headlines(folder / "h.csv", 300, 0)), output=str(folder / "datasets"), partitions=2
        )
    )


@pytest.fixture
def config(dataset: str, tmp_path: Path) -> EvaluateConfig:
    folder = tiny_bundle(
        tmp_path / "bundle", dataset=open_dataset(dataset).fingerprint, threshold=0.9, temperature=1.35
    )
    (folder / "metrics.json").write_text(json.dumps({"synthetic": True, "threshold": 0.9}))
    bundle.amend(folder)
    return EvaluateConfig(bundle=str(folder), dataset=dataset, num_workers=0, behaviour_file=BEHAVIOUR)


def transfer(config: EvaluateConfig, text: str) -> EvaluateConfig:
    path = Path(config.bundle).parent / "transfer.csv"
    path.write_text(text)
    return config.model_copy(update={"transfer": str(path)})


@pytest.mark.parametrize(("label", "name"), [(1, "clickbait"), (0, "news")])
def test_a_transfer_set_of_one_class(
    config: EvaluateConfig, capsys: pytest.CaptureFixture[str], label: int, name: str
) -> None:
    """What can be measured is told, the rest is none with the reason, and the gate does not take none for
    good.
    """
    rows = "".join(f"You won a secret trick of number {row},{label}\n" for row in range(40))
    assert exit_code(lambda: evaluate.main(transfer(config, f"headline,clickbait\n{rows}"))) == 0
    printed = capsys.readouterr().out
    assert "transfer auc: none" in printed
    assert f"every headline of the transfer set is {name}: AUC needs both classes" in printed
    folder = Path(config.bundle)
    document = model_card.read_metrics(folder)
    found = document["transfer"]
    assert (found["rows"], found["auc"], found["only_class"]) == (40, None, name)
    assert found["recall"] is None if label == 0 else found["recall"] == found["accuracy"]
    assert f"Every one of them is {name}" in (folder / "report.html").read_text()
    document["export"] = {}
    (check,) = (
        item for item in gate.decide(document, None, GateConfig())["checks"] if item["name"] == "transfer_auc"
    )
    assert (check["passed"], check["value"]) == (False, None)
    assert (
        check["note"]
        == f"not defined: every headline of the transfer set is {name}: give headlines of both classes"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("headline,clickbait\n", "no row"),
        ("headline\nA market\n", "clickbait"),
        ("headline,clickbait\nA market,7\n", "label"),
    ],
)
def test_a_transfer_set_without_a_good_row_is_one_line_before_anything_is_scored(
    config: EvaluateConfig,
    text: str,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluate, "score_texts", lambda *_, **__: pytest.fail("scored"))
    assert exit_code(lambda: evaluate.main(transfer(config, text))) == 2
    printed = capsys.readouterr().err
    assert told in printed
    assert printed.count("\n") == 1


def test_headlines_that_were_trained_on_are_no_transfer_set(
    config: EvaluateConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    table = open_dataset(config.dataset).table("train", ["headline", "label"]).slice(0, 5).to_pylist()
    text = "".join(f"{row['headline']},{row['label']}\n" for row in table)
    assert exit_code(lambda: evaluate.main(transfer(config, f"headline,clickbait\n{text}{text}"))) == 2
    assert "trained on" in capsys.readouterr().err


def test_rows_that_a_transfer_set_leaves_out_are_counted_wherever_it_is_told(
    config: EvaluateConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_on = open_dataset(config.dataset).table("train", ["headline", "label"]).slice(0, 1).to_pylist()[0]
    rows = [
        "You won a trick,1",
        "You WON a trick!,1",
        "The market closes,0",
        "A secret report,maybe",
        "A minister,unsure",
    ]
    rows.append(f"{trained_on['headline']},{trained_on['label']}")
    evaluate.main(transfer(config, "\n".join(["headline,clickbait", *rows])))
    found = model_card.read_metrics(Path(config.bundle))["transfer"]
    assert found["rows"] == 2
    assert found["left_out"] == {"unknown_label": 2, "duplicate": 1, "trained_on": 1}
    assert found["rows"] + sum(found["left_out"].values()) == len(rows)
    assert "4 rows left out: 2 unknown_label, 1 duplicate, 1 trained_on" in capsys.readouterr().out
    page = " ".join((Path(config.bundle) / "report.html").read_text().split())
    assert "4 rows of the source are left out: 2 unknown label, 1 duplicate, 1 trained on." in page


def test_everything_is_judged_at_the_bundles_threshold(config: EvaluateConfig) -> None:
    """The tiny model scores some clickbait between 0.5 and 0.9: news, for this bundle."""
    document = evaluate.evaluate(config)
    test = measure.test_split(open_dataset(config.dataset))
    scores = Scorer(Path(config.bundle)).score(test.texts)
    assert ((scores >= 0.5) != (scores >= 0.9)).any(), "the case needs scores between the two"
    assert document["threshold"] == 0.9
    assert document["test"]["accuracy"] == pytest.approx(np.mean((scores >= 0.9) == test.labels))
    assert document["test"]["confusion"][1][0] == int(np.sum((scores < 0.9) & (test.labels == 1)))
    assert len(document["worst"]) == min(int(np.sum((scores >= 0.9) != test.labels)), config.worst)
    assert "clickbait where score ≥ <b>0.9</b>" in (Path(config.bundle) / "report.html").read_text()


ROWS = st.lists(st.tuples(st.text(max_size=20), st.integers(0, 1)), min_size=1, max_size=8)


def split(rows: list[tuple[str, int]]) -> Split:
    return Split([text for text, _ in rows], np.array([label for _, label in rows], dtype=np.int64))


@settings(deadline=None, max_examples=30)  # scikit-learn takes 10 ms a split
@given(test=ROWS, others=st.none() | ROWS, threshold=st.floats(0.0, 1.0), seed=st.integers(0, 2**16))
def test_any_split_gives_figures_a_verdict_and_its_pages(
    test: list[tuple[str, int]], others: list[tuple[str, int]] | None, threshold: float, seed: int
) -> None:
    """A row, one class, the same headline twice, any threshold: what is not defined is None, and every reader
    takes it.
    """

    def score(texts: list[str]) -> np.ndarray:
        return np.random.default_rng(seed).random(len(texts))

    document: dict[str, Any] = measure.measure(
        score, split(test), transfer=split(others) if others else None, cases=(), threshold=threshold, worst=3
    )
    for part in filter(None, (document["test"], document["transfer"])):
        del part["curves"]  # a tenth of a second a page; tests/unit/reports/test_report.py draws them
    document |= {
        "synthetic": False,
        "latency": measure.speed(score, [text for text, _ in test], 1),
        "export": {},
    }
    for part in (document["test"], document["transfer"] or document["test"]):
        (tn, fp), (fn, tp) = part["confusion"]
        assert (part["auc"] is None) == (part["only_class"] is not None) == (not (tn + fp and fn + tp))
        for name, part_of in (("precision", tp + fp), ("recall", tp + fn), ("f1", tp + fp + fn)):
            assert (part[name] is None) == (part_of == 0)
    verdict = gate.decide(document, None, GateConfig())
    json.dumps([document, verdict], allow_nan=False)
    assert evaluate.table(document)
    assert gate.table(verdict)
    assert staged.markdown(staged.Result("v1", False, verdict["checks"], None), "production")
    assert "<h2>Test split</h2>" in report.render({**document, "verdict": verdict}, "title")
