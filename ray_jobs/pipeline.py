"""The whole path in one Ray session: preprocess, train, export, evaluate, gate, publish, serve, score over
HTTP. `make demo`.

    python -m ray_jobs.pipeline --config configs/demo.yaml
    python -m ray_jobs.pipeline --config configs/demo.yaml --data headlines.csv --transfer others.csv --keep-serving

Writes <work>/summary.json. A dataset and a training run that are there already are not made again: remove
<work> to start anew. Exit code: 0 promoted, 1 refused by the gate; the others are in `clickbait.cli`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clickbait import cli, storage
from clickbait.config import GateConfig, PipelineConfig, TrainConfig, load
from clickbait.data.dataset import Dataset, open_dataset
from clickbait.errors import ConfigError, Refused
from clickbait.evaluation import measure
from clickbait.registry import workspace
from clickbait.registry.registry import Registry
from clickbait.sample import SYNTHETIC_NOTICE
from clickbait.training import tracking
from clickbait.training.runs import description
from ray_jobs import evaluate, export, preprocess, promote, session, train
from serve import app, ports, settings
from serve.http import keys
from serve.settings import Settings

# Written for this purpose: what the server is asked at the end.
HEADLINES = (
    "You Won't Believe What This Dog Did When Its Owner Came Home",
    "Parliament approves budget after late night vote",
    "17 Things Only People Who Grew Up in a Small Town Will Understand",
    "Central bank holds interest rates as inflation slows",
    "Which Kitchen Appliance Are You, Based on Your Zodiac Sign?",
)


class Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Announces the step and notes how long it took."""
        print(f"── {name}", flush=True)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 1)


def pipeline(config: PipelineConfig) -> dict[str, Any]:
    """Runs every step and returns the summary that is written to <work>/summary.json.

    Raises:
        ClickbaitError: what a user can mend, by the step that found it.
    """
    # What serving needs is looked at now, not after twenty minutes of training and a promotion.
    registry = storage.join(config.work, "registry")
    chosen = settings.load(registry=registry, model=config.promote.alias)
    key = key_for(chosen)
    ports.bind(chosen.host, config.port).close()
    load(GateConfig, config.promote.gate_file)
    tracking.check()
    clock = Clock()
    work = config.work
    draft = storage.join(work, "bundle")
    source = config.data or config.preprocess.source
    with clock.step("ray"):
        session.connect()
    with clock.step("preprocess"):
        uri = preprocess.preprocess(
            config.preprocess.model_copy(update={"source": source, "output": storage.join(work, "datasets")})
        )
    dataset = open_dataset(uri)
    measuring = {"bundle": draft, "dataset": uri, "transfer": config.transfer or config.evaluate.transfer}
    evaluating = config.evaluate.model_copy(update=measuring)
    evaluate.inputs(evaluating, dataset)  # a transfer set that cannot be read is told before training too
    with clock.step("train"):
        training = config.train.model_copy(update={"dataset": uri, "output": storage.join(work, "runs")})
        training = training.model_copy(update={"name": run_name(training, dataset)})
        run = train.train(training)
    with clock.step("export"):
        export.export(config.export.model_copy(update={"run": run, "dataset": uri, "output": draft}))
    with clock.step("evaluate"):
        metrics = evaluate.evaluate(evaluating)
    with clock.step("gate and publish"):
        outcome = promote.promote(
            config.promote.model_copy(update={"bundle": draft, "dataset": uri, "registry": registry})
        )
    served = Registry(registry).alias(config.promote.alias)
    answers: list[dict[str, Any]] = []
    if served is not None:
        with clock.step("serve"):
            url = app.serve_on_ray(chosen, config.port)
        with clock.step("score over HTTP"):
            answers = [{"text": text, **ask(url, text, key)} for text in HEADLINES]
    summary = summarise(dataset, metrics, outcome, answers, clock.seconds)
    summary["report"] = workspace.address(draft, "report.html")
    storage.open_storage(work).write("summary.json", json.dumps(summary, indent=2).encode())
    print(table(summary), flush=True)
    if served is not None:
        if config.keep_serving:
            print(f"serving {served.version} at {url}/docs until Ctrl-C", flush=True)
            wait()
        app.stop()
    return summary


def run_name(config: TrainConfig, dataset: Dataset) -> str:
    """A name that another dataset or recipe does not share, so that the same demo run twice resumes and
    another one starts anew.

    It is made of the settings that are not at their defaults: a setting that is added later does not rename
    the runs that are there.
    """
    settings, defaults = (description(one, dataset)["config"] for one in (config, TrainConfig()))
    changed = {key: value for key, value in settings.items() if value != defaults[key]}
    recipe = json.dumps({"dataset": dataset.fingerprint, "config": changed}, sort_keys=True)
    return f"{config.name}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"


