"""One process: the roles it was told to play, until SIGTERM."""

import asyncio
import contextlib
import gc
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import uvloop

from everpost import telemetry
from everpost.assembly.canary import open_canary
from everpost.assembly.clustering import company_of, open_presence, rescuer_of
from everpost.assembly.dispatching import open_dispatch
from everpost.assembly.doors import open_doors
from everpost.assembly.ending import Ending
from everpost.assembly.journalling import open_journal
from everpost.assembly.keys import FIRST_KEY, first_key
from everpost.assembly.node import Node, open_node
from everpost.assembly.patrol import open_patrol
from everpost.assembly.tasks import beside, faulted
from everpost.assembly.wakers import Wakers, open_wakers
from everpost.config import Settings
from everpost.ledger import Recheck
from everpost.model.errors import Refusal
from everpost.monitoring.metrics import Metrics
from everpost.monitoring.standing import StandingView
from everpost.net.descriptors import raise_limit
from everpost.net.listener import ListenError
from everpost.net.wake import WakeListener
from everpost.recovery.presence import Presence
from everpost.recovery.spawning import BEAT, DRAINING, READY, die_with_parent
from everpost.recovery.upkeep import Upkeep
from everpost.security import SealingError
from everpost.store.interface import StoreError

__all__ = ["run"]

_REFRESH_S = 0.5

_BEAT_S = 1.0
_BEATS = 5
"""At least so many in the time after which silence is taken for death."""
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_FIRST = "300"
"""Of 1000: it counts as if it held three tenths of the machine's memory on top (proc(5))."""

_COLLECT_AFTER = (10_000, 10, 10)
"""New objects before the youngest are looked through, and how many such looks before the older."""


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
    if "api" not in roles:
        _be_the_first_to_go()
    metrics = Metrics(settings.node.data / "run" / "metrics", name)
    try:
        return uvloop.run(_run(settings, roles, inherited, metrics))
    except (StoreError, SealingError, Refusal, ListenError, OSError) as error:
        telemetry.event("role.failed", level="error", error=str(error) or repr(error))
        return 1


def _log_to(settings: Settings, roles: Sequence[str]) -> None:
    file = settings.log.file
    telemetry.set_log(Path(file) if file else sys.stderr, roles="+".join(roles), pid=os.getpid())


async def _run(
    settings: Settings, roles: Sequence[str], inherited: Mapping[str, int], metrics: Metrics
) -> int:
    """A sign of life every second, from before the store is opened until it is closed."""
    pipe = inherited.get("notify")
    if pipe is None:
        return await _play(settings, roles, inherited, metrics)
    os.set_blocking(pipe, False)
    async with beside(_beat(pipe, settings.node.hung_s)):
        return await _play(settings, roles, inherited, metrics)


async def _play(
    settings: Settings, roles: Sequence[str], inherited: Mapping[str, int], metrics: Metrics
) -> int:
    by_hand = "notify" not in inherited  # no supervisor waits for us
    ending = Ending(linger_s=settings.http.linger_s if by_hand and "api" in roles else 0.0)
    ending.listen()
    with open_wakers(settings, listening="dispatch" in roles) as wakers:
        node = await _open(settings, ending, wakers)
        if node is None:
            return 0
        try:
            await _play_on(node, roles, inherited, metrics=metrics, wakers=wakers, ending=ending)
        finally:
            await node.store.close()
    return int(faulted())


