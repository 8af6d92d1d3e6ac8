"""Which servers there are, and how each is started."""

from __future__ import annotations

import copy
import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clickbait.errors import ClickbaitError
from serve.http.protocol import PUBLIC_APIS_ONLY
from tests.performance.processes import Started, free_port, started
from tests.performance.results import ROOT
from tests.performance.wrk import Shape

BIN = Path(sys.executable).parent
REPLICAS = 2  # of ours, and processes or threads of every peer: the cores that the comparison is made on
_START_S = 300  # a Ray session takes 30 s, and several times that while others use the cores

SINGLE = Shape("/classify", '{"text": ', "}")
BATCH = Shape("/classify/batch", '{"texts": [', "]}")
ADAPTIVE = Shape("/adaptive", '{"texts": [', "]}")  # BentoML's

OURS, OURS_HAPROXY, OURS_FAST, STANDALONE = "ours", "ours-haproxy", "ours-fast", "ours-standalone"
OURS_PUBLIC = "ours-public"  # through HAProxy, without private parts of Ray
RAY_DEFAULT = "ray-default"
PEERS = ("fastapi", "litserve", "bentoml", RAY_DEFAULT)


class StartError(ClickbaitError):
    """A server did not come up, or answers something else than the model does."""


@dataclass(frozen=True)
class Server:
    """A server and one way to set it up."""

    name: str
    setup: str
    """What was chosen, in words."""
    command: tuple[str, ...]
    """`{port}` and `{config}` (a file with `ray_serve`) are filled in."""
    env: dict[str, str] = field(default_factory=dict)
    ray_serve: dict[str, Any] | None = None
    """The document that `serve run` gets: it has no flag for a port."""
    shared: bool = False
    """Asked at the port that its replicas share, past HAProxy."""
    single: Shape = SINGLE
    batch: Shape = BATCH


def servers(bundle: Path, registry: str, fast_registry: str | None) -> dict[str, list[Server]]:
    """Each server's name with the set-ups that are tried; the fastest of them is measured."""
    found = {
        **_peers(bundle),
        OURS: [_ours(OURS, registry)],
        OURS_HAPROXY: [_ours(OURS_HAPROXY, registry, shared=False)],
        OURS_PUBLIC: [_ours(OURS_PUBLIC, registry, shared=False, public=True)],
    }
    if fast_registry:
        found[OURS_FAST] = [_ours(OURS_FAST, fast_registry)]
    command = (
        sys.executable,
        "-m",
        "serve.standalone",
        "--registry",
        registry,
        "--model",
        "production",
        "--port",
        "{port}",
    )
    found[STANDALONE] = [Server(STANDALONE, "one process, one compute thread, no Ray", command)]
    return found


def _peers(bundle: Path) -> dict[str, list[Server]]:
    def env(**settings: int) -> dict[str, str]:
        return {"PEER_BUNDLE": str(bundle)} | {
            f"PEER_{name.upper()}": str(value) for name, value in settings.items()
        }

    uvicorn = (
        str(BIN / "uvicorn"),
        "tests.performance.peers.fastapi_ort:app",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
    )
    uvicorn += ("--no-access-log", "--log-level", "warning", "--workers")
    lit = (sys.executable, "-m", "tests.performance.peers.litserve_app", "{port}")
    bento = (
        str(BIN / "bentoml"),
        "serve",
        "tests.performance.peers.bento_app:Classifier",
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
    )
    ray = (str(BIN / "serve"), "run", "{config}")
    return {
        "fastapi": [
            Server(
                "fastapi",
                f"{workers} workers, pool of {pool} threads",
                (*uvicorn, str(workers)),
                env(pool=pool),
            )
            for workers, pool in ((1, 40), (1, 2), (2, 40), (2, 1))
        ],
        "litserve": [
            Server("litserve", "2 workers, no batching", lit, env(workers=2)),
            Server("litserve", "2 workers, batches of 16", lit, env(workers=2, batch=16)),
            Server(
                "litserve",
                "2 workers, batches of 16, fast queue",
                lit,
                env(workers=2, batch=16, fast_queue=1),
            ),
            Server(
                "litserve", "1 worker with 2 threads, batches of 16", lit, env(workers=1, threads=2, batch=16)
            ),
        ],
        "bentoml": [
            Server(
                "bentoml",
                "adaptive batching, 1 worker with 2 threads",
                bento,
                env(threads=2),
                single=ADAPTIVE,
            ),
            Server("bentoml", "adaptive batching, 2 workers", bento, env(workers=2), single=ADAPTIVE),
            Server("bentoml", "no batching, 2 workers", bento, env(workers=2)),
            Server("bentoml", "no batching, 1 worker of 2 calls", bento, env(calls=2)),
        ],
        RAY_DEFAULT: [
            Server(RAY_DEFAULT, "1 replica with 2 threads", ray, env(threads=2), _ray_default(1)),
            Server(RAY_DEFAULT, "2 replicas", ray, env(), _ray_default(2)),
        ],
    }


