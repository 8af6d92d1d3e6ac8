"""A service follows its alias while it answers: nothing is lost in a swap, a bad version is refused, canary
and shadow see their share.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from clickbait.errors import BundleError, NotReady, UnknownModel
from clickbait.registry.registry import Registry
from serve.core.service import Service
from serve.settings import Settings, load
from tests.tiny import tiny_bundle

BAIT, NEWS = "you won the secret trick", "council approves budget report"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """v1 and v2 are alike but for their temperature; production is v1."""
    registry = Registry(str(tmp_path / "registry"))
    for number, temperature in enumerate((1.0, 3.0)):
        registry.publish(tiny_bundle(tmp_path / f"draft{number}", temperature=temperature))
    registry.set_alias("v1", "production")
    return registry


def settings(registry: Registry, **fields: Any) -> Settings:
    return load(registry=registry.uri.rsplit("/", 1)[0], **({"poll_s": 0.0} | fields))


def run(service: Service, scenario: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        service.start()
        try:
            return await scenario()
        finally:
            await service.close()

    return asyncio.run(main())


def soon() -> float:
    return asyncio.get_running_loop().time() + 60.0


def spoil(registry: Registry, version: str) -> None:
    path = Path(registry.uri, "versions", version, "model.onnx")
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def metric(service: Service, name: str) -> str | None:
    lines = service.metrics.render().decode().splitlines()
    return next((line.rsplit(" ", 1)[1] for line in lines if line.startswith(name)), None)


def test_a_swap_under_load_loses_nothing_and_each_answer_names_who_computed_it(registry: Registry) -> None:
    service = Service(settings(registry))
    service.load()

    async def scenario() -> None:
        by_version = {version: await alone(registry, version) for version in ("v1", "v2")}
        stop = False
        seen: list[str] = []

        async def client() -> None:
            while not stop:
                answer = await service.score([BAIT, NEWS], soon())
                assert answer.scores == pytest.approx(by_version[answer.scorer.version], abs=1e-6)
                seen.append(answer.scorer.version)

        clients = [asyncio.ensure_future(client()) for _ in range(8)]
        for version in ("v2", "v1", "v2"):
            registry.set_alias(version, "production")
            await service._main.look()
            assert service.version == version
            before = len(seen)
            while len(seen) < before + 20:  # noqa: ASYNC110
                await asyncio.sleep(0)
        stop = True
        await asyncio.gather(*clients)
        assert set(seen[-8:]) == {"v2"}
        assert set(seen) == {"v1", "v2"}

    run(service, scenario)
    assert metric(service, 'clickbait_swaps_total{result="taken"') == "3.0"


async def alone(registry: Registry, version: str) -> list[float]:
    service = Service(settings(registry, model=version))
    service.load()
    found = (await service.score([BAIT, NEWS], soon())).scores
    await service.close()
    return found


def test_a_request_that_is_tokenized_while_a_swap_happens_is_answered_by_the_new_version(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(settings(registry))
    service.load()
    assert service._main.engine is not None
    scorer, swapped = service._main.engine.scorer, threading.Event()
    encode = scorer.encode

    def slow(texts: list[str]) -> list[list[int]]:
        assert swapped.wait(60)
        return encode(texts)

    monkeypatch.setattr(scorer, "encode", slow)

    async def scenario() -> None:
        waiting = asyncio.ensure_future(
            service.score([BAIT] * 100, soon())
        )  # so many go to the tokenizer's thread
        await asyncio.sleep(0)
        registry.set_alias("v2", "production")
        await service._main.look()
        for _ in range(5):
            await asyncio.sleep(0)  # the old engine closes
        swapped.set()
        answer = await waiting
        assert (answer.scorer.version, len(answer.scores)) == ("v2", 100)

    run(service, scenario)


def test_a_request_for_a_version_that_is_swapped_meanwhile_is_answered_by_no_other(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(settings(registry))
    service.load()
    assert service._main.engine is not None
    scorer, swapped = service._main.engine.scorer, threading.Event()
    encode = scorer.encode

    def slow(texts: list[str]) -> list[list[int]]:
        assert swapped.wait(60)
        return encode(texts)

    monkeypatch.setattr(scorer, "encode", slow)

    async def scenario() -> None:
        waiting = asyncio.ensure_future(service.score([BAIT] * 100, soon(), version="v1"))
        await asyncio.sleep(0)
        registry.set_alias("v2", "production")
        await service._main.look()
        for _ in range(5):
            await asyncio.sleep(0)  # the old engine closes
        swapped.set()
        with pytest.raises(UnknownModel, match="not served"):
            await waiting
        with pytest.raises(UnknownModel):
            await service.score([BAIT], soon(), version="v1")
        assert (await service.score([BAIT], soon(), version="v2")).scorer.version == "v2"

    run(service, scenario)


def test_a_closed_service_says_so(registry: Registry) -> None:
    service = Service(settings(registry))
    service.load()
    asyncio.run(service.close())
    assert not service.ready
    for count in (1, 100):

        async def scenario(count: int = count) -> None:
            with pytest.raises(NotReady, match="shuts down"):
                await service.score([BAIT] * count, soon())

        asyncio.run(scenario())


def test_a_bad_version_is_refused_and_the_old_one_serves_on(registry: Registry) -> None:
    service = Service(settings(registry))
    service.load()
    spoil(registry, "v2")

    async def scenario() -> None:
        registry.set_alias("v2", "production")
        await service._main.look()
        assert (await service.score([BAIT], soon())).scorer.version == "v1"
        health = service.health()
        assert (health["status"], health["model"], health["refused"]["version"]) == ("ready", "v1", "v2")
        assert "SHA-256" in health["refused"]["why"]
        assert metric(service, 'clickbait_swaps_total{result="refused"') == "1.0"
        registry.rollback("production")
        await service._main.look()
        assert service.health()["refused"] is None

    run(service, scenario)


def test_a_new_replica_falls_back_to_the_version_before_a_bad_one(registry: Registry) -> None:
    registry.set_alias("v2", "production")
    spoil(registry, "v2")
    service = Service(settings(registry))
    service.load()
    assert service.health()["model"] == "v1"
    assert service.health()["refused"]["version"] == "v2"
    with pytest.raises(BundleError, match="SHA-256"):
        Service(settings(registry, model="v2")).load()  # a version by its name is that version or nothing


def test_a_registry_that_does_not_answer_changes_nothing(registry: Registry) -> None:
    service = Service(settings(registry))
    service.load()

    async def scenario() -> None:
        await service._main.look()
        assert read(service) == ("1.0", None)
        alias = Path(registry.uri, "aliases", "production.json")
        whole = alias.read_text()  # noqa: ASYNC240
        alias.write_text("torn")  # noqa: ASYNC240
        for _ in range(2):
            await service._main.look()
        assert service.ready
        assert (await service.score([BAIT], soon())).scorer.version == "v1"
        assert read(service) == ("0.0", "2.0")
        alias.write_text(whole)  # noqa: ASYNC240
        await service._main.look()
        assert read(service) == ("1.0", "2.0")

    def read(service: Service) -> tuple[str | None, str | None]:
        """Whether the registry was reached the last time, and how often it was not."""
        return tuple(
            metric(service, f'clickbait_registry_{name}{{role="main"}}')
            for name in ("reachable", "read_failures_total")
        )  # type: ignore[return-value]

    before = time.time()
    run(service, scenario)
    last = metric(service, 'clickbait_registry_read_timestamp_seconds{role="main"}')
    assert last is not None
    assert before <= float(last) <= time.time()


def test_a_refused_version_is_loaded_less_and_less_often_and_the_alias_read_as_often_as_ever(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(settings(registry, poll_s=0.01))
    service.load()
    spoil(registry, "v2")
    registry.set_alias("v2", "production")
    follower = service._main
    resolve, loaded = follower._registry.resolve, follower._loaded
    reads, loads = [], []
    monkeypatch.setattr(follower._registry, "resolve", lambda ref: reads.append(ref) or resolve(ref))  # type: ignore[func-returns-value]
    monkeypatch.setattr(follower, "_loaded", lambda version: loads.append(version) or loaded(version))  # type: ignore[func-returns-value]

    async def scenario() -> None:
        async with asyncio.timeout(20):
            while len(reads) < 60:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert 2 <= len(loads) <= 12
            registry.rollback("production")
            while follower.refused is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    run(service, scenario)


def test_what_runs_beside_is_started_again_when_it_fails(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.core.background._AGAIN_S", 0.0)
    runs: list[str] = []

    async def beside(metrics: Any) -> None:
        runs.append("started")
        if len(runs) < 3:
            raise OSError("the agent is away")
        await asyncio.sleep(3600)

    service = Service(settings(registry, poll_s=0.01), beside=beside)
    service.load()
    looks: list[str] = []

    async def look() -> None:
        looks.append("looked")
        raise AssertionError("a bug")

    monkeypatch.setattr(service._main, "look", look)

    async def scenario() -> None:
        async with asyncio.timeout(20):
            while len(runs) < 3 or len(looks) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    run(service, scenario)
    assert metric(service, 'clickbait_task_failures_total{task="beside"}') == "2.0"
    assert float(metric(service, 'clickbait_task_failures_total{task="follow main"}') or 0) >= 2


def test_the_alias_is_followed_without_being_told(registry: Registry) -> None:
    service = Service(settings(registry, poll_s=0.01))
    service.load()

    async def scenario() -> None:
        registry.set_alias("v2", "production")
        async with asyncio.timeout(60):
            while service.version != "v2":  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    run(service, scenario)


def test_a_canary_has_its_share(registry: Registry) -> None:
    registry.set_alias("v2", "canary")
    for share, expected in ((0.0, {"v1"}), (1.0, {"v2"}), (0.5, {"v1", "v2"})):
        service = Service(settings(registry, canary="canary", canary_share=share))
        service.load()

        async def scenario(service: Service = service) -> set[str]:
            return {(await service.score([BAIT], soon())).scorer.version for _ in range(60)}

        assert service.health()["canary"] == "v2"
        assert run(service, scenario) == expected


def test_a_canary_that_is_not_there_leaves_the_main_version_alone(registry: Registry) -> None:
    service = Service(settings(registry, canary="canary", canary_share=1.0))
    service.load()

    async def scenario() -> str:
        return (await service.score([BAIT], soon())).scorer.version

    assert run(service, scenario) == "v1"


def test_a_canary_that_comes_later_is_taken_and_its_absence_is_said_once(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """The retraining's first candidate: replicas ask for an alias that nobody has set yet."""
    service = Service(settings(registry, canary="canary", canary_share=1.0))
    service.load()
    assert service._canary

    async def scenario() -> list[str]:
        versions = []
        for _ in range(3):
            await service._canary.look()  # type: ignore[union-attr]
            versions.append((await service.score([BAIT], soon())).scorer.version)
        registry.set_alias("v2", "canary")
        await service._canary.look()  # type: ignore[union-attr]
        return [*versions, (await service.score([BAIT], soon())).scorer.version]

    assert run(service, scenario) == ["v1", "v1", "v1", "v2"]
    assert (
        len([record for record in caplog.records if "cannot read where canary points" in record.getMessage()])
        == 1
    )


def test_a_shadow_is_compared_and_answers_nobody(registry: Registry) -> None:
    registry.set_alias("v2", "shadow")
    service = Service(settings(registry, shadow="shadow", shadow_share=1.0))
    service.load()

    async def scenario() -> None:
        for _ in range(5):
            assert (await service.score([BAIT, NEWS], soon())).scorer.version == "v1"
        await service._background.finish()

    run(service, scenario)
    assert metric(service, 'clickbait_shadow_texts_total{verdict="same"') == "10.0"
    assert float(metric(service, "clickbait_shadow_difference_sum") or 0) > 0


def test_what_is_computed_is_counted(registry: Registry) -> None:
    service = Service(settings(registry))
    service.load()

    async def scenario() -> None:
        await service.score([BAIT, "you " * 20], soon())

    run(service, scenario)
    assert metric(service, 'clickbait_texts_total{version="v1"') == "2.0"
    assert metric(service, 'clickbait_batch_tokens_total{kind="text"') == str(7.0 + 22.0)
    assert metric(service, 'clickbait_batch_tokens_total{kind="padded"') == str(44.0)
