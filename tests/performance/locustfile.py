"""Users of the HTTP api for locust: most ask about one headline, some about 32, each headline a new one.

    locust -f tests/performance/locustfile.py --host http://127.0.0.1:8000                    # with a page: http://localhost:8089
    locust -f tests/performance/locustfile.py --host http://127.0.0.1:8000 --headless --users 64 --spawn-rate
    16 --run-time 30s

`inv locust` is the same. CLICKBAIT_API_KEY is sent where it is set. Each user asks again as soon as he has
his answer: locust measures what users feel at a number of users; how much a server can take is for `make
bench-serve`, whose generator costs less of the machine.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import gevent
from locust import FastHttpUser, events, task

from clickbait.sample import generate

HEADLINES = 10_000  # then they come again
BATCH = 32


@cache
def headlines() -> Iterator[str]:
    """The one source of all users of this process, so that no two ask the same."""
    return itertools.cycle([text for text, _ in generate(HEADLINES, seed=os.getpid())])


@events.init.add_listener
def write(**_: Any) -> None:
    """Writes the headlines before the clock runs: while that takes a second or two, no user would get a
    turn.
    """
    headlines()
    # --run-time counts from the loop's own idea of now, which stood still meanwhile
    gevent.get_hub().loop.update_now()


class Reader(FastHttpUser):
    """A client of /classify and /classify/batch."""

    def on_start(self) -> None:
        """Reads the key."""
        key = os.environ.get("CLICKBAIT_API_KEY")
        self.sent = {"authorization": f"Bearer {key}"} if key else {}

    @task(9)
    def single(self) -> None:
        """One headline."""
        self._ask("/classify", {"text": next(headlines())}, lambda told: "score" in told)

    @task(1)
    def batch(self) -> None:
        """Thirty-two."""
        texts = list(itertools.islice(headlines(), BATCH))
        self._ask("/classify/batch", {"texts": texts}, lambda told: len(told["results"]) == BATCH)

    def _ask(self, path: str, body: dict[str, Any], good: Any) -> None:
        with self.client.post(path, json=body, headers=self.sent, catch_response=True) as answer:
            if answer.status_code != 200:  # 0 where there was none
                answer.failure(f"status {answer.status_code}: {(answer.text or '')[:200]}")
            elif not good(answer.json()):
                answer.failure("the answer has not the scores that were asked for")
