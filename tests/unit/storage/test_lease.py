"""One process writes a run at a time: a lease by compare-and-swap, taken over from who is gone, refused while
its holder lives.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clickbait.errors import LeaseLost, RunInUse
from clickbait.storage import Storage, lease, open_storage
from clickbait.storage.lease import KEY, Holder, hold
from tests.contracts import together


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "run"))


def document(store: Storage) -> Holder:
    return Holder.model_validate_json(store.read(KEY))


def other_machine(store: Storage, **changes: object) -> Holder:
    """The lease of a process that cannot be looked at from here."""
    holder = Holder(
        writer="w", driver="d", host="node-7", pid=12, machine="another boot", born="1", beat=3, expires=9e9
    )
    holder = holder.model_copy(update=changes)
    store.write(KEY, holder.model_dump_json().encode())
    return holder


def test_a_lease_is_free_again_after_the_block(store: Storage) -> None:
    for _ in range(2):
        with hold(store) as held:
            held.check()
    assert document(store).expires == 0.0


def test_one_of_many_gets_it(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.1)  # who lives is told by the next renewal
    inside = threading.Semaphore(1)
    got: list[int] = []
    over = threading.Barrier(6)

    def work(number: int) -> None:
        try:
            with hold(store):
                assert inside.acquire(blocking=False), "two hold it at once"
                got.append(number)
                over.wait(30)
                inside.release()
        except RunInUse:
            over.wait(30)

    together(work, 6)
    assert len(got) == 1


def test_a_second_one_is_told_who_holds_it_and_until_when(
    store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.1)
    with hold(store), pytest.raises(RunInUse) as told, hold(store):
        pytest.fail("two hold it")
    assert re.search(
        r"process \d+ on \S+ until \d\d:\d\d:\d\d UTC holds this run: .* another --name", str(told.value)
    )
    assert "\n" not in str(told.value)


def test_a_dead_process_of_this_machine_is_not_waited_for(
    store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease.time, "sleep", lambda _: pytest.fail("waited for a dead process"))
    dies = (
        "import os, sys; from clickbait.storage.lease import _take; from clickbait.storage import "
        "open_storage; "
    )
    dies += "_take(open_storage(sys.argv[1]), 'a driver'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", dies, store.uri], check=False)
    assert document(store).expires > 0.0, "it was killed while it held the lease"
    with hold(store) as held:
        held.check()


def test_a_process_id_used_again_is_another_process(store: Storage) -> None:
    with hold(store):
        mine = document(store)
    assert not mine.gone()
    assert mine.model_copy(update={"born": "1"}).gone()


def test_another_machine_is_waited_for_until_the_lease_expires(
    store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    now = lease.time.time()
    monkeypatch.setattr(lease.time, "time", lambda: now + sum(waits))
    monkeypatch.setattr(lease.time, "sleep", waits.append)
    other_machine(store, expires=now + 30.0)
    with hold(store) as held:
        held.check()
    assert 30.0 <= sum(waits) <= 31.0


def test_another_machine_that_renews_keeps_it(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease.time, "sleep", lambda _: other_machine(store, beat=4))
    other_machine(store)
    with pytest.raises(RunInUse, match="process 12 on node-7 until"), hold(store):
        pytest.fail("took it from one that lives")
    assert document(store).host == "node-7"


def test_a_worker_that_is_started_again_takes_it_from_the_one_that_died(store: Storage) -> None:
    """Ray may not know whether a worker on a lost machine is dead: the lease says that it may write no
    more.
    """
    with hold(store, "this command") as lost, hold(store, "this command") as started_again:
        started_again.check()
        with pytest.raises(LeaseLost, match=r"holds this run now: this process stops and writes no more"):
            lost.check()
    assert document(store).expires == 0.0, "the one that lost it released nothing of the other's"


def test_a_holder_whose_lease_was_taken_stops(store: Storage) -> None:
    with hold(store) as held:
        other_machine(store)
        with pytest.raises(LeaseLost, match="node-7"):
            held.check()
        with pytest.raises(LeaseLost, match="node-7"):
            held.check()
    assert document(store).host == "node-7"


def test_a_lease_that_was_removed_is_lost(store: Storage) -> None:
    with hold(store) as held:
        store.delete(KEY)
        with pytest.raises(LeaseLost, match="the lease was removed"):
            held.check()
    assert not store.exists(KEY)


def test_a_holder_renews_while_it_works(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.01)
    with hold(store):
        for _ in range(500):
            if document(store).beat >= 3:
                break
            lease.time.sleep(0.01)
        assert document(store).beat >= 3


def test_half_a_lease_is_renewed_before_a_write(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold(store) as held:
        later = lease.time.time() + lease.LEASE_S / 2 + 1
        monkeypatch.setattr(lease.time, "time", lambda: later)
        held.check()
        assert document(store).expires == later + lease.LEASE_S


def test_a_lease_that_cannot_be_read_is_taken(store: Storage) -> None:
    store.write(KEY, b"{half")
    with hold(store) as held:
        held.check()
