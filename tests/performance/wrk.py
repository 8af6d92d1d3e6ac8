"""Drives wrk: writes its Lua script, runs it, reads what it found.

wrk is one compiled process that keeps a number of connections busy, each with its next request as soon as it
has its answer. The script takes every headline from a file, in turn, so that no two requests of a run are
alike while there are enough of them. Percentiles are wrk's own; the script prints them, and every kind of
error, in a line of their own, because wrk's report has no p95.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clickbait.errors import ClickbaitError

TIMEOUT_S = 10  # wrk counts what takes longer; 256 connections wait 2 s for the slowest server
_ENOUGH_S = 30  # beyond its time, for a server that hangs
_LINE = re.compile(r"^WRK (\{.*\})$", re.MULTILINE)

_SCRIPT = """\
local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(args)
  lines = {}
  for line in io.lines(@FILE@) do lines[#lines + 1] = line end
  at = @OFFSET@ + number * math.floor(#lines / 7)
  head = "POST @PATH@ HTTP/1.1\\r\\nHost: @HOST@\\r\\nContent-Type: application/json\\r\\nContent-Length: "
end

function request()
  local parts = {}
  for i = 1, @TEXTS@ do
    at = at % #lines + 1
    parts[i] = lines[at]
  end
  local body = @BEFORE@ .. table.concat(parts, ",") .. @AFTER@
  return head .. #body .. "\\r\\n\\r\\n" .. body
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'WRK {"requests": %d, "us": %d, "p50": %d, "p95": %d, "p99": %d, "status": %d, "socket": %d, "timeout": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    e.status, e.connect + e.read + e.write, e.timeout))
end
"""


class WrkError(ClickbaitError):
    """wrk is not there, or does not do what it should."""


@dataclass(frozen=True)
class Shape:
    """Where a request goes, and what stands around its headlines."""

    path: str
    before: str
    after: str


@dataclass(frozen=True)
class Result:
    """What wrk found in one run."""

    requests: int
    """Answered, with whatever status."""
    seconds: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    status_errors: int
    """Answers of 400 and above."""
    socket_errors: int
    """Connections that were refused, cut off, or not written to."""
    timeouts: int
    """Answers that took longer than `TIMEOUT_S`."""

    @property
    def per_second(self) -> float:
        """Good answers a second."""
        return max(self.requests - self.status_errors, 0) / self.seconds

    @property
    def errors(self) -> int:
        """Of any kind."""
        return self.status_errors + self.socket_errors + self.timeouts


def write_headlines(path: Path, texts: Sequence[str]) -> None:
    """A file of JSON strings, one a line, in ASCII: the script puts them into bodies as they are."""
    path.write_text("".join(f"{json.dumps(text)}\n" for text in texts), encoding="ascii")


def script(headlines: Path, shape: Shape, host: str, *, texts: int, offset: int) -> str:
    """The Lua script for requests of `texts` headlines each, from line `offset` of the file on."""
    values = {
        "FILE": json.dumps(str(headlines)),  # JSON's quotes of plain ASCII are Lua's
        "OFFSET": str(offset),
        "PATH": shape.path,
        "HOST": host,
        "TEXTS": str(texts),
        "BEFORE": json.dumps(shape.before),
        "AFTER": json.dumps(shape.after),
    }
    return re.sub(r"@([A-Z]+)@", lambda match: values[match[1]], _SCRIPT)


def parse(output: str) -> Result:
    """What `done` printed.

    Raises:
        WrkError: it printed nothing: wrk ended before that.
    """
    found = _LINE.search(output)
    if found is None:
        raise WrkError(f"wrk gave no figures: {' '.join(output.split())[:300] or 'nothing at all'}")
    told = json.loads(found[1])
    milliseconds = {f"{name}_ms": round(told[name] / 1000, 3) for name in ("p50", "p95", "p99")}
    return Result(
        told["requests"],
        told["us"] / 1e6,
        **milliseconds,
        status_errors=told["status"],
        socket_errors=told["socket"],
        timeouts=told["timeout"],
    )


def run(
    url: str,
    shape: Shape,
    headlines: Path,
    *,
    connections: int,
    seconds: float,
    texts: int = 1,
    offset: int = 0,
) -> Result:
    """Keeps `connections` connections to `url` busy for `seconds`, whole ones: wrk knows no others.

    Raises:
        WrkError: wrk is not installed, or cannot reach the server.
    """
    if shutil.which("wrk") is None:
        raise WrkError("wrk: not installed: apt-get install wrk (or brew install wrk)")
    with tempfile.TemporaryDirectory(prefix="wrk-") as folder:
        lua = Path(folder) / "requests.lua"
        lua.write_text(
            script(headlines, shape, url.removeprefix("http://"), texts=texts, offset=offset),
            encoding="ascii",
        )
        # One thread: it sends tens of thousands of requests a second, and the cores are the server's.
        command = [
            "wrk",
            "--threads=1",
            f"--connections={connections}",
            f"--duration={max(round(seconds), 1)}s",
        ]
        command += [f"--timeout={TIMEOUT_S}s", "--latency", f"--script={lua}", url]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=seconds + TIMEOUT_S + _ENOUGH_S
            )
        except subprocess.TimeoutExpired:
            raise WrkError(f"wrk did not end: does {url} still answer?") from None
    return parse(done.stdout + done.stderr)
