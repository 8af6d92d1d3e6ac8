"""A small server that says what it was sent: a replica, as far as HAProxy sees one.

python -m tests.echo        # says its port
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Echo(BaseHTTPRequestHandler):
    """Says what arrived, as JSON."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        told = {
            "method": self.command,
            "headers": dict(self.headers.items()),
            "bytes": len(body),
            "port": self.server.server_port,
        }  # type: ignore[attr-defined]
        answer = json.dumps(told).encode()
        gone = self.path.endswith("/gone")  # as Ray's own proxy says that an application is not there
        self.send_response(404 if gone else 200)
        self.send_header("content-type", "text/plain; charset=utf-8" if gone else "application/json")
        self.send_header("content-length", str(len(answer)))
        with contextlib.suppress(OSError):  # HAProxy has closed a health check
            self.end_headers()
            self.wfile.write(answer)

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def echo() -> Iterator[int]:
    """Runs until the context ends; its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


if __name__ == "__main__":
    with echo() as port:
        print(port, flush=True)
        time.sleep(600)
