"""Servers side by side: FastAPI, LitServe, BentoML, Ray Serve as its tutorial has it, and ours, with one
model, on one machine, in one run.

    make bench-serve
    make bench-serve ARGS='--rounds 1 --seconds 2 --servers fastapi,ours'

First every set-up of every peer is tried for a moment, and its fastest is kept. Then rounds: each server in
turn is started, checked to compute what the model computes, warmed, loaded by wrk with one headline a request
and with 32, and ended before the next one is started, so that nothing idle takes from the two cores. At the
end a fixed rate of arrivals, for ours and for the best peer. Figures are medians over rounds:
artifacts/bench/serve.json, and serve.svg beside it. docs/load-tests.md says how to read them.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clickbait.errors import ClickbaitError, ConfigError
from clickbait.inference.scorer import Scorer
from clickbait.registry.registry import Registry
from clickbait.sample import generate
from tests.performance import ceiling, results, serve_figures, wrk
from tests.performance.peers import servers
from tests.performance.peers.servers import Server, StartError
from tests.performance.serve_figures import BATCH_OF, Rounds

HEADLINES = 40_000  # more than any server answers in a scenario but the fastest model's
SINGLE_AT = (1, 16, 64, 256)  # connections
BATCH_AT = (1, 16, 64)
# times the seconds for batches of many: at 64 the first answers come after two, and what is under way at the
# end is not counted
LONGER = 3
RATES = (0.5, 0.8)  # of what the best peer does at 64 connections
CHECKED = 24  # headlines that must come back with the model's scores
# of scores, on average: int8 takes its ranges from the whole batch, so neighbours move a borderline headline
# by up to 0.2
ALIKE = 0.03
KNOWN = [
    *servers.PEERS,
    servers.OURS,
    servers.OURS_HAPROXY,
    servers.OURS_PUBLIC,
    servers.STANDALONE,
    servers.OURS_FAST,
]
BUNDLES = results.ROOT / "artifacts" / "bench" / "models" / "bundles"


class Bench:
    """One run: its folder, its headlines, its servers."""

    def __init__(self, folder: Path, bundle: Path, fast: Path | None, seconds: float) -> None:
        self.folder, self.bundle, self.seconds = folder, bundle, seconds
        self.texts = [text for text, _ in generate(HEADLINES, seed=4)]
        self.headlines = folder / "headlines.txt"
        wrk.write_headlines(self.headlines, self.texts)
        self.servers = servers.servers(
            bundle, publish(bundle, folder / "registry"), publish(fast, folder / "fast") if fast else None
        )
        self._expected = {
            name: self._scores(fast if name == servers.OURS_FAST else bundle) for name in self.servers
        }
        self._offset = 0

    def _scores(self, bundle: Path | None) -> list[float]:
        assert bundle is not None
        scorer = Scorer(bundle, verified=True)
        return [float(scorer.score([text])[0]) for text in self.texts[:CHECKED]]

    def load(self, url: str, server: Server, connections: int, seconds: float, texts: int = 1) -> wrk.Result:
        """wrk against a running server, from headlines on that were not sent just now."""
        self._offset += 9973
        shape = server.single if texts == 1 else server.batch
        return wrk.run(
            url,
            shape,
            self.headlines,
            connections=connections,
            seconds=seconds,
            texts=texts,
            offset=self._offset,
        )

    def check(self, url: str, server: Server) -> None:
        """That it computes the model, in a batch and one by one.

        Raises:
            StartError: it does not.
        """
        texts, expected = self.texts[:CHECKED], self._expected[server.name]
        single = [score for text in texts for score in servers.ask(url, server.single, [text])]
        for found in (servers.ask(url, server.batch, texts), single):
            off = sum(abs(a - b) for a, b in zip(found, expected, strict=True)) / CHECKED
            if off > ALIKE:
                raise StartError(
                    f"{server.name} ({server.setup}): scores are {off:.3f} off the model's: it computes "
                    f"something else"
                )

    def fastest(self, setups: list[Server]) -> tuple[Server, dict[str, float]]:
        """The set-up that answers most single headlines at 64 connections, and what each did."""
        if len(setups) == 1:
            return setups[0], {}
        tried = {}
        for server in setups:
            tried[server.setup] = 0.0
            try:
                with servers.running(server, self.folder) as url:
                    self.check(url, server)
                    self.load(url, server, 16, 1)
                    tried[server.setup] = round(
                        self.load(url, server, 64, max(self.seconds, 2)).per_second, 1
                    )
            except (OSError, StartError) as error:  # one of several ways to set it up
                print(
                    f"   {server.name:<15} {server.setup:<55} failed: {' '.join(str(error).split())[:100]}",
                    flush=True,
                )
            else:
                print(f"   {server.name:<15} {server.setup:<55} {tried[server.setup]:7.0f}/s", flush=True)
        if not any(tried.values()):
            raise StartError(f"{setups[0].name}: no set-up answers")
        return max(setups, key=lambda server: tried[server.setup]), tried

    def measure(self, server: Server) -> dict[str, wrk.Result]:
        """All scenarios of a server: `single-64` and so on, wrk's result each."""
        found = {}
        with servers.running(server, self.folder) as url:
            self.check(url, server)
            self.load(url, server, 16, 2)
            for connections in SINGLE_AT:
                found[f"single-{connections}"] = self.load(url, server, connections, self.seconds)
            for connections in BATCH_AT if server.name != servers.OURS_FAST else ():
                seconds = self.seconds * (LONGER if connections > 1 else 1)
                found[f"batch-{connections}"] = self.load(url, server, connections, seconds, BATCH_OF)
        told = "  ".join(
            f"{name} {result.per_second:.0f}" + (f" ({result.errors} errors)" * bool(result.errors))
            for name, result in found.items()
        )
        print(f"   {server.name:<15} {told}", flush=True)
        return found

    def ceiling(self) -> float:
        """Headlines a second of the engine alone."""
        self._offset += 9973
        found = ceiling.ceiling(
            self.bundle,
            self.headlines,
            processes=servers.REPLICAS,
            seconds=self.seconds,
            offset=self._offset % (HEADLINES // 2),
        )
        print(f"   {'ceiling':<15} {found:.0f} headlines/s in process", flush=True)
        return found

    def at_rate(self, server: Server, rates: list[float]) -> list[dict[str, float]]:
        """A running server under a fixed rate of arrivals: latency counts from when a request was due."""
        from tests.performance import openloop

        found = []
        with servers.running(server, self.folder) as url:
            for rate in rates:
                self._offset += 9973
                texts = self.texts[self._offset % HEADLINES :] + self.texts
                openloop.run(url, [(2, rate)], texts)
                samples = openloop.run(url, [(2 * self.seconds, rate)], texts)
                good = sorted(
                    1000 * sample.seconds for sample in samples if sample.status == 200 and not sample.error
                )
                found.append(serve_figures.at_rate(rate, len(samples), good))
        told = "  ".join(
            f"{one['rate']:.0f}/s: p50 {one['p50_ms']:.1f} p99 {one['p99_ms']:.1f} ms, {one['failed']:.0f} "
            f"failed"
            for one in found
        )
        print(f"   {server.name:<15} {told}", flush=True)
        return found


def publish(bundle: Path, folder: Path) -> str:
    """A registry with the bundle as its production version."""
    registry = Registry(str(folder))
    registry.set_alias(registry.publish(bundle), "production")
    return str(folder)


def bench(run: Bench, names: list[str], rounds: int) -> None:
    """Everything, and the figures that README and docs quote."""
    print("── which set-up of each", flush=True)
    chosen, tried = {}, {}
    for name in names:
        chosen[name], tried[name] = run.fastest(run.servers[name])
    measured: Rounds = {name: [] for name in names}
    ceilings = []
    for number in range(rounds):
        print(f"── round {number + 1} of {rounds}: requests/s", flush=True)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:  # nobody is always first, or always after the same
            measured[name].append(run.measure(chosen[name]))
        ceilings.append(run.ceiling())
    rated = fixed_rates(run, chosen, measured, rounds)
    saved = {
        "rounds": rounds,
        "seconds": run.seconds,
        "model": run.bundle.name,
        "setups": {name: server.setup for name, server in chosen.items()},
        "tried": tried,
        "medians": serve_figures.medians(measured),
        "ceilings": ceilings,
        "fixed_rate": rated,
        "measured": {
            name: [{at: asdict(one) for at, one in each.items()} for each in all_]
            for name, all_ in measured.items()
        },
    }
    # figures of a part never take the place of the whole
    name = "serve" if set(names) == set(KNOWN) else "serve-part"
    path = results.save(name, serve_figures.shows(measured, ceilings), **saved)
    print(serve_figures.table(measured))
    serve_figures.plot(measured, ceilings, path.with_suffix(".svg"))


def fixed_rates(run: Bench, chosen: dict[str, Server], measured: Rounds, rounds: int) -> dict[str, Any]:
    """Ours and the best peer at shares of what that peer does when it is never idle; nothing where one of
    them is left out.
    """
    peer = serve_figures.best_peer(measured)
    if peer is None or servers.OURS not in measured:
        return {}
    most = serve_figures.per_second(measured, peer, "single-64")
    rates = [round(share * most, 1) for share in RATES]
    print(
        f"── fixed rates: {', '.join(f'{share:g}' for share in RATES)} of {peer}'s {most:.0f} requests/s",
        flush=True,
    )
    found: dict[str, Any] = {servers.OURS: [], peer: []}
    for number in range(rounds):
        for name in sorted(found, reverse=bool(number % 2)):
            found[name].append(run.at_rate(chosen[name], rates))
    return {name: serve_figures.median_rates(each) for name, each in found.items()}


def parse(args: list[str] | None = None) -> argparse.Namespace:
    """The flags.

    Raises:
        ConfigError: a server or a bundle that is not there.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=BUNDLES / "minilm", help="the model that all serve")
    parser.add_argument(
        "--fast-bundle",
        type=Path,
        default=BUNDLES / "ngrams-taught",
        help="the faster model that ours serves too",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each scenario")
    parser.add_argument(
        "--servers", default=",".join(KNOWN), help="which, with commas between; all if not given"
    )
    given = parser.parse_args(args)
    given.servers = given.servers.split(",")
    if wrong := [name for name in given.servers if name not in KNOWN]:
        raise ConfigError(f"--servers {wrong[0]}: known are {', '.join(KNOWN)}")
    for bundle in [given.bundle] + [given.fast_bundle] * (servers.OURS_FAST in given.servers):
        if not (bundle / "manifest.json").is_file():
            raise ConfigError(
                f"{bundle}: no bundle there: `make bench-models` makes it, or name one with --bundle and "
                f"--fast-bundle"
            )
    if given.rounds < 1 or given.seconds < 1:
        raise ConfigError("--rounds and --seconds: at least 1")
    return given


def main() -> int:
    """0, or 2 for what the user can mend, in one line; what was started is ended, on Ctrl-C and SIGTERM
    too.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        given = parse()
        with tempfile.TemporaryDirectory(
            prefix="serve-", ignore_cleanup_errors=True
        ) as folder:  # short: Ray's sockets are below it
            fast = given.fast_bundle if servers.OURS_FAST in given.servers else None
            bench(Bench(Path(folder), given.bundle, fast, given.seconds), given.servers, given.rounds)
    except ClickbaitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
