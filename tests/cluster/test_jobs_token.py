"""The jobs API lets nobody in without the token: 401 for none, 403 for a wrong one, on each of its routes,
and nothing has run then.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import ROOT, Cluster

# Whatever lets a stranger run, read, stop or change something (ray/dashboard/modules/job).
ROUTES = [
    ("GET", "/api/jobs/"),
    ("POST", "/api/jobs/"),
    ("GET", "/api/jobs/some"),
    ("GET", "/api/jobs/some/logs"),
    ("POST", "/api/jobs/some/stop"),
    ("DELETE", "/api/jobs/some"),
    ("GET", "/api/packages/gcs/_ray_pkg_0.zip"),
    ("PUT", "/api/packages/gcs/_ray_pkg_0.zip"),
]
REFUSED = {"no token": (None, 401), "a wrong token": ("0" * 64, 403)}


def ask(
    cluster: Cluster, method: str, path: str, token: str | None, body: bytes | None = None
) -> tuple[int, bytes]:
    """Status and body."""
    request = urllib.request.Request(
        cluster.dashboard + path, data=body, method=method, headers={"content-type": "application/json"}
    )
    if token is not None:
        request.add_header("authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize("who", REFUSED)
@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[f"{method} {path}" for method, path in ROUTES])
def test_each_route_refuses(ray_cluster: Cluster, who: str, method: str, path: str) -> None:
    token, status = REFUSED[who]
    body = b"{}" if method in ("POST", "PUT") else None
    assert ask(ray_cluster, method, path, token, body)[0] == status


def test_the_right_token_is_let_in(ray_cluster: Cluster) -> None:
    """Otherwise refusals would show nothing."""
    status, body = ask(ray_cluster, "GET", "/api/jobs/", ray_cluster.token)
    assert status == 200
    assert isinstance(json.loads(body), list)


@pytest.mark.parametrize("who", REFUSED)
def test_a_refused_job_does_not_run(ray_cluster: Cluster, tmp_path: Path, who: str) -> None:
    token, status = REFUSED[who]
    job = {"entrypoint": f"touch {tmp_path}/ran", "submission_id": f"stranger-{status}"}
    assert ask(ray_cluster, "POST", "/api/jobs/", token, json.dumps(job).encode())[0] == status
    _, body = ask(ray_cluster, "GET", "/api/jobs/", ray_cluster.token)
    assert job["submission_id"] not in {known.get("submission_id") for known in json.loads(body)}
    assert not (tmp_path / "ran").exists()


def test_ray_job_submit_with_a_wrong_token_fails_and_says_so(ray_cluster: Cluster, tmp_path: Path) -> None:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")
    }
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    command = [
        "ray",
        "job",
        "submit",
        "--address",
        ray_cluster.dashboard,
        "--",
        "touch",
        str(tmp_path / "ran"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, env=environment)
    assert done.returncode != 0
    assert "token" in (done.stdout + done.stderr).lower()
    assert not (tmp_path / "ran").exists()
