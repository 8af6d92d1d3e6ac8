"""Work beside the requests: whatever it raises is logged and counted, and what must go on goes on."""

from __future__ import annotations

import asyncio

import pytest

from serve.core.background import Background


def test_what_fails_once_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    failed: list[str] = []

    async def main() -> None:
        background = Background(failed.append)

        async def work() -> None:
            raise OSError("gone")

        background.once("close", work)
        await background.finish()

    asyncio.run(main())
    assert failed == ["close"]
    assert "close failed" in caplog.text
    assert "gone" in caplog.text


def test_what_is_kept_starts_again_later_and_later_until_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[str] = []
    waits: list[float] = []

    async def main() -> None:
        background, sleep = Background(failed.append), asyncio.sleep

        async def noted(seconds: float) -> None:
            waits.append(seconds)
            await sleep(0)

        monkeypatch.setattr("serve.core.background.asyncio.sleep", noted)

        async def work() -> None:
            if len(failed) < 9:
                raise ValueError

        background.keep("follow main", work)
        await background.finish()

    asyncio.run(main())
    assert failed == ["follow main"] * 9
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_cancelling_ends_all_of_it_begun_or_not() -> None:
    async def main() -> None:
        background = Background(lambda name: pytest.fail(name))

        async def forever() -> None:
            await asyncio.sleep(3600)

        background.keep("follow main", forever)
        await asyncio.sleep(0)
        background.once("shadow", forever)
        await background.cancel()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
