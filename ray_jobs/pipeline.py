"""Run every step in one Ray session, from raw headlines to a served model (`make demo`).

    python -m ray_jobs.pipeline --config configs/demo.yaml
    python -m ray_jobs.pipeline --config configs/demo.yaml --data headlines.csv --keep-serving

The steps are preprocess, train, export, evaluate, gate and publish, serve, score over HTTP. Writes
<work>/summary.json. An existing dataset or training run is used again; remove <work> to start from nothing.
Exit code: 0 promoted, 1 refused by the gate; `clickbait.cli` lists the others.
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

# Written for this demo. The last step scores them over HTTP.
HEADLINES = (
    "You Won't Believe What This Dog Did When Its Owner Came Home",
    "Parliament approves budget after late night vote",
    "17 Things Only People Who Grew Up in a Small Town Will Understand",
    "Central bank holds interest rates as inflation slows",
    "Which Kitchen Appliance Are You, Based on Your Zodiac Sign?",
)


class Clock:
    """Measures how long each step takes, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Prints the step's name and records its duration."""
        print(f"── {name}", flush=True)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 1)


def pipeline(config: PipelineConfig) -> dict[str, Any]:
    """Runs every step and returns the summary that is written to <work>/summary.json.

    Raises:
        ClickbaitError: an error that the user can fix, raised by the step that hit it.
    """
    # Check the server's settings and port first, not after twenty minutes of training and a promotion.
    registry = storage.join(config.work, "registry")
    server = settings.load(registry=registry, model=config.promote.alias)
    key = key_for(server)
    ports.bind(server.host, config.port).close()
    load(GateConfig, config.promote.gate_file)
    tracking.check()
    clock = Clock()
    work = config.work
    bundle = storage.join(work, "bundle")
    source = config.data or config.preprocess.source
    with clock.step("ray"):
        session.connect()
    with clock.step("preprocess"):
        uri = preprocess.preprocess(
            config.preprocess.model_copy(update={"source": source, "output": storage.join(work, "datasets")})
        )
    dataset = open_dataset(uri)
    evaluate_config = config.evaluate.model_copy(
        update={"bundle": bundle, "dataset": uri, "transfer": config.transfer or config.evaluate.transfer}
    )
    evaluate.inputs(evaluate_config, dataset)  # report an unreadable transfer set before training
    with clock.step("train"):
        train_config = config.train.model_copy(update={"dataset": uri, "output": storage.join(work, "runs")})
        train_config = train_config.model_copy(update={"name": run_name(train_config, dataset)})
        run = train.train(train_config)
    with clock.step("export"):
        export.export(config.export.model_copy(update={"run": run, "dataset": uri, "output": bundle}))
    with clock.step("evaluate"):
        metrics = evaluate.evaluate(evaluate_config)
    with clock.step("gate and publish"):
        outcome = promote.promote(
            config.promote.model_copy(update={"bundle": bundle, "dataset": uri, "registry": registry})
        )
    served = Registry(registry).alias(config.promote.alias)
    answers: list[dict[str, Any]] = []
    if served is not None:
        with clock.step("serve"):
            url = app.serve_on_ray(server, config.port)
        with clock.step("score over HTTP"):
            answers = [{"text": text, **classify(url, text, key)} for text in HEADLINES]
    summary = summarise(dataset, metrics, outcome, answers, clock.seconds)
    summary["report"] = workspace.address(bundle, "report.html")
    storage.open_storage(work).write("summary.json", json.dumps(summary, indent=2).encode())
    print(table(summary), flush=True)
    if served is not None:
        if config.keep_serving:
            print(f"serving {served.version} at {url}/docs until Ctrl-C", flush=True)
            wait()
        app.stop()
    return summary


def run_name(config: TrainConfig, dataset: Dataset) -> str:
    """A name that depends on the dataset and the recipe.

    The same demo run twice resumes the run; another dataset or recipe starts a new one. Only settings that
    differ from their defaults count, so a setting that is added to the code later does not rename old runs.
    """
    settings = description(config, dataset)["config"]
    defaults = description(TrainConfig(), dataset)["config"]
    changed = {key: value for key, value in settings.items() if value != defaults[key]}
    recipe = json.dumps({"dataset": dataset.fingerprint, "config": changed}, sort_keys=True)
    return f"{config.name}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"


def key_for(server: Settings) -> str:
    """An API key that the server accepts; empty if the server needs none.

    Raises:
        ConfigError: the server needs a key, and only its digest is known here.
    """
    keys.Keys(server)  # refuses a file without keys
    text = server.api_keys.get_secret_value().encode()
    if server.api_keys_file and not text:
        text = Path(server.api_keys_file).read_bytes()
    if words := settings.split(text):
        return words[0].decode()
    if server.keyed:
        raise ConfigError(
            "the server requires an API key, and the pipeline has none to send: set CLICKBAIT_API_KEYS or "
            "CLICKBAIT_API_KEYS_FILE"
        )
    return ""


def classify(url: str, text: str, key: str) -> dict[str, Any]:
    """The server's answer for one headline. `key` is sent unless it is empty."""
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
    """Blocks until Ctrl-C or SIGTERM."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()


def main(config: PipelineConfig) -> None:
    """Runs the pipeline.

    Raises:
        Refused: the gate refused the candidate.
    """
    summary = pipeline(config)
    if summary["gate"] == "refused":
        raise Refused(
            f"no alias was moved; the gate's checks that failed: {', '.join(summary['failed_checks'])}"
        )


if __name__ == "__main__":
    cli.run(PipelineConfig, main, __doc__)
