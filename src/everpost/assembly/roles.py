"""One process: the roles it was told to play, until SIGTERM."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import uvloop

from everpost import telemetry
from everpost.assembly.doors import open_doors
from everpost.assembly.node import Node, open_node
from everpost.catalog import Relays
from everpost.config import Settings
from everpost.delivery import Carrier, Reach, Timeouts
from everpost.dispatch import Dispatcher, DispatchLimits, DotLog, Leasing, Renderer
from everpost.ids import text
from everpost.monitoring.metrics import Metrics
from everpost.net.descriptors import raise_limit
from everpost.net.wake import WakeListener, Waker
from everpost.recovery.rescuer import Rescuer
from everpost.recovery.supervisor import die_with_parent
from everpost.recovery.upkeep import Upkeep
from everpost.security import SealingError
from everpost.store.interface import StoreError, WorkerRow

__all__ = ["run"]

_REFRESH_S = 0.5


def run(
    settings: Settings,
    roles: Sequence[str],
    inherited: Mapping[str, int],
    parent_pipe: int | None,
    name: str,
) -> int:
    """See `everpost.assembly.run_roles`."""
    if parent_pipe is not None:
        die_with_parent(parent_pipe)
    _log_to(settings, roles)
    raise_limit()
    metrics = Metrics(settings.node.data / "run" / "metrics", name)
    try:
        return uvloop.run(_run(settings, roles, inherited, metrics))
    except (StoreError, SealingError, OSError) as error:
        telemetry.event("role.failed", error=repr(error))
        return 1


def _log_to(settings: Settings, roles: Sequence[str]) -> None:
    stream = (
        open(settings.log.file, "a", encoding="utf-8")  # noqa: SIM115  for this process's life
        if settings.log.file
        else sys.stderr
    )
    telemetry.set_log(stream, roles="+".join(roles), pid=os.getpid())


async def _run(
    settings: Settings, roles: Sequence[str], inherited: Mapping[str, int], metrics: Metrics
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    places = settings.node.data / "run"
    dispatchers = Waker(places, "dispatch")
    node = await open_node(
        settings, os.environ, accepted=lambda n: dispatchers.wake(everyone=n > 1)
    )
    try:
        async with contextlib.AsyncExitStack() as stack:
            if "upkeep" in roles:
                await stack.enter_async_context(_upkeep(node, dispatchers))
            if "dispatch" in roles:
                await stack.enter_async_context(_dispatch(node))
            if "api" in roles:
                await stack.enter_async_context(open_doors(node, inherited, metrics))
            await stack.enter_async_context(_task(_refresh(node, dispatchers)))
            await stack.enter_async_context(_task(metrics.run()))
            _tell_ready(inherited)
            await stop.wait()
            telemetry.event("role.draining")
    finally:
        await node.store.close()
    return 0


def _tell_ready(inherited: Mapping[str, int]) -> None:
    if "notify" in inherited:
        os.write(inherited["notify"], b"ready\n")
        os.close(inherited["notify"])


@contextlib.asynccontextmanager
async def _task(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run `work` beside the rest; an unexpected end of it ends the process (the supervisor starts
    it again, with a clean state)."""
    task = asyncio.ensure_future(work)
    task.add_done_callback(_end_with)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _end_with(task: "asyncio.Future[None]") -> None:
    if task.cancelled() or task.exception() is None:
        return
    telemetry.event("role.fault", error=repr(task.exception()))
    os.kill(os.getpid(), signal.SIGTERM)


async def _refresh(node: Node, dispatchers: Waker) -> None:
    """See changes of settings within half a second; look for restarted neighbours."""
    while True:
        await asyncio.sleep(_REFRESH_S)
        dispatchers.forget()
        try:
            await node.directory.refresh()
        except StoreError as error:
            telemetry.event("directory.refresh_failed", error=str(error))


@contextlib.asynccontextmanager
async def _upkeep(node: Node, dispatchers: Waker) -> AsyncIterator[None]:
    wake = WakeListener(node.places.run, "upkeep", str(os.getpid()))
    upkeep = Upkeep(
        store=node.store,
        rescuer=_rescuer(node),
        directory=node.directory,
        wake=wake,
        dispatch=dispatchers,
        clock=node.clock,
        data=node.places.data,
        round_s=node.settings.store.checkpoint_s,
    )
    try:
        async with _task(upkeep.run()):
            yield
    finally:
        wake.close()