async def _open(settings: Settings, ending: Ending, wakers: Wakers) -> Node | None:
    """The ground; None: this process was told to end while it waited for the store."""
    opening = asyncio.ensure_future(
        open_node(settings, os.environ, accepted=lambda n: wakers.wake(everyone=n > 1))
    )
    stopped = asyncio.ensure_future(ending.leaving.wait())
    await asyncio.wait([opening, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not opening.done():
        opening.cancel()
        await asyncio.wait([opening])
    if opening.cancelled():
        return None
    node = opening.result()
    if node.shared:
        given = os.environ.get(FIRST_KEY)
        if given:  # the roles may have been started one by one
            await first_key(node.store, node.directory, given=given, clock=node.clock, ids=node.ids)
    return node


async def _play_on(
    node: Node,
    roles: Sequence[str],
    inherited: Mapping[str, int],
    *,
    metrics: Metrics,
    wakers: Wakers,
    ending: Ending,
) -> None:
    """Until told to end; then readiness fails before anything else."""
    async with contextlib.AsyncExitStack() as stack:
        presence = await stack.enter_async_context(open_presence(node, roles, inherited))
        if "upkeep" in roles:
            await stack.enter_async_context(_upkeep(node, wakers, presence))
            await stack.enter_async_context(open_canary(node))
            await stack.enter_async_context(open_patrol(node))
        if "dispatch" in roles:
            supervised = "notify" in inherited
            dispatching = open_dispatch(node, ending.stop, wakers=wakers, supervised=supervised)
            await stack.enter_async_context(dispatching)
        if "api" in roles or "notify" not in inherited:
            journalling = None
            if "api" in roles:
                journalling = await stack.enter_async_context(open_journal(node, inherited))
            doors = open_doors(
                node,
                inherited,
                metrics,
                roles=roles,
                journalling=journalling,
                leaving=ending.leaving,
            )
            await stack.enter_async_context(doors)
        await stack.enter_async_context(beside(_refresh(node, wakers)))
        await stack.enter_async_context(beside(Recheck(node.store).run()))
        await stack.enter_async_context(beside(metrics.run()))
        _settle_memory()
        _say(inherited.get("notify"), READY)
        telemetry.event("role.ready", node=node.name or None)
        await ending.stop.wait()
        _say(inherited.get("notify"), DRAINING)
        telemetry.event("role.draining")


def _settle_memory() -> None:
    """What was made to start with lives as long as the process: the collector of cycles need not
    walk it again and again. Nor need it look after every 700 new objects where a message makes
    dozens, next to none of them in cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


async def _beat(pipe: int, hung_s: float) -> None:
    """From the event loop, so that it stops when the loop does."""
    pause = min(_BEAT_S, hung_s / _BEATS) if hung_s else _BEAT_S
    while True:
        _say(pipe, BEAT)
        await asyncio.sleep(pause)


def _say(pipe: int | None, word: bytes) -> None:
    """To the supervisor. It may be paused (the pipe is full) or gone (we are about to be killed):
    nobody waits for it."""
    if pipe is not None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(pipe, word)


def _be_the_first_to_go() -> None:
    """When memory runs out, the kernel ends a process that delivers before the one that accepts:
    what it had in hand is taken over, and mail whose composing ate the memory is found out."""
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text(_FIRST, encoding="ascii")


async def _refresh(node: Node, wakers: Wakers) -> None:
    """See changes of settings within half a second, and how clocks and store do; look for restarted
    neighbours."""
    failing, view = False, StandingView()
    while True:
        await asyncio.sleep(_REFRESH_S)
        wakers.forget()
        node.watch_clock()
        if node.shared:
            view.show(node.store.state())
        try:
            await node.directory.refresh()
            failing = False
        except StoreError as error:
            if not failing:
                telemetry.event("directory.refresh_failed", error=str(error))
            failing = True


@contextlib.asynccontextmanager
async def _upkeep(node: Node, wakers: Wakers, presence: Presence | None) -> AsyncIterator[None]:
    if node.places.torn.exists():
        telemetry.alarm("log_torn").raise_(error=node.places.torn.read_text(encoding="utf-8"))
    wake = WakeListener(node.places.run, "upkeep", str(os.getpid()))
    rescuer = rescuer_of(node)
    upkeep = Upkeep(
        store=node.store,
        rescuer=rescuer,
        directory=node.directory,
        wake=wake,
        dispatch=wakers,
        clock=node.clock,
        data=node.places.data,
        children=node.places.children,
        company=None if presence is None else company_of(node, presence, rescuer),
        round_s=node.settings.store.checkpoint_s,
    )
    try:
        async with beside(upkeep.run()):
            yield
    finally:
        wake.close()
