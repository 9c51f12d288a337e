"""claim -> carry -> settle, for one process.

One task claims, one per message in hand carries and settles. What is in hand is bounded by a
window; `waiting` has what starts next, `assigning` the pool that it goes through.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence

import msgspec

from everpost import telemetry
from everpost.clock import Clock
from everpost.delivery import Carrier
from everpost.dispatch.assigning import Assignment
from everpost.dispatch.attempt import Attempts, LeaseLost, LifetimeOver
from everpost.dispatch.dots import DotLog
from everpost.dispatch.hands import Hands
from everpost.dispatch.rendering import ContentDamaged, Renderer
from everpost.dispatch.retry import RetryPolicy
from everpost.dispatch.settle import damaged, decide, expired, poisoned, returned
from everpost.dispatch.settling import Settling
from everpost.dispatch.waiting import Room, Waiting
from everpost.dispatch.work import Work, by_destination
from everpost.ids import Id
from everpost.model.outcome import AttemptRecord, Deferred, Delivered, Outcome
from everpost.model.pool import Route
from everpost.net.wake import WakeListener
from everpost.store.directory import Directory
from everpost.store.interface import (
    Claim,
    Claimed,
    Claiming,
    Settlement,
    StoreError,
)

__all__ = ["DispatchLimits", "Dispatcher"]

_OUTCOMES = telemetry.counter(
    "everpost_attempts_total", "Attempts by outcome and stream", ("outcome", "stream")
)
_CLAIM_WAIT = telemetry.histogram(
    "everpost_claim_wait_seconds", "From a recipient's due time to its claim"
)
_SLOT_WAIT = telemetry.histogram(
    "everpost_slot_wait_seconds", "From a claim to the start of its delivery"
)
_TO_END = telemetry.histogram(
    "everpost_accept_to_delivered_seconds", "From a first attempt's due time to its delivery"
)
_IN_HAND = telemetry.gauge("everpost_in_hand", "Recipients claimed by a process", ("process",))


class DispatchLimits(msgspec.Struct, frozen=True):
    """`window`: recipients in hand at most; `window_bytes`: memory that large messages may take
    while they are carried; `batch`: claimed at once; `lease_ms`: how long a claim holds without
    renewal (longer than the final dot's ten minutes); `poll_s`: how often to look without a
    wake-up; `poison_after`: crashes after which a recipient is held."""

    window: int = 800
    window_bytes: int = 64 << 20
    batch: int = 200
    lease_ms: int = 900_000
    poll_s: float = 1.0
    poison_after: int = 3


class Dispatcher:
    """One process's hands. `catch_up` sees to it that directory and delivery know the settings of
    at least the given revision; `routes` are those of the directory, by position."""

    def __init__(
        self,
        *,
        owner: Id,
        store: Claiming,
        directory: Directory,
        carrier: Carrier,
        renderer: Renderer,
        dots: DotLog,
        wake: WakeListener,
        clock: Clock,
        ids: Callable[[], Id],
        rng: random.Random,
        limits: DispatchLimits,
        catch_up: Callable[[int], Awaitable[None]],
        routes: Callable[[], Sequence[Route]],
        name: str = "dispatch",
    ) -> None:
        self._owner = owner
        self._store = store
        self._directory = directory
        self._carrier = carrier
        self._wake = wake
        self._clock = clock
        self._rng = rng
        self._limits = limits
        self._catch_up = catch_up
        self._name = name
        self._routes = routes
        self._assignment = Assignment(directory.now, routes())
        self._hands = Hands(window=limits.window, batch=limits.batch)
        self._waiting = Waiting(window_bytes=limits.window_bytes)
        self._attempts = Attempts(
            carrier=carrier,
            renderer=renderer,
            dots=dots,
            hands=self._hands,
            waiting=self._waiting,
            clock=clock,
            ids=ids,
        )
        self._settling = Settling(
            owner=owner,
            store=store,
            dots=dots,
            spawn=self._spawn,
            let_go=self._let_go,
            retry_s=limits.poll_s,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._starting = False
        self._ended = asyncio.Event()
        self._freed = asyncio.Event()

    # -- claiming ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim and deliver until `stop` is called."""
        renewal = asyncio.create_task(self._renew())
        try:
            while not self._stopping:
                await self._round()
            self._ended.set()  # no claim is on its way any more
            await renewal  # what is in hand is renewed for as long as we live
        finally:
            self._ended.set()
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)

    async def _round(self) -> None:
        if self._outdated:
            await self._follow(self._directory.now.revision)
        self._start_what_may()  # a relay may have come, or come back, since
        limit = self._hands.room()
        if not limit:
            self._freed.clear()
            await self._wait_freed()
            return
        try:
            claimed = await self._store.claim(
                self._owner,
                limit=limit,
                lease_ms=self._limits.lease_ms,
                busy=self._hands.busy(),
                broadcast=self._hands.broadcast_room(),
            )
        except StoreError as error:
            telemetry.event("dispatch.claim_failed", error=str(error))
            await self._wake.wait(self._limits.poll_s)
            return
        if claimed:
            for each in claimed:
                broadcast = self._assignment.is_broadcast(each.project, each.stream)
                for claim in each.claims:
                    self._hands.hold(claim, broadcast=broadcast)
            # What was accepted under new settings goes out under them, relays included.
            await self._follow(claimed[0].revision)
            self._take(claimed)
        if sum(len(c.claims) for c in claimed) < limit:
            await self._wake.wait(await self._patience())

    async def _follow(self, revision: int) -> None:
        """Until the settings of `revision` are known here; nothing may leave before. What waits is
        assigned again under new ones."""
        while True:
            try:
                await self._catch_up(revision)
                self._assign_again()
                return
            except StoreError as error:
                telemetry.event("dispatch.settings_unread", error=str(error))
                await asyncio.sleep(self._limits.poll_s)

    @property
    def _outdated(self) -> bool:
        return self._assignment.snapshot is not self._directory.now

    def _assign_again(self) -> None:
        if self._outdated:
            self._assignment = Assignment(self._directory.now, self._routes())
            for work in self._waiting.take_back():
                self._queue(work.claimed, since=work.since)

    async def _wait_freed(self) -> None:
        try:
            async with asyncio.timeout(self._limits.poll_s):
                await self._freed.wait()
        except TimeoutError:
            pass

    async def _patience(self) -> float:
        """Seconds until there may be something to do without a wake-up."""
        try:
            due = await self._store.next_due(
                self._hands.busy(), broadcast=self._hands.broadcast_room() > 0
            )
        except StoreError:
            return self._limits.poll_s
        if due is None:
            return self._limits.poll_s
        return min(max((due - self._clock.now()) / 1000, 0.005), self._limits.poll_s)

    def _take(self, claimed: Sequence[Claimed]) -> None:
        now, since = self._clock.now(), self._clock.monotonic()
        settlements: list[Settlement] = []
        for each in claimed:
            good: list[Claim] = []
            for claim in each.claims:
                _CLAIM_WAIT.observe(max(now - claim.not_before, 0) / 1000)
                if claim.expires_at <= now:
                    settlements.append(expired(claim))
                elif claim.crashes >= self._limits.poison_after:
                    telemetry.event("dispatch.poison", message=claim.message, n=claim.n)
                    settlements.append(poisoned(claim))
                else:
                    good.append(claim)
            if len(good) == len(each.claims):
                self._queue(each, since=since)
            elif good:
                self._queue(msgspec.structs.replace(each, claims=tuple(good)), since=since)
        if settlements:
            self._settling.put(settlements)
        self._start_what_may()

    def _queue(self, claimed: Claimed, *, since: float) -> None:
        broadcast = self._assignment.is_broadcast(claimed.project, claimed.stream)
        for pool, whole in self._assignment.by_pool(claimed):
            # A smart host takes all destinations in one transaction, MX hosts only their own.
            for part in by_destination(whole) if self._carrier.direct(pool) else (whole,):
                work = Work(part, pool=pool, broadcast=broadcast, since=since)
                self._waiting.queue(work, weights=self._assignment.weights(whole))

    # -- carrying ----------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Delivery may have room again."""
        self._start_what_may()

    def _start_soon(self) -> None:
        """In the loop's next turn: once for all that ends in this one."""
        if not self._starting:
            self._starting = True
            asyncio.get_running_loop().call_soon(self._start_what_may)

    def _start_what_may(self) -> None:
        self._starting = False
        if self._stopping:
            return
        for work in self._waiting.startable(self._room):
            self._spawn(self._deliver(work))

    def _room(self, pool: str) -> Room:
        # Without a relay delivery says so at once, for every message: no slot is needed for that.
        if not self._carrier.ready(pool):
            return self._limits.window, None
        return self._carrier.capacity(pool), self._carrier.most(pool)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            telemetry.event("dispatch.fault", error=repr(error))
            telemetry.alarm("dispatch_fault").raise_(error=repr(error))

    async def _deliver(self, work: Work) -> None:
        claimed = work.claimed
        _SLOT_WAIT.observe(self._clock.monotonic() - work.since)
        try:
            try:
                outcomes, record = await self._attempts.make(work)
            finally:
                self._waiting.carried(work)
                self._start_soon()
        except LeaseLost:
            self._let_go(claimed.claims)
            return
        except LifetimeOver:
            now = self._clock.now()
            self._settling.put(
                [
                    expired(claim) if claim.expires_at <= now else returned(claim, now=now)
                    for claim in claimed.claims
                ]
            )
            return
        except ContentDamaged as error:
            self._settling.put([damaged(claim, str(error)) for claim in claimed.claims])
            return
        self._conclude(claimed, outcomes, record)

    def _conclude(
        self, claimed: Claimed, outcomes: Sequence[Outcome], record: AttemptRecord
    ) -> None:
        stream = self._directory.now.streams.get((claimed.project, claimed.stream))
        policy = (
            RetryPolicy(stream.retry_first_ms, stream.retry_cap_ms)
            if stream
            else RetryPolicy(60_000, 14_400_000)
        )
        now = self._clock.now()
        settlements = [
            decide(
                claim,
                outcome,
                record,
                policy=policy,
                in_doubt=claimed.in_doubt,
                now=now,
                jitter=self._rng.random(),
            )
            for claim, outcome in zip(claimed.claims, outcomes, strict=True)
        ]
        for claim, outcome in zip(claimed.claims, outcomes, strict=True):
            if not (isinstance(outcome, Deferred) and outcome.untried):
                _OUTCOMES.add(1, outcome.__struct_config__.tag, claimed.stream)
            if isinstance(outcome, Delivered) and not claim.attempts:
                _TO_END.observe(max(now - claim.not_before, 0) / 1000)
        self._settling.put(settlements)

    # -- letting go --------------------------------------------------------------------------------

    def _let_go(self, rows: Sequence[Settlement | Claim]) -> None:
        if self._hands.let_go(rows):
            self._wake.set()
        self._freed.set()
        _IN_HAND.set(len(self._hands), self._name)

    async def _renew(self) -> None:
        """Renew what is in hand at a third of the lease; what was lost loses its deadline, so that
        its dot is not sent."""
        pause = self._limits.lease_ms / 3000
        while True:
            await asyncio.sleep(pause)
            claims = self._hands.claims()
            deadline = self._clock.steady() + self._limits.lease_ms
            try:
                kept = await self._store.extend(
                    self._owner,
                    [(c.message, c.n, c.term) for c in claims],
                    lease_ms=self._limits.lease_ms,
                )
            except StoreError as error:
                telemetry.event("dispatch.renewal_failed", error=str(error))
                pause = self._limits.poll_s
                continue
            pause = self._limits.lease_ms / 3000
            for claim, still in zip(claims, kept, strict=True):
                if self._hands.holds(claim) is claim:
                    self._hands.hold(
                        msgspec.structs.replace(claim, deadline=deadline if still else 0)
                    )

    # -- stopping ----------------------------------------------------------------------------------

    async def stop(self, *, deadline_s: float) -> None:
        """No new claims; hand back what has not started; wait for what has, up to `deadline_s`.

        What is still under way then stays claimed: recovery finds it through the dot log.
        """
        self._stopping = True
        self._wake.set()
        self._freed.set()
        try:
            async with asyncio.timeout(deadline_s):
                await self._ended.wait()
                await self._hand_back()
                await self.settled()
        except TimeoutError:
            telemetry.event("dispatch.drain_timed_out", in_hand=len(self._hands))

    async def settled(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _hand_back(self) -> None:
        """Resign what was claimed and has not started."""
        claims = [c for work in self._waiting.take_back() for c in work.claimed.claims]
        if not claims:
            return
        try:
            await self._store.resign(self._owner, [(c.message, c.n, c.term) for c in claims])
        except StoreError as error:
            telemetry.event("dispatch.resign_failed", error=str(error))
        else:
            self._let_go(claims)

    @property
    def in_hand(self) -> int:
        """Recipients claimed and not settled yet."""
        return len(self._hands)
