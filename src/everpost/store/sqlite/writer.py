"""The one writer of a process: a thread that commits everything pending at once.

Figures (two cores, CPython 3.11, ext4 on a virtual disk; `bench.store_writers` has more): a commit
costs 0.2 to 1.4 ms whatever it holds, a message of an accept 9 µs. So 64 callers that commit one by
one wait for 64 flushes, in one transaction for one: 2,000 accepts a second become 20,000.

The same transaction run in the event loop's own thread saves a fifth of the CPU, and with a loop
that works 150 µs a message reaches 4,800 accepts a second where the thread reaches 3,700 (the two
take the interpreter's lock in turns). It was refused: a slow disk, or a neighbour that is paused
with the lock in hand, would stop the loop. Waiting a few milliseconds for a fuller batch won
nothing.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import apsw

from everpost import telemetry
from everpost.clock import Clock
from everpost.store.interface import StoreUnavailable
from everpost.store.pace import Pace
from everpost.store.sqlite.connection import SQL, STORAGE_FAULTS, as_store_error
from everpost.store.sqlite.lock import WriteLock
from everpost.store.sqlite.work import Single, Transaction, Work
from everpost.store.timings import ALARM, BATCH, COMMIT, FAULTS, SLOW, WAIT, WRITE

__all__ = ["Writer"]

T = TypeVar("T")
_Outcome = tuple[Work[Any], Any, BaseException | None]

_LOCK_WAIT = telemetry.histogram(
    "everpost_store_lock_wait_seconds", "Waiting for the other processes' writers"
)

_MOST_WORKS = 1024
"""Verbs of one transaction at most, so that none waits for an endless one."""

_MOST_PENDING = 16_384
"""Verbs that may wait; what is above is refused at once (I16)."""

_LOOK_S = 0.5

_TRY_S = 1.0
"""After a transaction that failed or was slow, how long until one that nobody asked for: the alarm
ends when the disk is well again, also where no mail comes because of it."""

_DISTRUSTED = (apsw.IOError, apsw.ReadOnlyError, apsw.CantOpenError)
"""After these the handle is opened anew: it may be one that SQLite opened for reading only, when
the file system was so."""


class Writer:
    """`connect` opens the connection; `queued` is called in the loop thread after a commit that
    made recipients due, with their number. `patience_s`: how long a verb may wait before it starts;
    `busy_s`: how long a foreign program may hold SQLite's own lock. `unavailable` and `slow` name
    the alarms, `told` is what callers are told of an error."""

    def __init__(
        self,
        connect: Callable[[], apsw.Connection],
        lock: WriteLock,
        *,
        clock: Clock,
        queued: Callable[[int], None] | None = None,
        patience_s: float = 10.0,
        busy_s: float = 5.0,
        unavailable: str = ALARM,
        slow: str = SLOW,
        told: Callable[[BaseException], BaseException] = as_store_error,
    ) -> None:
        self._unavailable = telemetry.alarm(unavailable)
        self._slow = telemetry.alarm(slow)
        self._told = told
        self._connect = connect
        self._lock = lock
        self._clock = clock
        self._on_queued = queued
        self._patience_s = patience_s
        self._busy_s = busy_s
        self._works: queue.SimpleQueue[Work[Any] | None] = queue.SimpleQueue()
        self._pending: dict[Work[Any], None] = {}
        self._starting = threading.Lock()
        self._db: apsw.Connection | None = None
        self._suspect = False
        self._pace = Pace()
        self._ended = False
        self._closing = False
        self._looking: asyncio.TimerHandle | None = None
        self._trying: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    # -- in the event loop's thread ----------------------------------------------------------------

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def do(self, work: Work[T]) -> "asyncio.Future[T]":
        """Hand in one verb. The future raises what the verb raised, or StoreUnavailable."""
        if self._loop is None or self._closing:
            raise StoreUnavailable("the store is closed")
        if len(self._pending) >= _MOST_PENDING:
            raise StoreUnavailable("too many writes are waiting")
        work.future = self._loop.create_future()
        work.since = self._clock.monotonic()
        self._pending[work] = None
        if self._looking is None:
            self._looking = self._loop.call_later(_LOOK_S, self._look)
        self._works.put(work)
        return work.future

    def _look(self) -> None:
        """Refuse what has waited too long to start: another process sits on the lock."""
        assert self._loop is not None
        self._looking = None
        limit = self._clock.monotonic() - self._patience_s
        with self._starting:
            late = [
                work
                for work in self._pending
                if work.since < limit and not (work.started or work.withdrawn)
            ]
            for work in late:
                work.withdrawn = True
        for work in late:
            if work.future is not None and not work.future.done():
                work.future.set_exception(StoreUnavailable("the store is busy"))
        if self._pending:
            self._looking = self._loop.call_later(_LOOK_S, self._look)

    def _tell(self, outcomes: Sequence[_Outcome]) -> None:
        queued = 0
        now = self._clock.monotonic()
        for work, answer, error in outcomes:
            self._pending.pop(work, None)
            if work.began:
                WAIT.observe(work.began - work.since, work.verb)
                WRITE.observe(now - work.began, work.verb)
            queued += work.queued
            future = work.future
            if future is None or future.done():
                continue
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)
        if queued and self._on_queued is not None:
            self._on_queued(queued)
        if self._trying is None and not self._closing and self._stands():
            assert self._loop is not None
            self._trying = self._loop.call_later(_TRY_S, self._try)

    def _try(self) -> None:
        """See whether it can be written again; the answer brings the next try, where it cannot."""
        self._trying = None
        if not self._closing and self._stands():
            try:
                tried = self.do(Single(_touch))
            except StoreUnavailable:  # what waits will tell as well
                return
            tried.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _stands(self) -> bool:
        """Whether there is an alarm that the next commit may end."""
        return self._unavailable.raised or self._slow.raised

    async def close(self) -> None:
        """Write what is pending, then end the thread and its connection."""
        if self._closing:
            return
        self._closing = True
        if self._thread is not None:
            self._works.put(None)
            await asyncio.to_thread(self._thread.join, self._patience_s)
        for timer in (self._looking, self._trying):
            if timer is not None:
                timer.cancel()
        self._lock.close()

    # -- in the writer's thread --------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended:
            works = self._take(wait=True)
            outcomes = self._without_a_transaction(works)
            if works:
                outcomes += self._in_turn(works)
            self._post(outcomes)
        if self._db is not None:
            self._db.close()

    def _in_turn(self, works: list[Work[Any]]) -> list[_Outcome]:
        waited = self._clock.monotonic()
        try:
            with self._lock:
                _LOCK_WAIT.observe(self._clock.monotonic() - waited)
                works += self._take(wait=False, room=_MOST_WORKS - len(works))
                return self._write(self._start(works))
        except OSError as error:  # of the lock file; nothing was begun
            return self._failed(works, error)

    def _take(self, *, wait: bool, room: int = _MOST_WORKS) -> list[Work[Any]]:
        taken: list[Work[Any]] = []
        try:
            while len(taken) < room and not self._ended:
                work = self._works.get(block=wait and not taken)
                if work is None:
                    self._ended = True
                else:
                    taken.append(work)
        except queue.Empty:
            pass
        return taken

    def _without_a_transaction(self, works: list[Work[Any]]) -> list[_Outcome]:
        """Take out of `works`, and answer, what turns out to have nothing to do."""
        idle = [work for work in works if not self._wanted(work)]
        if idle:
            works[:] = [work for work in works if work not in set(idle)]
        return [(work, work.idle(), None) for work in idle]

    def _wanted(self, work: Work[Any]) -> bool:
        if self._db is None:
            return True
        try:
            return work.wanted(self._db)
        except apsw.Error:  # the transaction meets the same fault, and handles it
            return True

    def _start(self, works: Iterable[Work[Any]]) -> list[Work[Any]]:
        """Those whose callers still wait; from here on they cannot be withdrawn."""
        with self._starting:
            started = []
            for work in works:
                if work.withdrawn or (work.future is not None and work.future.cancelled()):
                    work.withdrawn = True
                work.started = not work.withdrawn
                started.append(work)
            return started

    def _write(self, works: Sequence[Work[Any]]) -> list[_Outcome]:
        gone: list[_Outcome] = [(work, None, None) for work in works if work.withdrawn]
        live = [work for work in works if not work.withdrawn]
        if not live:
            return gone
        began = self._clock.monotonic()
        for work in live:
            work.began = began
        try:
            outcomes = self._commit(self._connection(), live)
        except Exception as error:
            outcomes = self._failed(live, error)
        else:
            self._unavailable.clear()
        self._took(self._clock.monotonic() - began)
        BATCH.observe(len(live))
        return gone + outcomes

    def _took(self, seconds: float) -> None:
        COMMIT.observe(seconds)
        self._pace.seen(seconds)
        if self._pace.slow:
            self._slow.raise_(seconds=round(seconds, 3))
        elif self._slow.raised:
            self._slow.clear()

    def _commit(self, db: apsw.Connection, works: Sequence[Work[Any]]) -> list[_Outcome]:
        self._begin(db)
        try:
            outcomes = self._together(db, works)
        except STORAGE_FAULTS:
            raise
        except Exception:
            _rollback(db)
            self._begin(db)
            outcomes = self._each_alone(db, works)
        db.execute("COMMIT")
        return outcomes

    def _begin(self, db: apsw.Connection) -> None:
        """BEGIN IMMEDIATE. Our own processes queue on the file lock; only a foreign program (a
        backup, the sqlite3 shell) can still be in the way."""
        until = self._clock.monotonic() + self._busy_s
        while True:
            try:
                db.execute("BEGIN IMMEDIATE")
                return
            except apsw.BusyError:
                if self._clock.monotonic() >= until:
                    raise

    def _together(self, db: apsw.Connection, works: Sequence[Work[Any]]) -> list[_Outcome]:
        tx = Transaction(db, self._clock.now(), steady=self._clock.steady())
        groups: dict[type[Work[Any]], list[Work[Any]]] = {}
        for work in works:
            groups.setdefault(type(work), []).append(work)
        outcomes: list[_Outcome] = []
        for kind, group in groups.items():
            for some in [group] if kind.merged else [[work] for work in group]:
                answers = kind.run(tx, some)
                some[0].queued, tx.queued = tx.queued, 0
                outcomes += [(w, answer, None) for w, answer in zip(some, answers, strict=True)]
        tx.finish()
        return outcomes

    def _each_alone(self, db: apsw.Connection, works: Sequence[Work[Any]]) -> list[_Outcome]:
        """Every verb in a savepoint of its own, still in one transaction: one flush, and only the
        guilty ones fail."""
        tx = Transaction(db, self._clock.now(), steady=self._clock.steady())
        outcomes: list[_Outcome] = []
        for work in works:
            work.queued = 0
            db.execute("SAVEPOINT alone")
            try:
                answer = type(work).run(tx, [work])[0]
                tx.finish()
            except STORAGE_FAULTS:
                raise
            except Exception as error:
                db.execute("ROLLBACK TO alone")
                tx = Transaction(db, tx.now, steady=tx.steady)
                outcomes.append((work, None, self._told(error)))
            else:
                work.queued, tx.queued = tx.queued, 0
                outcomes.append((work, answer, None))
            db.execute("RELEASE alone")
        return outcomes

    # -- faults ------------------------------------------------------------------------------------

    def _failed(self, works: Sequence[Work[Any]], error: Exception) -> list[_Outcome]:
        """Nothing of this transaction stands; tell every caller so."""
        FAULTS.add(1, type(error).__name__)
        self._unavailable.raise_(error=str(error))
        if self._db is not None:
            _rollback(self._db)
        if isinstance(error, _DISTRUSTED):
            self._distrust()
        outcomes: list[_Outcome] = []
        for work in works:
            work.queued = 0
            told = self._told(error)
            if told is error:
                told = StoreUnavailable(f"the writer failed: {error!r}")
            outcomes.append((work, None, told))
        return outcomes

    def _distrust(self) -> None:
        """After an I/O error this handle's flushes prove nothing more (F3): the kernel reports a
        lost page once and then forgets it. Open anew, and write over the failed transaction's tail
        in the log: should its last frame have reached the disk, a recovery would bring back what
        callers were told was not written."""
        self._suspect = True
        self._drop()
        try:
            self._connection()
        except Exception as error:
            telemetry.event("store.reopen_failed", error=str(error))

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            try:
                db.close(force=True)
            except apsw.Error:
                pass

    def _connection(self) -> apsw.Connection:
        db = self._db
        if db is None:
            db = self._connect()
            self._db = db
        if self._suspect:
            try:
                self._write_over_the_tail(db)
            except BaseException:
                self._drop()
                raise
            self._suspect = False
        return db

    def _write_over_the_tail(self, db: apsw.Connection) -> None:
        self._begin(db)
        try:
            db.execute(SQL["overwrite_tail"])
            db.execute("COMMIT")
        except BaseException:
            _rollback(db)
            raise

    def _post(self, outcomes: Sequence[_Outcome]) -> None:
        if not outcomes:
            return
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._tell, outcomes)
        except RuntimeError:  # the loop has ended: nobody waits any more
            pass


def _rollback(db: apsw.Connection) -> None:
    try:
        if db.in_transaction:
            db.execute("ROLLBACK")
    except apsw.Error:  # SQLite has rolled back by itself, or cannot; nothing was committed
        pass


def _touch(tx: Transaction) -> None:
    tx.db.execute(SQL["overwrite_tail"])
