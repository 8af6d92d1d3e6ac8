"""A job to a Ray cluster with token authentication: `ray job submit`, with what it leaves to the user
(docs/jobs.md).

    inv submit train --address http://127.0.0.1:8265 --args "--dataset gs://bucket/datasets/latest --output gs://bucket/runs"
    inv submit sweep --args "..." --runtime-env env.yaml --metadata ticket=42 --no-follow
    inv submit train --dry-run

Nothing is uploaded before the cluster has let the token in. The job's exit code is the task's.
"""

from __future__ import annotations

import asyncio
import getpass
import http.client
import json
import os
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from invoke.context import Context
from invoke.exceptions import Exit

from clickbait import library_errors
from clickbait.config import did_you_mean
from clickbait.errors import ConfigError
from cluster.shell import ROOT, task

# Beside what .gitignore names: data, secrets, and logs, which may grow while they are packed. A pattern is
# .gitignore's: with / in front it means the root only.
EXCLUDES = [
    ".git",
    "/artifacts",
    "/.venv",
    "/data",
    "*.csv",
    "/wandb",
    ".env",
    ".env.*",
    "*.log",
    "*.pem",
    "*.key",
]
ADDRESS = "http://127.0.0.1:8265"
_ASK_S = 10.0
_MOST_BYTES = 65_536
_AGENT_S = 60.0
_NOBODY = "clickbait-submit-check"  # no job has this id: 404 says that the token was let in
_NOT_HERE = "see docs/jobs.md"


def jobs() -> dict[str, str]:
    """The module of each job that has a configuration of its name."""
    names = sorted(
        path.stem
        for path in (ROOT / "ray_jobs").glob("*.py")
        if (ROOT / "configs" / f"{path.stem}.yaml").is_file()
    )
    return {name: f"ray_jobs.{name}" for name in names} | {
        name: f"tuning.{name}" for name in ("distil", "sweep")
    }


def token() -> str:
    """The cluster's token, from where Ray itself looks, in its order.

    Raises:
        ConfigError: there is none.
    """
    if given := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return given
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named or "~/.ray/auth_token").expanduser()
    try:
        found = path.read_text(encoding="utf-8").strip()
    except OSError:
        found = ""
    if not found:
        where = f"{path} has none" if named else "neither RAY_AUTH_TOKEN nor RAY_AUTH_TOKEN_PATH is set"
        raise ConfigError(
            f"no token: {where}: set RAY_AUTH_TOKEN_PATH to the file with the cluster's ({_NOT_HERE})"
        )
    return found


def knock(address: str, secret: str) -> None:
    """Whether the cluster is there and lets the token in.

    Raises:
        ConfigError: it does not; the message says which of the two.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"--address {address}: the dashboard's http:// or https:// address is needed, such as {ADDRESS}"
        )
    request = urllib.request.Request(  # noqa: S310
        f"{address.rstrip('/')}/api/jobs/{_NOBODY}", headers={"Authorization": f"Bearer {secret}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_ASK_S):  # noqa: S310
            return
    except urllib.error.HTTPError as error:
        with error:
            status, said = error.code, error.read(_MOST_BYTES)
    except OSError as error:
        raise ConfigError(
            f"--address {address}: nobody answers ({getattr(error, 'reason', error)}): is the head or the "
            f"tunnel up?"
        ) from None
    except (http.client.HTTPException, ValueError):
        raise ConfigError(
            f"--address {address}: what answers there speaks no HTTP: is that a Ray dashboard?"
        ) from None
    if status in (401, 403):
        raise ConfigError(
            f"{address}: refuses the token ({status}): wrong, or changed since: fetch the cluster's again "
            f"({_NOT_HERE})"
        )
    if status != 404 or _NOBODY.encode() not in said:  # Ray's 404 repeats the id
        raise ConfigError(
            f"--address {address}: answers {status} to a question about a job: is that a Ray dashboard?"
        )


def commit() -> str:
    """The checkout's commit, with `-dirty` where files differ from it; "" outside of git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def own_output() -> list[str]:
    """The files in the checkout that this process prints to (`inv submit ... > out.txt`): they grow while Ray
    packs the checkout.
    """
    found = []
    for descriptor in (1, 2):
        try:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:  # no Linux, or closed
            continue
        if path.is_file() and path.is_relative_to(ROOT):
            found.append(f"/{path.relative_to(ROOT).as_posix()}")
    return sorted(set(found))


