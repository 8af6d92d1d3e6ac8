"""A version that somebody put forward as `staging`: the gate and the performance test decide whether
`production` points at it.

    python -m cluster.staged --version v7 --registry gs://bucket/registry --dataset gs://bucket/datasets/latest
    python -m cluster.staged --artifact entity/project/clickbait-model:staging --registry ... --comment artifacts/staged.md

With `--artifact` W&B says which version: it mirrors the registry, so what it names must be in the registry
byte for byte. What came of it goes to `--comment` as Markdown, a refusal with its reasons. Exit code: 0
promoted, 1 refused; the others are in `clickbait.cli`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clickbait import cli, sample, telemetry
from clickbait.config import PromoteConfig
from clickbait.errors import ClickbaitError, ConfigError, Refused, RegistryError
from clickbait.registry.bundle import MANIFEST
from clickbait.registry.registry import Registry
from clickbait.training import tracking
from cluster import benchmark, smoke
from cluster.shell import ROOT
from ray_jobs.promote import judge

REQUESTS, CONCURRENCY = 1000, 16
# a reader's patience with a page; a shared runner of four cores that also sends the load is well below it
MAX_P95_MS = 250.0
_UP_S = 120.0
_DOWN_S = 30.0
Performance = Callable[[str, str], benchmark.Figures]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it."""

    version: str
    promoted: bool
    checks: list[dict[str, Any]]
    """The gate's, then the performance test's."""
    figures: benchmark.Figures | None
    """None where the gate had refused already."""


def named_by_wandb(artifact: str, registry: Registry) -> str:
    """The registry's version behind a W&B artifact (`tracking.mirror` made it: the version is in its
    metadata).

    Raises:
        ConfigError: W&B does not know the artifact, or it is no mirror of a version.
        RegistryError: the registry has no such version, or another one under that name.
    """
    telemetry.off()
    import wandb

    try:
        found = wandb.Api().artifact(artifact, type="model")
        version = (found.metadata or {}).get("version")
        with tempfile.TemporaryDirectory(prefix="staged-") as folder:
            theirs = Path(found.get_entry(MANIFEST).download(root=folder)).read_bytes()
    except (wandb.errors.Error, KeyError, ValueError) as error:
        raise ConfigError(
            f"--artifact {artifact}: W&B: {' '.join(str(error).split())}: is WANDB_API_KEY set, and the name "
            f"whole?"
        ) from None
    if not isinstance(version, str):
        raise ConfigError(
            f"--artifact {artifact}: its metadata names no version: only what ray_jobs.promote mirrored can "
            f"be promoted"
        )
    # The manifest holds every other file's digest, and fetch() verifies those.
    if (registry.fetch(version) / MANIFEST).read_bytes() != theirs:
        raise RegistryError(
            f"{registry.uri}: {version} is not what {artifact} holds: stage the version again (inv "
            f"stage-model)"
        )
    return version


