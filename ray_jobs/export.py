"""Export a run's best checkpoint to a bundle: ONNX in fp32 and int8, compared with torch, with manifest and
card.

python -m ray_jobs.export --config configs/export.yaml --run artifacts/runs/clickbait
"""

from __future__ import annotations

from clickbait import cli
from clickbait.config import ExportConfig
from clickbait.data.dataset import open_dataset
from clickbait.errors import DataError
from clickbait.registry import model_card, workspace
from clickbait.training.runs import open_run


def export(config: ExportConfig) -> str:
    """Writes the bundle and returns its URI. The work is one process's: it runs where the job runs, without
    Ray workers.

    Raises:
        DataError: no trained run there, it is not over, or it was trained on another dataset.
    """
    run = open_run(config.run, unfinished=config.unfinished)
    dataset = open_dataset(config.dataset)
    described = run.read_json("run.json") or {}
    if described.get("dataset") != dataset.fingerprint:
        raise DataError(
            f"{config.run} was trained on dataset {described.get('dataset')}, not {dataset.fingerprint}: "
            f"give its --dataset"
        )
    from clickbait.training import (
        export as exporting,
    )  # 12 s of torch and transformers: what is wrong is told before

    best = run.best()
    assert best is not None
    history = run.state(run.complete()[-1]).history
    with run.fetch(best) as checkpoint, workspace.new(config.output) as folder:
        exporting.build(
            config, checkpoint, exporting.train_config(described["config"]), history, dataset, folder
        )
    return config.output


def main(config: ExportConfig) -> None:
    """Export and say how near the forms are."""
    uri = export(config)
    with workspace.existing(uri) as folder:
        found = model_card.read_metrics(folder)["export"]
    for form in ("torch", "fp32", "int8"):
        if form in found:
            item = found[form]
            same = (
                f"agrees on {item['agreement']:.2%}, differs by {item['max_difference']:.2g} at most, "
                if "agreement" in item
                else ""
            )
            print(
                f"{form:>5}: {same}{item['per_second']:.0f} headlines a second on {found['threads']} "
                f"thread(s)"
            )
    print(f"bundle: {uri}")


if __name__ == "__main__":
    cli.run(ExportConfig, main, __doc__)