def environment(file: str, made_of: str) -> dict[str, Any]:
    """Ray's runtime_env: the checkout without data, the commit, and over them what the YAML file says.

    Raises:
        ConfigError: no such file, or not a mapping.
    """
    given: Any = {}
    if file:
        try:
            given = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"--runtime-env {file}: {' '.join(str(error).split())}") from None
        if not isinstance(given, dict):
            raise ConfigError(f"--runtime-env {file}: a mapping is needed, such as env_vars: {{NAME: value}}")
    variables = {"GIT_COMMIT": made_of} if made_of else {}
    return {
        "working_dir": str(ROOT),
        **given,
        "excludes": [*EXCLUDES, *own_output(), *given.get("excludes", [])],
        "env_vars": {**variables, **given.get("env_vars", {})},
    }


def labels(given: Sequence[str], name: str, made_of: str) -> dict[str, str]:
    """The job's metadata: whose, what, from which commit, and what was given.

    Raises:
        ConfigError: not `key=value`.
    """
    found = {"job_name": name, "user": getpass.getuser(), "git_commit": made_of or "unknown"}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise ConfigError(f"--metadata {pair}: key=value is needed")
        found[key] = value
    return found


def plain(address: str, runtime_env: dict[str, Any], metadata: dict[str, str], entry: str) -> str:
    """The same as one line of `ray job submit`; values of variables may be secrets and are not shown."""
    shown = {
        **runtime_env,
        "env_vars": {
            key: value if key == "GIT_COMMIT" else "***" for key, value in runtime_env["env_vars"].items()
        },
    }
    working = shown.pop("working_dir")
    where = "." if working == str(ROOT) else working
    command = ["ray", "job", "submit", "--address", address, "--working-dir", where]
    return (
        shlex.join(
            [*command, "--runtime-env-json", json.dumps(shown), "--metadata-json", json.dumps(metadata)]
        )
        + f" -- {entry}"
    )


def _submit(client: Any, **asked: Any) -> str:
    """The job's id. A head that has just started has no agent for jobs yet and asks to try again: that is
    done for a minute.

    Raises:
        ConfigError: Ray did not take the job; the message is Ray's.
    """
    end = time.monotonic() + _AGENT_S
    while True:
        try:
            return str(client.submit_job(**asked))
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > end:
                raise ConfigError(f"Ray does not take the job: {library_errors.line(error)}") from None
        time.sleep(1)


def send(
    address: str, runtime_env: dict[str, Any], metadata: dict[str, str], entry: str, *, follow: bool
) -> int:
    """Submits, prints the id, follows the log to its end; the job's exit code, or 0 without `follow`."""
    os.environ["RAY_AUTH_MODE"] = "token"  # Ray reads it once, on import
    from ray.job_submission import JobStatus, JobSubmissionClient

    client = JobSubmissionClient(address)
    number = _submit(client, entrypoint=entry, runtime_env=runtime_env, metadata=metadata)
    print(f"submitted {number}", flush=True)
    if not follow:
        print(f"its log: ray job logs --address {address} --follow {number}")
        return 0

    async def copy() -> None:
        async for lines in client.tail_job_logs(number):
            print(lines, end="", flush=True)

    try:
        asyncio.run(copy())
    except KeyboardInterrupt:
        print(f"\n{number} goes on; to end it: ray job stop --address {address} {number}")
        return 130
    found = client.get_job_info(number)
    print(f"{number}: {found.status}", flush=True)
    if found.status == JobStatus.SUCCEEDED:
        return 0
    if (
        found.driver_exit_code is None
    ):  # the job was stopped, or its environment was never made: not a refusal, which 1 would be
        raise ConfigError(
            f"{number}: {found.status}: {' '.join((found.message or 'Ray gave no reason').split())[:400]}"
        )
    return int(found.driver_exit_code)


@task(iterable=["metadata"])
def submit(
    context: Context,  # noqa: ARG001 - invoke hands it over; nothing is run by a shell here
    name: str,
    address: str = ADDRESS,
    args: str = "",
    runtime_env: str = "",
    metadata: list[str] | None = None,
    follow: bool = True,
    dry_run: bool = False,
) -> None:
    """Runs a job on a Ray cluster: its log is followed, its exit code is this one's (docs/jobs.md)."""
    known = jobs()
    if name not in known:
        near = did_you_mean(name, list(known))
        raise ConfigError(f"{name}: no such job{near or '; known: ' + ', '.join(known)}")
    try:
        words = shlex.split(args)
    except ValueError as error:
        raise ConfigError(f"--args: {error}") from None
    made_of = commit()
    entry = shlex.join(["python", "-m", known[name], "--config", f"configs/{name}.yaml", *words])
    wanted, told = environment(runtime_env, made_of), labels(metadata or [], name, made_of)
    print(plain(address, wanted, told, entry), flush=True)
    if dry_run:
        return
    knock(address, token())
    if code := send(address, wanted, told, entry, follow=follow):
        raise Exit(code=code)