def key_for(chosen: Settings) -> str:
    """A key that the server takes; empty where it asks for none.

    Raises:
        ConfigError: the server asks for one, and here is only its digest, or none.
    """
    keys.Keys(chosen)  # refuses a file without keys
    text = chosen.api_keys.get_secret_value().encode()
    if chosen.api_keys_file and not text:
        text = Path(chosen.api_keys_file).read_bytes()
    if words := settings.split(text):
        return words[0].decode()
    if chosen.keyed:
        raise ConfigError(
            "the server asks for a key, and the pipeline asks the server: set CLICKBAIT_API_KEYS or "
            "CLICKBAIT_API_KEYS_FILE"
        )
    return ""


def ask(url: str, text: str, key: str) -> dict[str, Any]:
    """The server's answer to one headline; `key` is sent where it is not empty."""
    body = json.dumps({"text": text}).encode()
    headers = {"content-type": "application/json"} | ({"x-api-key": key} if key else {})
    request = urllib.request.Request(f"{url}/classify", body, headers)  # noqa: S310 - our own http URL
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        answer: dict[str, Any] = json.load(response)
    return answer


def summarise(
    dataset: Dataset,
    metrics: dict[str, Any],
    outcome: promote.Outcome,
    answers: list[dict[str, Any]],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The keys of summary.json."""
    counts = dataset.manifest["counts"]
    return {
        "synthetic": dataset.synthetic,
        "dataset": dataset.fingerprint,
        "rows_in": counts["in"],
        "rows_kept": counts["kept"],
        "rows_duplicate": counts["duplicates"],
        "rows_quarantined": counts["quarantined"],
        "accuracy": metrics["test"]["accuracy"],
        "auc": metrics["test"]["auc"],
        "flip_lower": metrics["flips"]["lower"],
        "flip_punctuation": metrics["flips"]["punctuation"],
        "ece": metrics["test"]["ece"],
        "transfer_auc": metrics["transfer"]["auc"] if metrics["transfer"] else None,
        "transfer_left_out": metrics["transfer"]["left_out"] if metrics["transfer"] else {},
        "int8_agreement": metrics["export"].get("int8", {}).get("agreement"),
        "gate": outcome.decision,
        "failed_checks": [
            item["name"] for item in (outcome.verdict or {}).get("checks", []) if not item["passed"]
        ],
        "version": outcome.version,
        "answers": answers,
        "seconds": {**seconds, "total": round(sum(seconds.values()), 1)},
    }


def table(summary: dict[str, Any]) -> str:
    """The summary for a terminal."""
    rule = min(shutil.get_terminal_size((100, 24)).columns, 120) * "─"
    lines = [rule]
    if summary["synthetic"]:
        lines += [SYNTHETIC_NOTICE, rule]
    for name in ("rows_in", "rows_kept", "rows_duplicate", "rows_quarantined"):
        lines.append(f"{name:<18} {summary[name]:>8,}")
    for name in (
        "accuracy",
        "auc",
        "transfer_auc",
        "ece",
        "flip_lower",
        "flip_punctuation",
        "int8_agreement",
    ):
        if summary[name] is not None:
            lines.append(f"{name:<18} {summary[name]:>8.4f}")
    if summary["transfer_left_out"]:
        lines.append(f"{'transfer set':<18} {measure.left_out(summary['transfer_left_out'])}")
    failed = f" ({', '.join(summary['failed_checks'])})" if summary["failed_checks"] else ""
    lines += [f"{'gate':<18} {summary['gate']}{failed}", f"{'version':<18} {summary['version'] or 'none'}"]
    lines += [
        f"{answer['score']:>8.4f}  {answer['label']:<9}  {answer['text']}" for answer in summary["answers"]
    ]
    lines.append(
        "seconds            " + ", ".join(f"{name} {value:.0f}" for name, value in summary["seconds"].items())
    )
    return "\n".join([*lines, f"report             {summary['report']}", rule])


def wait() -> None:
    """Until Ctrl-C or SIGTERM."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()


def main(config: PipelineConfig) -> None:
    """Runs the pipeline.

    Raises:
        Refused: the gate let the candidate not through.
    """
    summary = pipeline(config)
    if summary["gate"] == "refused":
        raise Refused(
            f"no alias was moved; the gate's checks that failed: {', '.join(summary['failed_checks'])}"
        )


if __name__ == "__main__":
    cli.run(PipelineConfig, main, __doc__)
