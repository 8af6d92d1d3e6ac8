"""The server when it is pushed: a load ramp, overload beside clients that misbehave, a hot swap, and `kill
-9` of a replica.

    make bench-autoscale
    python -m tests.performance.bench_autoscale --bundle artifacts/bench/models/bundles/minilm --seconds-scale 0.5

Starts a Ray of its own with 4 logical CPUs, deploys `configs/serve.yaml` on it, and writes
artifacts/bench/autoscale.json and .svg. What the parts do and what the figures mean: docs/autoscaling.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from clickbait.config import MODEL_NAME
from clickbait.registry.registry import Registry
from tests.performance import autoscale_figures as figures
from tests.performance import results
from tests.performance.autoscale_figures import Look
from tests.performance.openloop import Sample
from tests.performance.ray_server import RayServer, running, serve_config
from tests.performance.rude import misbehave

BUNDLES = results.ROOT / "artifacts" / "bench" / "models" / "bundles"
POLL_S = 1.0
STEADY = 0.4  # of the knee: a load that one replica of two can carry
_CHILD_S = 5.0  # until the generator has started and has its headlines


class Load:
    """A generator in a process of its own, so that what the benchmark does meanwhile does not hold it up."""

    def __init__(self, url: str, phases: list[tuple[float, float]], folder: Path) -> None:
        self.start = time.monotonic() + _CHILD_S
        self._seconds = sum(seconds for seconds, _ in phases)
        told = ",".join(f"{seconds:g}:{rate:g}" for seconds, rate in phases)
        self._out = folder / "samples.json"
        self._process = _generator(url, self._out, "--phases", told, "--start", repr(self.start))

    def now(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self.start

    def until(self, at: float) -> None:
        """Sleeps until `at` seconds of the load."""
        time.sleep(max(0.0, at - self.now()))

    def samples(self) -> list[Sample]:
        """Waits for the end."""
        return _samples(self._process, self._out, max(0.0, self._seconds - self.now()) + 60)

    def stop(self) -> None:
        """Ends it if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def load(
    server: RayServer, phases: list[tuple[float, float]], folder: Path, looks: list[Look]
) -> Iterator[Load]:
    """Load of these phases; meanwhile `looks` grows by the replicas that there are."""
    running_load, ended = Load(server.url, phases, folder), threading.Event()

    def look() -> None:
        while not ended.wait(0.5):
            with contextlib.suppress(OSError, KeyError):
                replicas = server.replicas()
                serving = tuple(replica.id for replica in replicas if replica.state == "RUNNING")
                looks.append(Look(round(running_load.now(), 2), serving, len(replicas) - len(serving)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield running_load
    finally:
        running_load.stop()
        ended.set()
        thread.join()


def knee(server: RayServer, folder: Path, seconds: float) -> float:
    """Good answers a second over 64 connections that each ask again at once."""
    process = _generator(server.url, folder / "closed.json", "--closed", f"64:{seconds + 1:g}")
    samples = _samples(process, folder / "closed.json", seconds + 60)
    return (
        sum(sample.status == 200 and sample.at >= 1 for sample in samples) / seconds
    )  # the first second warms up


def autoscale(server: RayServer, folder: Path, scale: float, shows: dict[str, float]) -> dict[str, Any]:
    """A ramp beyond one replica's knee and back, until the second replica has gone."""
    one = knee(server, folder, 4 * scale)
    bounds = serve_config()["applications"][0]["deployments"][0]["autoscaling_config"]
    # 10: how often a replica tells what it does
    lull = bounds["downscale_delay_s"] + bounds["look_back_period_s"] + 15
    shares = [(8, 0.3), (8, 0.7), (25, 1.2), (8, 0.7)]
    phases = [(seconds * scale, share * one) for seconds, share in shares] + [(lull, 0.15 * one)]
    looks: list[Look] = []
    with load(server, phases, folder, looks) as generator:
        samples = generator.samples()
    counts = [len(look.running) for look in looks]
    shows["autoscale_failed"] = figures.failed(samples)
    shows["autoscale_replicas_max"] = max(counts)
    shows["autoscale_replicas_end"] = counts[-1]
    svg = results.ROOT / "artifacts" / "bench" / "autoscale.svg"
    svg.write_text(figures.plot(samples, looks), encoding="utf-8")
    return {
        "knee_one_replica": round(one, 1),
        "config": bounds,
        "statuses": figures.statuses(samples),
        "timeline": figures.rounded(figures.timeline(samples)),
        "replicas": [(look.at, len(look.running), look.others) for look in looks],
    }


def overload(
    server: RayServer, folder: Path, scale: float, both: float, shows: dict[str, float]
) -> dict[str, Any]:
    """Twice the knee; in the second half beside clients that misbehave."""
    half = 10 * scale
    with load(server, [(2 * half, 2 * both)], folder, []) as generator, ThreadPoolExecutor(1) as pool:
        generator.until(half)
        rude = pool.submit(misbehave, server.url, half)
        samples = generator.samples()
        told = rude.result()
    alone, beside = ([sample for sample in samples if (sample.at >= half) == late] for late in (False, True))
    shows["overload_5xx"] = figures.server_errors(samples)
    shows["overload_failed"] = figures.failed(samples)
    shows["overload_p99_ms"] = figures.p99_ms(alone)
    shows["overload_good_beside_rude"] = round(_good(beside) / max(_good(alone), 1), 4)
    return {
        "knee": round(both, 1),
        "alone": _summary(alone, half),
        "beside_rude": _summary(beside, half),
        "rude": told,
        "timeline": figures.rounded(figures.timeline(samples)),
    }


def swap(
    server: RayServer,
    registry: Registry,
    bundle: Path,
    folder: Path,
    scale: float,
    rate: float,
    shows: dict[str, float],
) -> dict[str, Any]:
    """Production moves from v1 to v2, then to a v3 with a wrong byte."""
    broken = registry.publish(bundle)
    model = folder / "registry" / MODEL_NAME / "versions" / broken / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 0xFF
    model.write_bytes(data)
    moves, told = (5 * scale, 15 * scale), []
    with load(server, [(27 * scale, rate)], folder, []) as generator:
        generator.until(moves[0])
        registry.set_alias("v2", "production")
        moved = generator.now()
        generator.until(moves[1])
        registry.set_alias(broken, "production")
        bad = generator.now()
        while generator.now() < 26 * scale:
            told.append(_counts(server.url))
            time.sleep(0.25)
        samples = generator.samples()
    registry.set_alias("v2", "production")
    good = [sample for sample in samples if sample.status == 200]
    last = max((sample.at + sample.seconds for sample in good if sample.version == "v1"), default=0.0)
    early = sum(sample.version == "v2" and sample.at + sample.seconds < moved for sample in good)
    strange = sum(sample.version not in ("v1", "v2") for sample in good) + sum(
        sample.version != "v2" for sample in good if sample.at > bad
    )
    shows["swap_failed"] = figures.failed(samples) + early + strange
    shows["swap_seconds"] = round(last - moved, 2)
    refused = [counts for counts in told if counts.get("clickbait_swaps_total", {}).get("refused")]
    shows["swap_bad_refused"] = float(
        bool(refused) and all(set(counts.get("clickbait_version", {})) == {"v2"} for counts in told)
    )
    return {
        "rate": round(rate, 1),
        "statuses": figures.statuses(samples),
        "versions": {
            name: sum(sample.version == name for sample in good)
            for name in sorted({sample.version for sample in good})
        },
        "moved_at": [round(moved, 2), round(bad, 2)],
        "metrics": refused[-1:] or told[-1:],
        "p99_ms": {
            "before": figures.p99_ms(s for s in samples if s.at < moved),
            "after": figures.p99_ms(s for s in samples if s.at >= moved),
        },
        "timeline": figures.rounded(figures.timeline(samples)),
    }


def kill(
    server: RayServer, folder: Path, scale: float, rate: float, shows: dict[str, float]
) -> dict[str, Any]:
    """`kill -9` of one of two replicas under a load that one can carry."""
    looks: list[Look] = []
    with load(server, [(30 * scale, rate)], folder, looks) as generator:
        generator.until(6 * scale)
        victim = next(replica for replica in server.replicas() if replica.state == "RUNNING")
        server.kill(victim)
        at = generator.now()
        samples = generator.samples()
    replaced, recovered = figures.recovery_s(samples, looks, victim.id, at, 2)
    shows["kill_failed"] = figures.failed(samples)
    shows["kill_replaced_s"] = replaced
    shows["kill_recovery_s"] = recovered
    return {
        "rate": round(rate, 1),
        "killed_at": round(at, 2),
        "statuses": figures.statuses(samples),
        "timeline": figures.rounded(figures.timeline(samples)),
        "replicas": [(look.at, len(look.running), look.others) for look in looks],
    }


def _summary(samples: list[Sample], seconds: float) -> dict[str, Any]:
    """The refused wait for nothing: where their latency is high too, it is the generator or the way to the
    batcher that is late.
    """
    found = {"statuses": figures.statuses(samples), "good_per_second": round(_good(samples) / seconds, 1)}
    return found | {"p99_ms": figures.p99_ms(samples), "p99_ms_refused": figures.p99_ms(samples, 429)}


def _good(samples: list[Sample]) -> int:
    return sum(sample.status == 200 for sample in samples)


def _counts(url: str) -> dict[str, dict[str, float]]:
    """What one of the replicas says of its main role: which versions were taken over or refused, and which
    one serves.
    """
    found: dict[str, dict[str, float]] = {}
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
        for family in text_string_to_metric_families(answer.read().decode()):
            for sample in family.samples:
                of = sample.labels.get("result") or sample.labels.get(
                    "version"
                )  # the registry's metrics have neither
                if sample.labels.get("role") == "main" and of:
                    found.setdefault(sample.name, {})[of] = sample.value
    return found


def _generator(url: str, out: Path, *flags: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.performance.openloop", "--url", url, "--out", str(out), *flags],
        cwd=results.ROOT,
    )


def _samples(process: subprocess.Popen[bytes], out: Path, timeout_s: float) -> list[Sample]:
    try:
        code = process.wait(timeout=timeout_s)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code != 0:
        raise RuntimeError(f"the load generator ended with {code}")
    return [Sample(**each) for each in json.loads(out.read_text(encoding="utf-8"))]


def main() -> None:
    """Run the four parts, save."""
    parser = argparse.ArgumentParser(description="Autoscaling, overload, hot swap and kill -9 under load.")
    parser.add_argument(
        "--bundle",
        type=Path,
        default=BUNDLES / "minilm",
        help="the version that is served: a folder from an export",
    )
    parser.add_argument(
        "--second-bundle", type=Path, default=BUNDLES / "student", help="the version that it is swapped for"
    )
    parser.add_argument(
        "--seconds-scale", type=float, default=1.0, help="of the loads' lengths; below 0.5 little can be seen"
    )
    given = parser.parse_args()
    scale, shows, details, began = given.seconds_scale, dict[str, float](), dict[str, Any](), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-autoscale-") as name, running() as server:
        folder = Path(name)
        registry = Registry(str(folder / "registry"))
        registry.set_alias(registry.publish(given.bundle), "production")
        registry.publish(given.second_bundle)
        arguments = {"registry": str(folder / "registry"), "model": "production", "poll_s": f"{POLL_S:g}"}
        server.deploy(arguments)
        details["autoscale"] = autoscale(server, folder, scale, shows)
        server.deploy(arguments, num_replicas=2)
        both = knee(server, folder, 4 * scale)
        details["overload"] = overload(server, folder, scale, both, shows)
        details["swap"] = swap(server, registry, given.bundle, folder, scale, STEADY * both, shows)
        details["kill"] = kill(server, folder, scale, STEADY * both, shows)
    results.save(
        "autoscale", shows, bundle=given.bundle.name, seconds=round(time.monotonic() - began, 1), **details
    )


if __name__ == "__main__":
    main()