def _rescuer(node: Node) -> Rescuer:
    return Rescuer(
        store=node.store,
        folder=node.places.run,
        boot=node.boot,
        clock=node.clock,
        rng=node.rng,
    )


@contextlib.asynccontextmanager
async def _dispatch(node: Node) -> AsyncIterator[None]:
    settings = node.settings.dispatch
    worker = await _enlist(node, "dispatch")
    dots = DotLog(node.places.run / worker.dots)
    await node.store.register(worker)
    await _rescuer(node).lost_workers()
    wake = WakeListener(node.places.run, "dispatch", str(os.getpid()))
    carrier = Carrier(
        clock=node.clock,
        helo=node.settings.node.hostname or socket.getfqdn(),
        resolver=node.resolver,
        rng=node.rng,
        timeouts=_timeouts(node.settings),
        mx_timeouts=_mx_timeouts(node.settings),
        reach=Reach(node.settings.delivery.mx_addresses, node.settings.delivery.mx_sessions),
    )
    relays = _Relays(node, carrier)
    threads = ThreadPoolExecutor(settings.signing_threads, thread_name_prefix="sign")
    dispatcher = Dispatcher(
        owner=worker.id,
        store=node.store,
        directory=node.directory,
        carrier=carrier,
        renderer=Renderer(
            sealer=node.sealer,
            directory=node.directory,
            contents=node.store.content,
            parts=node.store.parts,
            threads=threads,
            clock=node.clock,
        ),
        dots=dots,
        wake=wake,
        clock=node.clock,
        ids=node.ids,
        rng=node.rng,
        limits=DispatchLimits(
            window=settings.window,
            window_bytes=settings.window_bytes,
            batch=settings.batch,
            lease_ms=int(settings.lease_s * 1000),
            poll_s=settings.poll_s,
            poison_after=settings.poison_after,
        ),
        catch_up=relays.catch_up,
        name=str(os.getpid()),
    )
    leasing = Leasing(
        owner=worker.id,
        store=node.store,
        leases=carrier.leases,
        clock=node.clock,
        granted=dispatcher.go_on,
    )
    try:
        async with _task(relays.watch()), _task(leasing.run()), _task(dispatcher.run()):
            yield
            await dispatcher.stop(deadline_s=node.settings.node.drain_s)
            await carrier.close(deadline=2.0)
            # What closing has cut short has an outcome now, too.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await dispatcher.settled()
        await leasing.leave()
    finally:
        threads.shutdown(wait=False)
        wake.close()
        if dispatcher.in_hand == 0:
            await node.store.forget(worker.id)
        dots.close(remove=dispatcher.in_hand == 0)


async def _enlist(node: Node, role: str) -> WorkerRow:
    now = node.clock.now()
    id_ = node.ids()
    return WorkerRow(
        id=id_,
        role=role,
        pid=os.getpid(),
        boot=node.boot,
        dots=f"dots-{text(id_)}.log",
        started_at=now,
        seen_at=now,
    )


class _Relays:
    """Gives delivery the relays whenever the settings have changed."""

    def __init__(self, node: Node, carrier: Carrier) -> None:
        self._node = node
        self._carrier = carrier
        self._catalog = Relays(
            node.store,
            node.directory,
            sealer=node.sealer,
            connections=node.settings.delivery.connections,
            clock=node.clock,
            ids=node.ids,
        )
        self._seen = -1

    async def catch_up(self, revision: int) -> None:
        """Know at least the settings of `revision`, in the directory and in delivery."""
        if revision > self._node.directory.now.revision:
            await self._node.directory.refresh()
        self._use()

    def _use(self) -> None:
        now = self._node.directory.now
        if now.revision != self._seen:
            self._seen = now.revision
            self._carrier.use(self._catalog.load_all())

    async def watch(self) -> None:
        while True:
            self._use()
            await asyncio.sleep(_REFRESH_S / 2)


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
