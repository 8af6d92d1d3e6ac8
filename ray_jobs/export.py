"""Export a run's best checkpoint to a bundle.

    python -m ray_jobs.export --config configs/export.yaml --run artifacts/runs/clickbait

The bundle holds ONNX graphs in fp32 and int8 (each compared with torch), a manifest and a model card.
"""

from __future__ import annotations

from clickbait import cli
from clickbait.config import ExportConfig
from clickbait.data.dataset import open_dataset
from clickbait.errors import DataError
from clickbait.registry import model_card, workspace
from clickbait.training.runs import open_run


def export(config: ExportConfig) -> str:
    """Writes the bundle and returns its URI. Runs in this process, without Ray workers.

    Raises:
        DataError: the run is missing, is not finished, or was trained on another dataset.
    """
    run = open_run(config.run, unfinished=config.unfinished)
    dataset = open_dataset(config.dataset)
    run_document = run.read_json("run.json") or {}
    if run_document.get("dataset") != dataset.fingerprint:
        raise DataError(
            f"{config.run} was trained on dataset {run_document.get('dataset')}, not {dataset.fingerprint}: "
            f"give its --dataset"
        )
    # Importing torch and transformers takes 12 s, so the checks above come first.
    from clickbait.training import export as exporting

    best = run.best()
    assert best is not None
    history = run.state(run.complete()[-1]).history
    with run.fetch(best) as checkpoint, workspace.new(config.output) as folder:
        exporting.build(
            config, checkpoint, exporting.train_config(run_document["config"]), history, dataset, folder
        )
    return config.output


def main(config: ExportConfig) -> None:
    """Exports, and prints how far each form agrees with the torch model and how fast it is."""
    uri = export(config)
    with workspace.existing(uri) as folder:
        comparison = model_card.read_metrics(folder)["export"]
    for form in ("torch", "fp32", "int8"):
        if form in comparison:
            figures = comparison[form]
            agreement = (
                f"agrees on {figures['agreement']:.2%}, differs by {figures['max_difference']:.2g} at most, "
                if "agreement" in figures
                else ""
            )
            print(
                f"{form:>5}: {agreement}{figures['per_second']:.0f} headlines per second on "
                f"{comparison['threads']} thread(s)"
            )
    print(f"bundle: {uri}")


if __name__ == "__main__":
    cli.run(ExportConfig, main, __doc__)
