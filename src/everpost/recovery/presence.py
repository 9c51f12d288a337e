"""A node among others: its signs of life, and who is gone.

Every process of a node writes the node's row, so that a node lives as long as one of them does.
Which ones there are, they find out of files in the data directory (`RollCall`).
"""

import asyncio
import fcntl
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec

from everpost import telemetry
from everpost.clock import Clock
from everpost.dispatch.dots import is_alive
from everpost.store.cluster import NodeRow, Nodes
from everpost.store.interface import StoreError

__all__ = ["Fellow", "Presence", "RollCall", "is_gone", "tell_skew"]

_SKEW = telemetry.gauge("everpost_clock_skew_seconds", "This node's wall clock less the database's")
_MOST_SKEW_MS = 1_000
_FAREWELL_S = 2.0
_SIGNS = 3
"""In the time after which a node counts as gone: with fewer, nobody could tell that from a pause,
and what a dead node has left would stay where it is."""
_STRANGE = 3
"""After so many signs of life it is sure that another node writes the same row."""


def is_gone(node: NodeRow | None, *, now: int, stretch_ms: int, gone_ms: int) -> bool:
    """Whether a node counts as gone; None: it has no row. `now` is the store's time, `stretch_ms`
    how long whoever judges has been hearing from the store: while that did not answer, nobody
    could write there. Pure."""
    silent = stretch_ms if node is None else min(now - node.seen_at, stretch_ms)
    return silent >= gone_ms


def tell_skew(skew_ms: int) -> None:
    """Show how far this node's wall clock is from the store's, and whether that is too far."""
    _SKEW.set(skew_ms / 1000)
    alarm = telemetry.alarm("clock_skewed")
    if abs(skew_ms) > _MOST_SKEW_MS:
        alarm.raise_(ms=skew_ms)
    else:
        alarm.clear()


# --- the processes of this node -------------------------------------------------------------------


class Fellow(msgspec.Struct, frozen=True):
    """A process of this node. `address`: where it takes copies from peers, or empty."""

    roles: tuple[str, ...]
    started_at: int
    address: str = ""


_decode = msgspec.json.Decoder(Fellow).decode


class RollCall:
    """This process's file among those of all processes that use a data directory: it is locked for
    as long as the process lives, so a file without a lock means nothing."""

    def __init__(self, folder: Path, fellow: Fellow) -> None:
        """Raises OSError."""
        self.fellow = fellow
        self._folder = folder
        self._path = folder / f"here-{os.getpid()}.json"
        while not self._written():
            pass

    def _written(self) -> bool:
        """Whether it is our file that is there: before it is locked, another process may take it
        for one that is left over, and clear it away."""
        self._fd = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.write(self._fd, msgspec.json.encode(self.fellow))
            if os.path.samestat(os.fstat(self._fd), self._path.stat()):
                return True
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(self._fd)
            raise
        os.close(self._fd)
        return False

    def others(self) -> Sequence[Fellow]:
        """The others that live. Raises OSError."""
        found = []
        for path in self._folder.glob("here-*.json"):
            if path == self._path:
                continue
            if not is_alive(path):
                path.unlink(missing_ok=True)
                continue
            try:
                found.append(_decode(path.read_bytes()))
            except (FileNotFoundError, msgspec.MsgspecError):  # it has just begun, or ended
                continue
        return found

    def close(self) -> None:
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


# --- the node -------------------------------------------------------------------------------------


class Presence:
    """This process's part in its node's signs of life. Of `node`, roles, start and address are put
    together from all its processes. `skew_ms` tells the wall clock less the store's."""

    def __init__(
        self,
        *,
        store: Nodes,
        node: NodeRow,
        roll: RollCall,
        clock: Clock,
        heartbeat_s: float,
        gone_s: float,
        skew_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        self._store = store
        self._node = node
        self._roll = roll
        self._clock = clock
        self._skew_ms = skew_ms
        self._heartbeat_s = min(heartbeat_s, gone_s / _SIGNS)
        self._gone_ms = int(gone_s * 1000)
        self._heard_at: int | None = None
        self._since: int | None = None
        self._strange = 0
        self._written: set[int] = set()
        self._nodes: Sequence[NodeRow] = ()

    @property
    def nodes(self) -> Sequence[NodeRow]:
        """All nodes, as of the last sign of life."""
        return self._nodes

    async def run(self) -> None:
        """A sign of life each heartbeat, until cancelled. A store that does not answer delays them,
        no more."""
        away = False
        while True:
            try:
                await self.appear()
                away = False
            except (StoreError, OSError) as error:
                if not away:
                    telemetry.event("presence.failed", error=str(error))
                away = True
            await asyncio.sleep(self._heartbeat_s)

    async def appear(self) -> None:
        """One sign of life. Raises StoreError, OSError."""
        fellows = (self._roll.fellow, *self._roll.others())
        row = msgspec.structs.replace(
            self._node,
            roles=tuple(sorted({role for fellow in fellows for role in fellow.roles})),
            started_at=min(fellow.started_at for fellow in fellows),
            address=max(fellow.address for fellow in fellows),
            skew_ms=self._skew_ms(),
        )
        self._nodes = await self._store.nodes()
        self._look_for_namesakes({fellow.started_at for fellow in fellows})
        await self._store.appear(row)
        self._hear()

    def _look_for_namesakes(self, ours: Collection[int]) -> None:
        """Nodes of one name would take each other's processes for their own. Each writes its own
        start, so where two write, what is found is never what was written."""
        self._written.update(ours)
        there = [node for node in self._nodes if node.name == self._node.name]
        strange = bool(there) and there[0].started_at not in self._written
        self._strange = self._strange + 1 if strange else 0
        alarm = telemetry.alarm("node_name_taken")
        if self._strange >= _STRANGE:
            alarm.raise_(node=self._node.name)
        elif not self._strange:
            alarm.clear()

    def _hear(self) -> None:
        """The store has answered."""
        now = self._clock.steady()
        heard = self._heard_at
        if self._since is None or heard is None or not 0 <= now - heard < self._gone_ms:
            self._since = now
        self._heard_at = now

    def stretch_ms(self) -> int:
        """For how long the store has been answering without a pause in which nodes would have come
        to count as gone; 0: it does not now."""
        now = self._clock.steady()
        if self._since is None or self._heard_at is None or now - self._heard_at >= self._gone_ms:
            return 0
        return max(now - self._since, 0)

    async def leave(self) -> None:
        """At the end of this process: the last one of a node takes the node's row with it."""
        last = not self._roll.others()
        self._roll.close()
        if not last:
            return
        try:
            async with asyncio.timeout(_FAREWELL_S):
                await self._store.disappear(self._node.name)
        except (StoreError, TimeoutError) as error:
            telemetry.event("presence.failed", error=str(error))
