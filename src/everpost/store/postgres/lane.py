"""A lane: a thread with one connection, which commits everything pending at once.

What waits while a COMMIT is under way shares the next one, so a slow disk or a far standby costs
one wait for all (as with the embedded engine's writer). A COMMIT is never cancelled: whoever waits
for it may go, the lane stays. When the answer to it did not come, or came with a warning, the lane
runs the same works again on a connection that answers; each work knows what it has done already.
"""

import asyncio
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import psycopg
from psycopg import pq

from everpost import telemetry
from everpost.store.interface import StoreUnavailable
from everpost.store.pace import Pace
from everpost.store.postgres.connection import (
    SQL,
    Db,
    StoreInDoubt,
    as_store_error,
    is_gone,
    is_passing,
    is_storage_fault,
)
from everpost.store.postgres.standing import Standing
from everpost.store.postgres.work import Single, Transaction, Work
from everpost.store.timings import ALARM, BATCH, COMMIT, FAULTS, SLOW, WAIT, WRITE

__all__ = ["Lane"]

T = TypeVar("T")
_Outcome = tuple[Work[Any], Any, BaseException | None]

_MOST_WORKS = 1024
"""Verbs of one transaction at most, so that none waits for an endless one."""

_MOST_PENDING = 16_384
"""Verbs that may wait; what is above is refused at once (I16)."""

_LOOK_S = 0.5
_TRY_S = 1.0
"""After a transaction that failed or was slow, how long until one that nobody asked for: the alarm
ends when the database is well again, also where no mail comes because of it."""

_MOST_TRIES: Final = 6
"""Of one transaction. Deadlocks and cancelled statements end within a few."""
_PAUSE_S: Final = 0.02
"""Before the second try, on average; twice as long before each further one."""
_REST_S: Final = 1.0
"""After a connection that could not be had, the next ones are not even tried for as long as that
took, but no longer than this: who waits for a host that is gone must not hold up who hands in."""

_BEGIN = SQL["begin"]
_PROMISE = SQL["promise"]