@contextmanager
def served(registry: str, version: str) -> Iterator[str]:
    """The version behind the HTTP api, in a process of its own; yields its address.

    Raises:
        ConfigError: it does not come up; the message is the server's last line.
    """
    command = [
        sys.executable,
        "-m",
        "serve.standalone",
        "--registry",
        registry,
        "--model",
        version,
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ]
    environment = {
        name: value for name, value in os.environ.items() if not name.upper().startswith("CLICKBAIT_API_KEY")
    }
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            until = time.monotonic() + _UP_S
            while not (url := _address(_text(log))):
                if server.poll() is not None or time.monotonic() > until:
                    said = _text(log).strip().splitlines() or ["it said nothing"]
                    raise ConfigError(f"{version} is not served: {said[-1]}")
                time.sleep(0.1)
            yield url
        finally:
            server.terminate()
            try:
                server.wait(_DOWN_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _text(log: Any) -> str:
    return os.pread(log.fileno(), 1_000_000, 0).decode(errors="replace")


def _address(text: str) -> str:
    return next(
        (
            line.split()[3]
            for line in text.splitlines()
            if line.startswith("serving ") and len(line.split()) > 3
        ),
        "",
    )


def performance(registry: str, version: str) -> benchmark.Figures:
    """1,000 generated headlines to the version, after one whose answer is looked at.

    Raises:
        SmokeError: the answer is not as it should be.
    """
    with served(registry, version) as url:
        smoke.check(url, model=version, wait_s=_UP_S)
        headlines = [headline for headline, _ in sample.generate(REQUESTS)]
        return benchmark.measure(benchmark.Target(url, requests=REQUESTS, concurrency=CONCURRENCY), headlines)


def decide(
    config: PromoteConfig, version: str, max_p95_ms: float, measure: Performance = performance
) -> Result:
    """The gate, then the performance test; the alias moves only if it still points where it pointed when the
    gate judged.

    Raises:
        RegistryError: no such version; AliasConflict where somebody moved the alias meanwhile.
    """
    registry = Registry(config.registry)
    version = registry.resolve(version)
    folder = registry.fetch(version)
    verdict, pointed_at = judge(config, folder, registry)
    checks = list(verdict["checks"])
    if verdict["decision"] != "promoted":
        return Result(version, False, checks, None)
    figures = measure(config.registry, version)
    failed = figures.requests - figures.statuses.get("200", 0)
    checks.append(
        {
            "name": "requests_failed",
            "value": failed,
            "op": "<=",
            "bound": 0,
            "passed": failed == 0,
            "note": "",
        }
    )
    fast = figures.p95_ms is not None and figures.p95_ms <= max_p95_ms
    note = f"{figures.requests} requests of {figures.concurrency} clients"
    checks.append(
        {
            "name": "p95_ms",
            "value": figures.p95_ms,
            "op": "<=",
            "bound": max_p95_ms,
            "passed": fast,
            "note": note,
        }
    )
    if failed or not fast:
        return Result(version, False, checks, figures)
    registry.set_alias(version, config.alias, expect=pointed_at)
    tracking.mirror(registry, version, [config.alias], config.wandb_project)
    return Result(version, True, checks, figures)


def markdown(result: Result, alias: str) -> str:
    """What came of it, for a commit's comment or a job's summary; the failed checks first."""
    if result.promoted:
        head = f"**{result.version} is `{alias}` now.** Every check passed."
    else:
        failed = ", ".join(f"`{check['name']}`" for check in result.checks if not check["passed"])
        head = f"**{result.version} was not promoted**: {failed}. `{alias}` stays where it is."
    lines = [head, "", "| check | value | bound | | |", "| --- | ---: | ---: | --- | --- |"]
    for check in sorted(result.checks, key=lambda one: one["passed"]):
        value = "none" if check["value"] is None else f"{check['value']:.4g}"
        mark = "pass" if check["passed"] else "FAIL"
        lines.append(
            f"| {check['name']} | {value} | {check['op']} {check['bound']:.4g} | {mark} | {check['note']} |"
        )
    if result.figures is None:
        lines += ["", "The performance test was not run: the gate had refused."]
    return "\n".join(lines) + "\n"


def main(args: Sequence[str] | None = None) -> int:
    """Decides, writes the comment, prints it; the exit code is `clickbait.cli.Code`."""
    return cli.exit_code(lambda: _run(_parser().parse_args(args)))


def _run(given: argparse.Namespace) -> None:
    alias = given.alias
    try:
        if bool(given.version) == bool(given.artifact):
            raise ConfigError("name one of --version (the registry's) and --artifact (W&B's)")
        config = PromoteConfig(
            registry=given.registry, dataset=given.dataset, alias=alias, wandb_project=given.wandb_project
        )
        version = given.version or named_by_wandb(given.artifact, Registry(given.registry))
        result = decide(config, version, given.max_p95_ms)
    except ClickbaitError as error:
        _comment(
            given.comment, f"**{given.version or given.artifact or 'Nothing'} was not judged**: {error}\n"
        )
        raise
    _comment(given.comment, markdown(result, alias))
    if not result.promoted:
        raise Refused(f"{version} is not {alias}: the checks marked FAIL say why")


def _comment(file: str, text: str) -> None:
    """Prints the text, and writes it to `file` where there is one."""
    if file:
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(text, end="")


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m cluster.staged", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument(
        "--version", default="", help="the registry's version or alias, such as v7 or staging"
    )
    parser.add_argument(
        "--artifact", default="", help="instead: W&B's name, entity/project/clickbait-model:staging"
    )
    parser.add_argument(
        "--registry", default="artifacts/registry", help="where versions and aliases are kept (%(default)s)"
    )
    parser.add_argument(
        "--dataset",
        default="artifacts/datasets/latest",
        help="the dataset on whose test split both are compared",
    )
    parser.add_argument("--alias", default="production", help="the alias to move (%(default)s)")
    parser.add_argument(
        "--max-p95-ms",
        type=float,
        default=MAX_P95_MS,
        help="what 95 of 100 requests stay below (%(default)s)",
    )
    parser.add_argument(
        "--wandb-project", default="clickbait", help="W&B project that mirrors the alias when online"
    )
    parser.add_argument("--comment", default="", help="write what came of it to this file, as Markdown")
    return parser


if __name__ == "__main__":
    sys.exit(main())
