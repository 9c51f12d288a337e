"""The dispatch role: carrier, dispatcher, and what dispatch processes tell each other."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from everpost import telemetry
from everpost.assembly.clustering import rescuer_of
from everpost.assembly.node import Node
from everpost.assembly.parts import relays_of, renderer_of
from everpost.assembly.tasks import beside
from everpost.assembly.wakers import Wakers
from everpost.catalog import Pools, Routes
from everpost.config import Settings
from everpost.delivery import Carrier, Reach, Timeouts
from everpost.dispatch import (
    CircuitNews,
    Dispatcher,
    DispatchLimits,
    DotLog,
    Exchange,
    Leasing,
    Prober,
    Reports,
    SiteNews,
)
from everpost.ids import Id, text
from everpost.model.relay import Relay
from everpost.net.wake import WakeListener
from everpost.store.interface import DomainRow, StoreError, WorkerRow

__all__ = ["open_dispatch"]

_AGAIN_S = 1.0
"""Between two tries to make the dot log."""

_LOOK_S = 0.25
"""How often the directory is compared with what delivery knows."""


@contextlib.asynccontextmanager
async def open_dispatch(
    node: Node, stop: asyncio.Event, *, wakers: Wakers, supervised: bool
) -> AsyncIterator[None]:
    """Claim and deliver until the end of the block; then finish what is in hand. `stop`: nobody
    waits any more for what cannot begin. `supervised`: as many dispatchers as are set will be on
    this node, else there is this one."""
    worker = _worker(node)
    fellows = _Fellows(node, worker, here=node.settings.node.dispatchers if supervised else 1)
    dots = await _open_dots(node.places.run / worker.dots, stop)
    await node.store.register(worker)
    await rescuer_of(node).lost_workers()
    wake = WakeListener(node.places.run, "dispatch", str(os.getpid()))
    wakers.heard = wake.set
    carrier = _carrier(node)
    circuits = CircuitNews(carrier, site=node.settings.node.site)
    relays = _Relays(node, carrier, circuits)
    threads = ThreadPoolExecutor(node.settings.dispatch.signing_threads, thread_name_prefix="sign")
    dispatcher = _dispatcher(
        node, worker.id, carrier=carrier, relays=relays, dots=dots, wake=wake, threads=threads
    )
    leasing = Leasing(
        owner=worker.id,
        store=node.store,
        leases=carrier.leases,
        clock=node.clock,
        granted=dispatcher.go_on,
        processes=fellows.count,
    )
    exchange, prober = _health(node, worker.id, carrier, relays, circuits)
    try:
        async with (
            beside(relays.watch()),
            beside(leasing.run()),
            beside(exchange.run()),
            beside(fellows.run()),
            beside(dispatcher.run()),
        ):
            async with beside(prober.run()):
                yield
            await dispatcher.stop(deadline_s=node.settings.node.drain_s)
            await carrier.close(deadline=2.0)
            # What closing has cut short has an outcome now, too.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await dispatcher.settled()
        await leasing.leave()
        wakers.wake(everyone=True)  # what was handed back is due
    finally:
        wakers.heard = None
        threads.shutdown(wait=False)
        wake.close()
        dots.close(remove=dispatcher.in_hand == 0 and await _forgotten(node, worker))


async def _forgotten(node: Node, worker: WorkerRow) -> bool:
    """Whether the store knows nothing of it any more. Else its dot log has to stay, and whoever
    looks after dead workers next finds both."""
    try:
        await node.store.forget(worker.id)
    except StoreError as error:
        telemetry.event("dispatch.leaving_failed", error=str(error))
        return False
    return True


async def _open_dots(path: Path, stop: asyncio.Event) -> DotLog:
    """As soon as the disk has room for it: without it nothing may leave, and to end and begin anew
    again and again would help nobody (F4). Raises OSError when told to stop before."""
    alarm = telemetry.alarm("dots_unwritable")
    while True:
        try:
            dots = DotLog(path)
        except OSError as error:
            alarm.raise_(error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_S):
                    await stop.wait()
            if stop.is_set():
                raise
        else:
            alarm.clear()
            return dots


class _Fellows:
    """The dispatchers that share limits with this one, `worker`; `here` are on this node when all
    have started. Where several nodes share the store, one that was taken for gone writes itself
    down again."""

    def __init__(self, node: Node, worker: WorkerRow, *, here: int) -> None:
        self._node = node
        self._worker = worker
        self._here = here
        self._elsewhere = 0

    def count(self) -> int:
        return self._here + self._elsewhere

    async def run(self) -> None:
        """Until cancelled."""
        if not self._node.shared:
            return
        away = False
        while True:
            try:
                await self._look()
                away = False
            except StoreError as error:
                if not away:
                    telemetry.event("dispatch.fellows_unknown", error=str(error))
                away = True
            await asyncio.sleep(self._node.settings.cluster.heartbeat_s)

    async def _look(self) -> None:
        workers = await self._node.store.workers()
        if all(worker.id != self._worker.id for worker in workers):
            await self._node.store.register(self._worker)
            telemetry.event("dispatch.registered_again", worker=self._worker.id)
        others = [w for w in workers if w.role == "dispatch" and w.node != self._node.name]
        self._elsewhere = len(others)


def _worker(node: Node) -> WorkerRow:
    now = node.clock.now()
    id_ = node.ids()
    return WorkerRow(
        id=id_,
        role="dispatch",
        pid=os.getpid(),
        boot=node.boot,
        dots=f"dots-{text(id_)}.log",
        started_at=now,
        seen_at=now,
        node=node.name,
    )


def _carrier(node: Node) -> Carrier:
    settings = node.settings
    return Carrier(
        clock=node.clock,
        helo=settings.node.hostname or socket.getfqdn(),
        resolver=node.resolver,
        rng=node.rng,
        timeouts=_timeouts(settings),
        mx_timeouts=_mx_timeouts(settings),
        reach=Reach(settings.delivery.mx_addresses, settings.delivery.mx_sessions),
        site=settings.node.site,
        open_for=settings.delivery.eject_s,
    )


def _dispatcher(
    node: Node,
    owner: Id,
    *,
    carrier: Carrier,
    relays: "_Relays",
    dots: DotLog,
    wake: WakeListener,
    threads: ThreadPoolExecutor,
) -> Dispatcher:
    settings = node.settings.dispatch
    return Dispatcher(
        owner=owner,
        store=node.store,
        directory=node.directory,
        carrier=carrier,
        renderer=renderer_of(node, threads),
        dots=dots,
        wake=wake,
        clock=node.clock,
        ids=node.ids,
        rng=node.rng,
        limits=DispatchLimits(
            window=settings.window,
            window_bytes=settings.window_bytes,
            batch=settings.batch,
            lease_ms=int(1000 * (node.settings.cluster if node.shared else settings).lease_s),
            poll_s=settings.poll_s,
            poison_after=settings.poison_after,
        ),
        catch_up=relays.catch_up,
        routes=relays.routes.load_all,
        name=str(os.getpid()),
    )


def _health(
    node: Node, owner: Id, carrier: Carrier, relays: "_Relays", circuits: CircuitNews
) -> tuple[Exchange, Prober]:
    def domains() -> Iterable[DomainRow]:
        return node.directory.now.domains.values()

    exchange = Exchange(
        owner=owner,
        store=node.store,
        clock=node.clock,
        topics=(
            circuits,
            SiteNews(carrier),
            Reports(owner, carrier.standing, site=node.settings.node.site),
        ),
    )
    carrier.when_news(exchange.wake)
    prober = Prober(
        owner=owner,
        store=node.store,
        carrier=carrier,
        exchange=exchange,
        relays=lambda: relays.now,
        domains=domains,
        known=circuits.known,
        clock=node.clock,
        rng=node.rng,
        every_s=node.settings.delivery.probe_s,
        least_s=node.settings.delivery.eject_s,
        site=node.settings.node.site,
    )
    return exchange, prober


class _Relays:
    """Gives delivery the relays and pools whenever the settings have changed; `now` are the relays
    that it has, `routes` tell dispatch which pool is whose."""

    def __init__(self, node: Node, carrier: Carrier, circuits: CircuitNews) -> None:
        self._node = node
        self._carrier = carrier
        self._circuits = circuits
        self._catalog = relays_of(node)
        self._pools = Pools(node.store, node.directory, clock=node.clock, ids=node.ids)
        self.routes = Routes(node.store, node.directory, clock=node.clock, ids=node.ids)
        self._seen = -1
        self.now: Sequence[Relay] = ()

    async def catch_up(self, revision: int) -> None:
        """Know at least the settings of `revision`, in the directory and in delivery."""
        if revision > self._node.directory.now.revision:
            await self._node.directory.refresh()
        self._use()

    def _use(self) -> None:
        now = self._node.directory.now
        if now.revision != self._seen:
            self._seen = now.revision
            self.now = self._catalog.load_all()
            self._carrier.use(self.now, self._pools.load_all())
            self._circuits.remind()

    async def watch(self) -> None:
        while True:
            self._use()
            await asyncio.sleep(_LOOK_S)


def _timeouts(settings: Settings) -> Timeouts:
    d = settings.delivery
    return Timeouts(
        connect=d.connect_s,
        greet=d.greet_s,
        mail=d.mail_s,
        rcpt=d.rcpt_s,
        data=d.data_s,
        block=d.block_s,
        dot=d.dot_s,
        idle=d.idle_s,
    )


def _mx_timeouts(settings: Settings) -> Timeouts:
    d = settings.delivery
    return replace(_timeouts(settings), connect=d.mx_connect_s, greet=d.mx_greet_s)
