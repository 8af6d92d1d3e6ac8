"""Evaluate a bundle as it is served.

    python -m ray_jobs.evaluate --config configs/evaluate.yaml --transfer headlines.csv

Measures the test split and its slices, invariances, behavioural cases, the transfer set and the latency.
Writes the results into the bundle: metrics.json, report.html and the model card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clickbait import cli
from clickbait.config import EvaluateConfig
from clickbait.data.dataset import Dataset, open_dataset
from clickbait.errors import DataError
from clickbait.evaluation import behaviour
from clickbait.evaluation import measure as evaluation
from clickbait.evaluation.measure import Split
from clickbait.inference.scorer import Scorer
from clickbait.registry import model_card, workspace
from clickbait.reports import report
from clickbait.sample import SYNTHETIC_NOTICE
from ray_jobs.scoring import score_texts


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measures the bundle, writes the results into it, and returns the metrics document.

    Raises:
        BundleError: the bundle is missing or incomplete.
        DataError: the dataset is missing, incomplete, or not the one that the bundle was trained on; or the
            transfer set cannot be read.
    """
    dataset = open_dataset(config.dataset)
    with workspace.existing(config.bundle, change=True) as folder:
        scorer = Scorer(folder, threads=config.threads)
        if scorer.manifest.dataset != dataset.fingerprint:
            raise DataError(
                f"{config.bundle} was trained on {scorer.manifest.dataset}: give the dataset of that name, "
                f"not {dataset.fingerprint}"
            )
        document = {**model_card.read_metrics(folder), **measure(config, scorer, dataset)}
        document.pop("verdict", None)  # it judged the previous measurements
        report.write(document, folder / "report.html", title=f"Clickbait detector on {dataset.fingerprint}")
        summary = {name: document["test"][name] for name in model_card.SUMMARY}
        model_card.write(folder, document, metrics=summary, verdict=None)
    return document


def measure(config: EvaluateConfig, scorer: Scorer, dataset: Dataset) -> dict[str, Any]:
    """Every measurement of a bundle: the scores on the cluster, the latency in this process."""
    cases, transfer = inputs(config, dataset)
    test = evaluation.test_split(dataset)

    def score(texts: list[str]) -> np.ndarray:
        return score_texts(config.bundle, texts, num_workers=config.num_workers, threads=config.threads)

    threshold = scorer.manifest.threshold
    measurements = evaluation.measure(
        score, test, transfer=transfer, cases=cases, threshold=threshold, worst=config.worst
    )
    if measurements["transfer"]:
        measurements["transfer"]["source"] = str(config.transfer).rsplit("/", 1)[-1]
    return {
        **measurements,
        "test_split": evaluation.test_identity(dataset),
        "latency": evaluation.speed(scorer.score, test.texts, config.threads),
    }


def inputs(config: EvaluateConfig, dataset: Dataset) -> tuple[tuple[behaviour.Case, ...], Split | None]:
    """The behavioural cases, and the transfer set if there is one.

    Raises:
        ConfigError: the file of behavioural cases is not valid.
        DataError: the transfer set cannot be read, or every headline of it was trained on.
    """
    cases = behaviour.load(config.behaviour_file)
    if not config.transfer:
        return cases, None
    return cases, evaluation.transfer_split(config, dataset)


def main(config: EvaluateConfig) -> None:
    """Evaluate and print the figures that the gate reads."""
    print(table(evaluate(config)))
    print(f"report: {workspace.address(config.bundle, 'report.html')}")


def table(document: Mapping[str, Any]) -> str:
    """The metrics document as a table for a terminal. An undefined figure is `none`."""
    test, transfer = document["test"], document["transfer"]
    lines = [SYNTHETIC_NOTICE] if document["synthetic"] else []
    lines += [f"{name:>12}: {_number(test[name])}" for name in model_card.SUMMARY]
    lines += [f"{'flip ' + name:>16}: {share:.2%}" for name, share in document["flips"].items()]
    lines.append(
        f"{'behaviour':>12}: {document['behaviour']['passed']} of {document['behaviour']['cases']} cases hold"
    )
    if transfer:
        lines.append(
            f"{'transfer':>12}: {transfer['rows']:,} headlines, accuracy {_number(transfer['accuracy'])}"
        )
        if transfer["left_out"]:
            lines.append(f"{'':>14}{evaluation.left_out(transfer['left_out'])}")
        lines.append(f"{'transfer auc':>12}: {_number(transfer['auc'])}")
        if transfer["only_class"]:
            lines.append(
                f"{'':>14}every headline of the transfer set is {transfer['only_class']}: AUC needs both "
                f"classes"
            )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    cli.run(EvaluateConfig, main, __doc__)
