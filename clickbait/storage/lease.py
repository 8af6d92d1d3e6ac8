"""A lease: the right to write below one URI, which one process has at a time. A training run's writer holds
one.

    with lease.hold(store, driver="a name of this command") as held:
        held.check()          # before each write: raises LeaseLost where somebody else has taken the lease
        store.write(...)

The lease is one document, `lease.json`, replaced by compare-and-swap. A thread of the holder's process renews
it every `BEAT_S` seconds, and it expires `LEASE_S` seconds after the last renewal. Another process may take
it over

    at once                      when it was released or has expired, when the holder's process is gone from this machine, or when
                                 the holder was started by the same driver (Ray starts the workers again only
                                 after they died)
    after `LEASE_S` at most      when the holder is on another machine and has stopped renewing: `hold` waits for that
    never                        when the holder renews: `hold` raises RunInUse, at the latest after the next renewal

Expiry compares the clocks of two machines. A clock that is wrong costs the old holder the lease, and it stops
before its next write: the compare-and-swap decides, not the clock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from clickbait.errors import LeaseLost, NotFound, PreconditionFailed, RunInUse, StorageError
from clickbait.storage import Storage

KEY = "lease.json"
LEASE_S = (
    60.0  # long enough for a storage that answers slowly, short enough to wait for after a machine was lost
)
BEAT_S = 10.0  # between two renewals; Google Cloud Storage takes one write of an object per second
POLL_S = 0.5  # between two looks at a lease that somebody else holds
NOBODY = "nobody (the lease was removed)"
log = logging.getLogger(__name__)


class Holder(BaseModel):
    """The document: who may write, and until when."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    writer: str
    """A name of its own for each holding."""
    driver: str
    """The command that the holder works for."""
    host: str
    pid: int
    machine: str
    """The boot and the process namespace that `pid` counts in; empty where the system does not say."""
    born: str
    """The process's start, so that a process id used again is told apart; empty where the system does not
    say.
    """
    beat: int
    """Renewals."""
    expires: float
    """Seconds since the epoch."""

    def gone(self) -> bool:
        """Whether the process has certainly ended: only this machine's processes can be looked at."""
        return bool(self.machine) and self.machine == _machine() and _born(self.pid) != self.born

    def free(self, driver: str) -> bool:
        """Whether `driver` may take the lease over now."""
        return self.expires <= time.time() or self.driver == driver or self.gone()

    def __str__(self) -> str:
        until = datetime.fromtimestamp(self.expires, UTC).strftime("%H:%M:%S UTC")
        return f"process {self.pid} on {self.host} until {until}"


class Held:
    """A lease that this process holds; `hold` gives it."""

    def __init__(self, store: Storage, holder: Holder, generation: str) -> None:
        self._store, self._holder, self._generation = store, holder, generation
        self._lock = threading.Lock()
        self._lost: object = None  # who has it now
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Call it before a write: reads the lease, and renews it where less than half of its time is left.

        Raises:
            LeaseLost: somebody else has the lease: write nothing.
        """
        with self._lock:
            if self._lost is None:
                if self._holder.expires - time.time() < LEASE_S / 2:
                    self._renew()
                else:
                    holder, generation = _read(self._store)
                    if generation != self._generation:
                        self._lost = holder or NOBODY
            if self._lost is not None:
                raise LeaseLost(
                    f"{self._store.uri}: {self._lost} holds this run now: this process stops and writes no "
                    f"more"
                )

    def release(self) -> None:
        """Gives the lease back, where it is still this process's."""
        self._over.set()
        self._thread.join()
        with self._lock, contextlib.suppress(StorageError):  # it expires by itself
            released = self._holder.model_copy(update={"expires": 0.0})
            self._store.write(KEY, released.model_dump_json().encode(), expect=self._generation)

    def _renew(self) -> None:
        """Makes the lease good for another `LEASE_S` seconds, or notes who has it. The caller has the
        lock.
        """
        renewed = self._holder.model_copy(
            update={"beat": self._holder.beat + 1, "expires": time.time() + LEASE_S}
        )
        try:
            self._generation = self._store.write(
                KEY, renewed.model_dump_json().encode(), expect=self._generation
            )
            self._holder = renewed
        except PreconditionFailed:
            self._lost = _read(self._store)[0] or NOBODY

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            with self._lock:
                try:
                    self._renew()
                except StorageError as error:  # the next beat tries again; `check` does before a write
                    log.warning("the lease could not be renewed: %s", error)
                if self._lost is not None:
                    return


@contextlib.contextmanager
def hold(store: Storage, driver: str | None = None) -> Iterator[Held]:
    """The lease below `store`'s URI for as long as the block lasts; it waits where it may yet be free (see
    above).

    Args:
        store: where to write.
        driver: the command that this process works for; None: a command of its own.

    Raises:
        RunInUse: a process that lives holds it.
    """
    held = _take(store, driver or uuid.uuid4().hex)
    try:
        yield held
    finally:
        held.release()


def _take(store: Storage, driver: str) -> Held:
    holder, generation = _read(store)
    first = holder
    if first is not None and not first.free(driver):
        log.warning(
            "%s: %s holds the run; waiting at most %.0f s to see whether it is at work",
            store.uri,
            first,
            LEASE_S,
        )
    while True:
        if holder is None or holder.free(driver):
            mine = _document(driver)
            try:
                return Held(store, mine, store.write(KEY, mine.model_dump_json().encode(), expect=generation))
            except PreconditionFailed:  # somebody else took it in this moment, or it was renewed
                first = None
        elif first is None or (holder.writer, holder.beat) != (first.writer, first.beat):
            raise RunInUse(
                f"{store.uri}: {holder} holds this run: wait for it or stop it, or choose another --name"
            )
        else:
            time.sleep(POLL_S)
        holder, generation = _read(store)


def _read(store: Storage) -> tuple[Holder | None, str]:
    """The document and its generation; None where there is none, or none that can be read."""
    try:
        data, generation = store.read_versioned(KEY)
    except NotFound:
        return None, ""
    try:
        return Holder.model_validate_json(data), generation
    except ValueError:
        return None, generation


def _document(driver: str) -> Holder:
    return Holder(
        writer=uuid.uuid4().hex,
        driver=driver,
        host=socket.gethostname(),
        pid=os.getpid(),
        machine=_machine(),
        born=_born(os.getpid()),
        beat=0,
        expires=time.time() + LEASE_S,
    )


def _machine() -> str:
    """This boot of this machine, and this process namespace: a container's process ids are its own."""
    try:
        return (
            f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} "
            f"{os.readlink('/proc/self/ns/pid')}"
        )
    except OSError:
        return ""


def _born(pid: int) -> str:
    """When the process started, in clock ticks since the boot; empty where there is no such process, or it
    has ended.
    """
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return ""
    state, started = fields[0], fields[19]
    return "" if state in "ZX" else started  # a zombie writes nothing any more
