"""Starts images that `cluster.build_with_buildah` built, and lets each score one headline.

    python -m cluster.try_with_buildah standalone serve train --registry artifacts/registry

`standalone` and `serve` run their own command over a copy of the registry and are asked over HTTP on
loopback. `train` preprocesses a small synthetic sample, trains the n-gram model on it, and scores the
headline with the registry's model, by the jobs. In a chroot, as the images' user, on the host's network:
`serve` listens on port 8000. Prints what each answered as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clickbait import cli
from clickbait.errors import ConfigError
from clickbait.registry.registry import Registry
from cluster.build_with_buildah import buildah
from serve import ports

HEADLINE = "You will never believe what this dog did"
UP_S = 180.0
JOBS = f"""
set -e
mkdir /tmp/tried && cd /app
echo '{HEADLINE}' > /tmp/tried/headlines.txt
python -m ray_jobs.preprocess --config configs/preprocess.yaml --sample-size 400 --output /tmp/tried/datasets
python -m ray_jobs.train --config configs/train.yaml --dataset /tmp/tried/datasets/latest --output /tmp/tried/runs --model scratch:ngrams \\
  --epochs 1 --lr 5e-3 --num-workers 1
python -m ray_jobs.score --config configs/score.yaml --source /tmp/tried/headlines.txt --output /tmp/tried/scores
python -c "import json, pathlib, pyarrow.parquet as p; (part,) = pathlib.Path('/tmp/tried/scores').rglob('part-*.parquet')
print('scored', json.dumps(p.read_table(part, columns=['label', 'score', 'model']).to_pylist()[0]))"
"""


@contextlib.contextmanager
def started(
    target: str, registry: Path, command: Sequence[str], log: Path, *variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """`command` in a new container of the target, its output in `log`; both are ended on the way out."""
    # HAProxy wants 10,267 files; buildah's containers have 1,024, Docker's and Kubernetes' far more.
    container = buildah(
        "from", "--pull-never", "--ulimit", "nofile=20000:20000", f"clickbait-{target}", capture=True
    )
    words = [
        "buildah",
        "run",
        "--isolation",
        "chroot",
        "--user",
        "1000:1000",
        "--volume",
        f"{registry}:/app/artifacts/registry",
    ]
    mark = f"CLICKBAIT_TRIED={secrets.token_hex(8)}"
    words += [word for variable in (*variables, mark) for word in ("--env", variable)] + [
        container,
        "--",
        *command,
    ]
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        try:
            yield process
        finally:
            _end(process, mark.encode())
    finally:
        buildah("rm", container, capture=True)


def asked(process: subprocess.Popen[bytes], port: int, log: Path) -> dict[str, Any]:
    """What the server answers to the headline once it is there.

    Raises:
        ConfigError: it ended, or is not up in time.
    """
    body = json.dumps({"text": HEADLINE}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/classify", body, {"content-type": "application/json"}
    )
    end = time.monotonic() + UP_S
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                found: dict[str, Any] = json.loads(answer.read())
                return found
        except OSError:
            time.sleep(0.5)
    raise ConfigError(f"no answer on port {port}: {' | '.join(_last(log))}")


def score(target: str, registry: Path, folder: Path) -> dict[str, Any]:
    """What the image makes of the headline.

    Raises:
        ConfigError: nothing; its last words.
    """
    log = folder / f"{target}.log"
    if target == "train":
        with started(target, registry, ["sh", "-c", JOBS], log) as process:
            code = process.wait(timeout=3 * UP_S)
        told = [
            line
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
            if line.startswith("scored ")
        ]
        if code or not told:
            raise ConfigError(f"{target} ended with {code}: {' | '.join(_last(log))}")
        found: dict[str, Any] = json.loads(told[0].removeprefix("scored "))
        return found
    if target == "serve":
        ports.bind(
            "127.0.0.1", 8000
        ).close()  # raises where somebody is there already: his answer would be taken for ours
        with started(target, registry, ["serve", "run", "configs/serve.yaml"], log) as process:
            return asked(process, 8000, log)
    with ports.bind("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    with started(
        target, registry, ["python", "-m", "serve.standalone"], log, f"CLICKBAIT_PORT={port}"
    ) as process:
        return asked(process, port, log)


def _end(process: subprocess.Popen[bytes], mark: bytes) -> None:
    """TERM to all that the container started (`mark` is in its environment), KILL to what is left: a chroot
    has no init to do so.
    """
    for number, patience_s in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
        end = time.monotonic() + patience_s
        for pid in _marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while _marked(mark) and time.monotonic() < end:
            time.sleep(0.2)
    process.wait()


def _marked(mark: bytes) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def _last(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]


def main(args: Sequence[str] | None = None) -> int:
    """Starts each image and prints its score; the exit code is `clickbait.cli.Code`."""
    return cli.exit_code(lambda: _run(args))


def _run(args: Sequence[str] | None) -> None:
    parser = cli.Parser(
        prog="python -m cluster.try_with_buildah", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("targets", nargs="+", choices=("standalone", "serve", "train"))
    parser.add_argument(
        "--registry", type=Path, default=Path("artifacts/registry"), help="whose production is scored with"
    )
    given = parser.parse_args(args)
    Registry(str(given.registry)).resolve("production")  # raises where there is none to score with
    with tempfile.TemporaryDirectory(prefix="clickbait-try-") as folder:
        registry = Path(folder) / "registry"
        shutil.copytree(given.registry, registry)
        for path in (Path(folder), registry, *registry.rglob("*")):  # for the images' user
            path.chmod(0o777 if path.is_dir() else 0o666)
        answers = {target: score(target, registry, Path(folder)) for target in given.targets}
    print(json.dumps(answers))


if __name__ == "__main__":
    sys.exit(main())