class Lane:
    """`connect` opens a connection; `queued` is called in the loop's thread after a commit that
    made recipients due, with their number. `patience_s`: how long a verb may wait before it starts.
    `shard`: this lane's rows among the tallies."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Db],
        *,
        standing: Standing,
        shard: int,
        queued: Callable[[int], None] | None = None,
        patience_s: float = 10.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._connect = connect
        self._standing = standing
        self._shard = shard
        self._on_queued = queued
        self._patience_s = patience_s
        self._jitter = jitter
        self._works: queue.SimpleQueue[Work[Any] | None] = queue.SimpleQueue()
        self._pending: dict[Work[Any], None] = {}
        self._starting = threading.Lock()
        self._db: Db | None = None
        self._resting_until = 0.0
        self._promise = ("", "")
        self._left: list[Work[Any]] = []
        self._pace = Pace()
        self._failing = False
        self._ended = False
        self._closing = False
        self._looking: asyncio.TimerHandle | None = None
        self._trying: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    # -- in the event loop's thread ----------------------------------------------------------------

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=f"store-{self._name}", daemon=True)
        self._thread.start()

    def do(self, work: Work[T]) -> "asyncio.Future[T]":
        """Hand in one verb. The future raises what the verb raised, or StoreUnavailable."""
        if self._loop is None or self._closing:
            raise StoreUnavailable("the store is closed")
        if len(self._pending) >= _MOST_PENDING:
            raise StoreUnavailable("too many writes are waiting")
        work.future = self._loop.create_future()
        work.since = time.monotonic()
        self._pending[work] = None
        if self._looking is None:
            self._looking = self._loop.call_later(_LOOK_S, self._look)
        self._works.put(work)
        return work.future

    def _look(self) -> None:
        """Refuse what has waited too long to start: the database is slow to answer."""
        assert self._loop is not None
        self._looking = None
        limit = time.monotonic() - self._patience_s
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
        now = time.monotonic()
        for work, answer, error in outcomes:
            self._pending.pop(work, None)
            if work.began:
                WAIT.observe(work.began - work.since, work.verb)
                WRITE.observe(now - work.began, work.verb)
            queued += work.queued
            future = work.future
            if future is None or future.done():
                if error is None and work.takes and not work.withdrawn:
                    self._do_unheard(Single(work.take_back))
                continue
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)
        if queued and self._on_queued is not None:
            self._on_queued(queued)
        if self._trying is None and not self._closing and self._unwell():
            assert self._loop is not None
            self._trying = self._loop.call_later(_TRY_S, self._try)

    def _unwell(self) -> bool:
        return self._failing or bool(self._left) or self._pace.slow

    def _try(self) -> None:
        """See whether it can be written again; the answer brings the next try, where it cannot."""
        self._trying = None
        if not self._closing and self._unwell():
            self._do_unheard(Single(Transaction.touch))

    def _do_unheard(self, work: Work[Any]) -> None:
        """Nobody waits for it; nor is it pressing, where too many others wait."""
        try:
            done = self.do(work)
        except StoreUnavailable:
            return
        done.add_done_callback(lambda done: done.cancelled() or done.exception())

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

    # -- in the lane's thread ----------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended:
            works = self._take()
            outcomes = self._without_a_transaction(works)
            if works:
                outcomes += self._write(self._start(works))
            self._post(outcomes)
            del works, outcomes
        self._drop()

    def _take(self) -> list[Work[Any]]:
        taken: list[Work[Any]] = []
        try:
            while len(taken) < _MOST_WORKS and not self._ended:
                work = self._works.get(block=not taken)
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
        if self._db is None or self._db.lost or self._db.old:
            return True
        try:
            return work.wanted(self._db)
        except Exception:  # the transaction meets the same fault, and handles it
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
        began = time.monotonic()
        for work in live:
            work.began = began
        try:
            outcomes = self._until_it_is_known(live)
        except Exception as error:
            outcomes = self._failed(live, error)
        else:
            self._failing = False
            telemetry.alarm(ALARM).clear()
        self._took(time.monotonic() - began)
        BATCH.observe(len(live))
        return gone + outcomes

    def _took(self, seconds: float) -> None:
        COMMIT.observe(seconds)
        was = self._pace.slow
        self._pace.seen(seconds)
        if self._pace.slow and not was:
            telemetry.alarm(SLOW).raise_(seconds=round(seconds, 3))
        elif was and not self._pace.slow:
            telemetry.alarm(SLOW).clear()

    def _until_it_is_known(self, works: Sequence[Work[Any]]) -> list[_Outcome]:
        """Commit, again and again where that may help, but not for longer than anybody's patience.
        Raises StoreInDoubt when it may have been written."""
        doubt: StoreInDoubt | None = None
        until = time.monotonic() + self._patience_s
        for attempt in range(_MOST_TRIES):
            if attempt and time.monotonic() > until:
                break
            if attempt:
                time.sleep(self._jitter() * _PAUSE_S * 2**attempt)
            try:
                return self._commit(self._connection(), works, doubted=doubt is not None)
            except StoreInDoubt as error:
                FAULTS.add(1, type(error.__cause__ or error).__name__)
                telemetry.event("store.in_doubt", lane=self._name, error=str(error))
                doubt = error
                last: Exception = error
            except Exception as error:
                last = error
                if not self._worth_another(error):
                    break
        if doubt is not None and last is not doubt:
            raise StoreInDoubt(f"{doubt}; then {last}") from last
        raise last

    def _worth_another(self, error: Exception) -> bool:
        """Whether the same works should be run again at once. The connection is given up where it
        went with the error."""
        if isinstance(error, psycopg.Error):
            FAULTS.add(1, type(error).__name__)
        if self._db is None:  # it could not be opened
            return False
        gone = is_gone(error, self._db)
        if gone or is_storage_fault(error):
            _rollback(self._db)
        if gone or (is_storage_fault(error) and not is_passing(error)):
            self._drop()
        return gone or is_passing(error)

    # -- one transaction ---------------------------------------------------------------------------

    def _commit(self, db: Db, works: Sequence[Work[Any]], *, doubted: bool) -> list[_Outcome]:
        for work in works:
            work.queued = 0
        tx = self._begin(db, doubted)
        try:
            outcomes, left = self._together(tx, works)
        except Exception as error:
            if is_gone(error, db) or is_storage_fault(error):
                raise
            _rollback(db)
            outcomes, left = self._each_alone(self._begin(db, doubted), works)
        self._finish(db)
        self._left = left
        return outcomes

    def _begin(self, db: Db, doubted: bool) -> Transaction:
        """Raises StoreUnavailable where nothing may be written."""
        since = self._standing.asking()
        cursor = db.execute(_BEGIN)
        cursor.nextset()
        row = cursor.fetchone()
        assert row is not None
        heard = self._standing.heard(row, since=since)
        self._promise = heard.promise
        if not heard.judged.writable:  # another connection may lead to another server
            self._drop()
        return Transaction(
            db,
            heard.now,
            steady=heard.steady,
            shard=self._shard,
            assurance=heard.demand(),
            doubted=doubted,
        )

    def _finish(self, db: Db) -> None:
        """COMMIT. Raises StoreInDoubt when the answer does not say that it holds everywhere it
        should, psycopg.Error when it certainly does not."""
        db.warnings.clear()
        try:
            status = db.execute(b"COMMIT").statusmessage
        except psycopg.Error as error:
            if is_gone(error, db):
                self._drop()
                raise StoreInDoubt(f"no answer to COMMIT: {error}") from error
            raise
        if db.warnings:  # "canceling wait for synchronous replication": no standby has it
            raise StoreInDoubt(f"COMMIT was answered with a warning: {'; '.join(db.warnings)}")
        if status != "COMMIT":
            raise StoreUnavailable(f"COMMIT was answered with {status}")
        self._was_kept(db)

    def _was_kept(self, db: Db) -> None:
        """Raises StoreInDoubt when the standbys that COMMIT waited for were struck off meanwhile:
        then it was let go, without a word, and they may not have it."""
        _, names = self._promise
        if not names:
            return
        try:
            promise = db.execute(_PROMISE).fetchone()
        except psycopg.Error as error:
            raise StoreInDoubt(f"no answer after COMMIT: {error}") from error
        if promise != self._promise:
            raise StoreInDoubt(f"what COMMIT waits for changed from {names!r} meanwhile")

    def _together(
        self, tx: Transaction, works: Sequence[Work[Any]]
    ) -> tuple[list[_Outcome], list[Work[Any]]]:
        left = self._take_back(tx)
        groups: dict[type[Work[Any]], list[Work[Any]]] = {}
        for work in works:
            groups.setdefault(type(work), []).append(work)
        outcomes: list[_Outcome] = []
        for kind in sorted(groups, key=_turn):
            group = groups[kind]
            for some in [group] if kind.merged else [[work] for work in group]:
                answers = kind.run(tx, some)
                some[0].queued, tx.queued = tx.queued, 0
                outcomes += [(w, answer, None) for w, answer in zip(some, answers, strict=True)]
        tx.finish()
        return outcomes, left

    def _take_back(self, tx: Transaction) -> list[Work[Any]]:
        """What callers may have got without knowing; which of that is not known yet."""
        return [work for work in self._left if not work.take_back(tx)]

    def _each_alone(
        self, tx: Transaction, works: Sequence[Work[Any]]
    ) -> tuple[list[_Outcome], list[Work[Any]]]:
        """Every verb in a savepoint of its own, still in one transaction: one flush, and only the
        guilty ones fail."""
        left = self._take_back(tx)
        tx.finish()
        queued, tx.queued = tx.queued, 0
        outcomes: list[_Outcome] = []
        for work in sorted(works, key=lambda work: _turn(type(work))):
            work.queued = 0
            tx.db.execute(b"SAVEPOINT alone")
            try:
                answer = type(work).run(tx, [work])[0]
                tx.finish()
            except Exception as error:
                if is_gone(error, tx.db) or is_storage_fault(error):
                    raise
                tx.db.execute(b"ROLLBACK TO alone")
                tx = tx.another()
                outcomes.append((work, None, as_store_error(error)))
            else:
                work.queued, tx.queued = tx.queued, 0
                outcomes.append((work, answer, None))
            tx.db.execute(b"RELEASE alone")
        works[0].queued += queued
        return outcomes, left

    # -- faults ------------------------------------------------------------------------------------

    def _failed(self, works: Sequence[Work[Any]], error: Exception) -> list[_Outcome]:
        """Tell every caller. What may have been taken all the same is remembered; what was brought
        is not: while no standby answers, there is more of it with every try."""
        self._failing = True
        telemetry.alarm(ALARM).raise_(error=str(error))
        if self._db is not None:
            _rollback(self._db)
        if isinstance(error, StoreInDoubt):
            self._left += [work for work in works if work.takes]
        told = as_store_error(error)
        if not isinstance(told, StoreUnavailable) and told is error:
            told = StoreUnavailable(f"the lane failed: {error!r}")
        for work in works:
            work.queued = 0
        return [(work, None, told) for work in works]

    def _connection(self) -> Db:
        """Raises StoreError, psycopg.Error; at once while the last failure is fresh."""
        if self._db is not None and not (self._db.lost or self._db.old):
            return self._db
        self._drop()
        began = time.monotonic()
        if began < self._resting_until:
            raise StoreUnavailable("no connection to the database")
        try:
            self._db = self._connect()
        except Exception as error:
            now = time.monotonic()
            self._resting_until = now + min(now - began, _REST_S)
            self._standing.silent(error)
            raise
        return self._db

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            try:
                db.close()
            except psycopg.Error:
                pass

    def _post(self, outcomes: Sequence[_Outcome]) -> None:
        if not outcomes:
            return
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._tell, outcomes)
        except RuntimeError:  # the loop has ended: nobody waits any more
            pass


def _turn(kind: type[Work[Any]]) -> tuple[int, str]:
    """When the works of a kind are run: in every lane in the same order, so that no two lanes wait
    for each other's locks."""
    return kind.turn, kind.__name__


def _rollback(db: Db) -> None:
    try:
        if not db.lost and db.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            db.execute(b"ROLLBACK")
    except psycopg.Error:  # the connection has gone, and the transaction with it
        pass