def _ray_default(replicas: int) -> dict[str, Any]:
    deployment = {"name": "Classifier", "num_replicas": replicas}
    app = {
        "name": "default",
        "route_prefix": "/",
        "import_path": "tests.performance.peers.ray_default:app",
        "deployments": [deployment],
    }
    return {"http_options": {"host": "127.0.0.1"}, "applications": [app]}


def _ours(name: str, registry: str, *, shared: bool = True, public: bool = False) -> Server:
    """configs/serve.yaml with another registry, other ports and a fixed number of replicas.

    Args:
        name: the server's name in the figures.
        registry: the registry that it serves from.
        shared: asked at the shared port, not at HAProxy's.
        public: without private parts of Ray.
    """
    document = yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text(encoding="utf-8"))
    (app,) = document["applications"]
    app["args"] |= {"registry": registry, "model": "production"}
    (deployment,) = app["deployments"]
    deployment.pop("autoscaling_config", None)
    deployment["num_replicas"] = REPLICAS
    setup = f"{REPLICAS} replicas, configs/serve.yaml, {'the shared port' if shared else 'through HAProxy'}"
    if public:
        app["args"].pop("shared_port")
        setup += ", public APIs only"
    return Server(
        name,
        setup,
        (str(BIN / "serve"), "run", "{config}"),
        env={PUBLIC_APIS_ONLY: "1"} if public else {},
        ray_serve=document,
        shared=shared,
    )


@contextmanager
def running(server: Server, folder: Path, mark: str | None = None) -> Iterator[str]:
    """The server's base URL while it runs; its files and its log go to `folder`. All of its processes are
    ended after, by their ids.

    Every process carries the mark (`processes.marked`).

    Raises:
        StartError: it does not come up.
    """
    port, mark = free_port(), mark or secrets.token_hex(8)
    config = folder / f"{mark}.yaml"
    if server.ray_serve:
        document = copy.deepcopy(server.ray_serve)
        document["http_options"]["port"] = port
        if "shared_port" in (args := document["applications"][0].get("args", {})):
            args["shared_port"] = free_port()
            port = args["shared_port"] if server.shared else port
        config.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [word.format(port=port, config=config) for word in server.command]
    with started(
        command, _environment(server, folder), folder / f"{server.name}-{mark}.log", mark
    ) as process:
        url = f"http://127.0.0.1:{port}"
        _wait(process, url, server)
        yield url


def ask(url: str, shape: Shape, texts: list[str]) -> list[float]:
    """The scores that a server gives for the texts, in one request.

    Raises:
        OSError: no answer, or not a good one.
    """
    body = f"{shape.before}{', '.join(map(json.dumps, texts))}{shape.after}".encode()
    request = urllib.request.Request(
        f"{url}{shape.path}", data=body, headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        told = json.load(answer)
    results = (
        told["results"]
        if isinstance(told, dict) and "results" in told
        else told
        if isinstance(told, list)
        else [told]
    )
    return [float(result["score"]) for result in results]


def _environment(server: Server, folder: Path) -> dict[str, str]:
    """What a user has, without what would make the servers unlike those of a plain shell."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "CLICKBAIT_", "BENTOML_", "PEER_"))
    }
    ray = {
        "RAY_ADDRESS": "local",  # a Ray of its own, whatever else runs here
        "RAY_TMPDIR": str(folder / "ray"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": "500000000",
        "RAY_USAGE_STATS_ENABLED": "0",
        # the 5 s of the default end a proxy's start where others use the cores
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    }
    bento = {"BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "true"}
    path = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**kept, **ray, **bento, **path, **server.env}


def _wait(process: Started, url: str, server: Server) -> None:
    """Until it answers a batch and a single headline, several times: each of its processes is up by then, or
    nearly.
    """
    end = time.monotonic() + _START_S
    good = 0
    while good < 4 * REPLICAS:
        if process.ended() or time.monotonic() > end:
            raise StartError(f"{server.name} ({server.setup}) does not answer: {process.told()}")
        try:
            ask(url, server.single, ["is anybody there"])
            ask(url, server.batch, ["one", "two"])
            good += 1
        except (OSError, ValueError, KeyError, TypeError):  # refused, not ready, or not yet an answer
            good = 0
            time.sleep(0.3)
