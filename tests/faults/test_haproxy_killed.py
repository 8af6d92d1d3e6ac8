"""HAProxy is killed, Ray's proxy actor goes and comes: who asks is refused for a moment, and served on from
then on.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serve.on_ray import haproxy_process
from tests.conftest import ROOT
from tests.echo import echo
from tests.proxy import Proxy, wait_until


def status(proxy: Proxy) -> int | None:
    """None where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    try:
        connection.request("POST", "/news", b"a headline")
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def test_a_stand_in_serves_until_a_new_actor_takes_over_and_nobody_is_left_after_the_end(
    tmp_path: Path,
) -> None:
    with echo() as server:
        proxy = Proxy(tmp_path, [server])
        first, haproxy = proxy.start()
        wait_until(lambda: status(proxy) == 200, proxy.log)

        os.kill(haproxy, signal.SIGKILL)
        wait_until(lambda: status(proxy) == 200, proxy.log)
        assert haproxy_process.answering(proxy.place.socket) is None, (
            "Ray would take the proxy actor for healthy, and never reload again"
        )
        stand_in = haproxy_process.answering(proxy.place.stand_in_socket)
        assert stand_in
        os.kill(stand_in, signal.SIGKILL)
        wait_until(lambda: status(proxy) == 200, proxy.log)
        stand_in = haproxy_process.answering(proxy.place.stand_in_socket)
        assert stand_in

        # As Ray does it: the actor ends, another one starts with a configuration that has no application yet.
        first.kill()
        first.wait()
        statuses: list[int | None] = []
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                statuses.append(status(proxy))
                time.sleep(0.01)

        asking = threading.Thread(target=ask)
        asking.start()
        proxy.write()
        second, haproxy = proxy.start()
        wait_until(lambda: haproxy_process.ended(stand_in), proxy.log)
        over.set()
        asking.join()
        assert set(statuses) == {200}

        # A shutdown: Ray kills HAProxy, and its actor right after.
        os.kill(haproxy, signal.SIGKILL)
        second.kill()
        second.wait()
        time.sleep(2 * haproxy_process._SHUTDOWN_S)
        assert status(proxy) is None


def test_an_haproxy_whose_actor_was_killed_is_taken_over(tmp_path: Path) -> None:
    with echo() as server:
        proxy = Proxy(tmp_path, [server])
        first, haproxy = proxy.start()
        first.kill()
        first.wait()
        wait_until(lambda: status(proxy) == 200, proxy.log)
        proxy.write()
        second, successor = proxy.start()
        wait_until(lambda: haproxy_process.ended(haproxy), proxy.log)
        assert status(proxy) == 200
        second.kill()
        second.wait()
        os.kill(successor, signal.SIGKILL)


def test_the_watcher_ends_with_its_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And ends the HAProxy that nobody else would end."""
    proxy = Proxy(tmp_path, [1])
    haproxy = subprocess.Popen(["sleep", "60"])
    try:
        proxy.place.note(haproxy.pid, 2**22 + 1, 2**22 + 1)  # no such actor, and no raylet
        haproxy_process.watch(proxy.place, "/nowhere")
        assert haproxy.wait(timeout=10) == -signal.SIGUSR1
    finally:
        haproxy.kill()
        haproxy.wait()


def test_requests_to_a_replica_that_hangs_are_answered_by_another(tmp_path: Path) -> None:
    """Those that it has taken already, too."""
    hangs = subprocess.Popen(
        [sys.executable, "-m", "tests.echo"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert hangs.stdout is not None
    with echo() as alive, hangs.stdout as told:
        proxy = Proxy(tmp_path, [int(told.readline()), alive])
        actor, haproxy = proxy.start()
        try:
            wait_until(lambda: proxy.log.read_text().count("Layer7 check passed") >= 2, proxy.log)
            hangs.send_signal(signal.SIGSTOP)
            with ThreadPoolExecutor(8) as pool:
                statuses = list(pool.map(lambda _: status(proxy), range(32)))
            assert statuses == [200] * 32
            assert "is DOWN" in proxy.log.read_text(), (
                "nothing was sent to the one that hangs: this shows nothing"
            )
        finally:
            for process in (actor, hangs):
                process.kill()
                process.wait()
            os.kill(haproxy, signal.SIGKILL)
