"""What `make bench-head` needs: Redis takes the manifest's settings, and the verdict can be no."""

from __future__ import annotations

import dataclasses
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.lost_head import LostHead, redis_configuration, redis_settings
from tests.conftest import free_port
from tests.performance.bench_head import differences

KEPT = LostHead(
    head_s=31.0,
    recovered_s=35.0,
    same_node=True,
    same_replica=True,
    same_deployment=True,
    versions=("v1", "v1"),
    replaced_s=8.0,
    asked_without_head=2000,
    asked=3000,
    lost={},
)
GONE = dataclasses.replace(
    KEPT,
    recovered_s=None,
    same_node=False,
    same_replica=False,
    same_deployment=False,
    versions=("v1", None),
    lost={"refused": 900},
)


def test_all_kept_with_redis_and_nothing_without_is_the_expected_result() -> None:
    assert differences(KEPT, GONE) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"same_node": False}, "another id"),
        ({"same_replica": False}, "another one"),
        ({"same_deployment": False}, "deployed again"),
        ({"versions": ("v1", "v2")}, "another version"),
        ({"lost": {"status 503": 4}}, "was lost"),
    ],
)
def test_what_redis_did_not_keep_is_named(change: dict[str, object], message: str) -> None:
    (difference,) = differences(dataclasses.replace(KEPT, **change), GONE)  # type: ignore[arg-type]
    assert message in difference


def test_a_head_that_needs_no_redis_to_find_everything_shows_nothing_about_redis() -> None:
    assert len(differences(KEPT, KEPT)) == 2


def test_redis_takes_the_manifest_s_settings_and_refuses_who_has_no_password(tmp_path: Path) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server here (Debian: redis-server): redis.yaml's settings were not checked")
    port = free_port()
    command = [
        "redis-server",
        *redis_settings(redis_configuration()),
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(
        [*command, "--requirepass", "secret", "--dir", str(tmp_path)], stdout=subprocess.DEVNULL
    )
    try:
        assert _ask(port, "PING").startswith("-NOAUTH")
        for name, value in (
            ("maxmemory-policy", "noeviction"),
            ("appendonly", "yes"),
            ("maxmemory", str(384 * 2**20)),
        ):
            assert value in _ask(port, "AUTH secret", f"CONFIG GET {name}").split()
        assert list(tmp_path.glob("appendonlydir/*.aof"))
    finally:
        process.kill()
        process.wait()


def _ask(port: int, *commands: str) -> str:
    """Redis' answer to inline commands, once it listens."""
    end = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall("".join(f"{command}\r\n" for command in (*commands, "QUIT")).encode())
                return b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        except ConnectionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
