"""Does what the schedule says, against the live server, and heals it again."""

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from everpost.recovery.children import read_children
from tests.chaos.bits import flip_one
from tests.chaos.history import History
from tests.chaos.nemesis import Fault
from tests.chaos.playing import Done, Player, rest
from tests.chaos.sink import Sink
from tests.support.faketime import WallClock
from tests.support.house import House
from tests.support.power import Host
from tests.support.tracing import injecting
from tests.support.waiting import wait_until

__all__ = ["Faults"]

_HOUR = 3600.0
_CALLS = {
    # Every second one, so that of two flushes that belong together one alone may fail.
    "io_error": ("fdatasync:error=EIO:when=2+2", "fsync:error=EIO:when=2+2"),
    "io_full": ("pwrite64:error=ENOSPC", "pwritev:error=ENOSPC"),
    "io_slow": ("fdatasync:delay_enter={delay_us}",),
}
_SPARE = 64 << 10
"""Bytes that a full disk still has: less than any write-ahead log needs to grow."""

_WHILE_STARTING = 0.3
"""So many kills come whether the children are ready or not; the others wait for that …"""
_STARTING_S = 5.0
"""… this long."""


class Faults(Player):
    """Those of one host."""

    def __init__(
        self,
        house: House,
        host: Host,
        sinks: Sequence[Sink],
        clock: WallClock,
        history: History,
    ) -> None:
        super().__init__(history)
        self._house = house
        self._host = host
        self._sinks = sinks
        self._clock = clock
        self._stopped: set[int] = set()

    def _before(self, fault: Fault) -> None:
        if fault.name.startswith("kill") and fault.pick >= _WHILE_STARTING:
            self._wait_for_children()

    def _wait_for_children(self) -> None:
        """Not for long: on a busy machine mail would never flow if what is killed were always still
        starting."""

        def ready() -> bool:
            facts = read_children(self._house.data / "run" / "children.json")
            return bool(self._errors) or (
                facts is not None and all(child.ready for child in facts.children)
            )

        with suppress(AssertionError):
            wait_until(ready, seconds=_STARTING_S, what="the children to be ready")

    def doer(self, name: str) -> Callable[[Fault], Done]:
        family, _, rest = name.partition("_")
        if family == "sink":
            return functools.partial(self._sink, rest)
        if family == "io":
            return functools.partial(self._io, _CALLS[name])
        found: Callable[[Fault], Done] = getattr(self, f"_{name}")
        return found

    # -- processes ---------------------------------------------------------------------------------

    def _kill_api(self, _: Fault) -> Done:
        return self._kill(self._oldest("api")[:1])

    def _kill_dispatch(self, _: Fault) -> Done:
        return self._kill(self._oldest("dispatch")[:1])

    def _kill_dispatchers(self, _: Fault) -> Done:
        return self._kill(self._oldest("dispatch"))

    def _kill_children(self, _: Fault) -> Done:
        return self._kill(self._oldest(""))

    def _kill_all(self, _: Fault) -> Done:
        killed = [self._house.pid, *self._house.children()]
        self._house.kill()
        self._house.start()
        return {"killed": killed}

    def _term(self, fault: Fault) -> Done:
        pids = self._oldest(("api", "dispatch")[fault.pick < 0.7])[:1]
        return {"told": [pid for pid in pids if _signal(pid, signal.SIGTERM)]}

    def _reload(self, fault: Fault) -> Done:
        """By SIGHUP, or by the command that a user has, who waits no longer than the fault does."""
        if fault.pick < 0.5:
            os.kill(self._house.pid, signal.SIGHUP)
            return {"by": "SIGHUP"}
        words = (sys.executable, "-m", "everpost", "config", "reload", "--data")
        command = subprocess.Popen([*words, str(self._house.data)], stderr=subprocess.DEVNULL)
        with suppress(subprocess.TimeoutExpired):
            command.wait(timeout=fault.length)
        command.kill()
        return {"by": "config reload", "code": command.wait()}

    def _oldest(self, role: str) -> list[int]:
        """Children by age, those that stand still last: so each has its turn."""
        found: list[int] = []

        def there() -> bool:
            found[:] = self._house.children(role)
            return bool(found)

        with suppress(AssertionError):  # none is started in time: then none is hit
            wait_until(there, seconds=3, what="a child")
        return sorted(found, key=lambda pid: (pid in self._stopped, pid))

    def _kill(self, pids: Iterable[int]) -> Done:
        return {"killed": [pid for pid in pids if _signal(pid, signal.SIGKILL)]}

    # -- pauses ------------------------------------------------------------------------------------

    def _pause_short(self, fault: Fault) -> Done:
        return self._pause_one(fault)

    def _pause_lease(self, fault: Fault) -> Done:
        return self._pause_one(fault, role="dispatch")

    def _pause_hung(self, fault: Fault) -> Done:
        """The supervisor kills it before it is woken."""
        return self._pause_one(fault)

    def _pause_one(self, fault: Fault, *, role: str | None = None) -> Done:
        pids = self._oldest(role or ("api", "dispatch")[fault.pick < 0.7])[:1]
        with self._still(pids):
            rest(fault.length)
        return {"paused": pids}

    def _pause_all(self, fault: Fault) -> Done:
        """As a virtual machine that is suspended: nothing of it runs, the world goes on."""
        pids = [self._house.pid, *self._house.children()]
        with self._still(pids):
            rest(fault.length)
        return {"paused": pids}

    @contextmanager
    def _still(self, pids: Iterable[int]) -> Iterator[None]:
        with _handles(pids) as handles:
            try:
                for pid, handle in handles.items():
                    self._stopped.add(pid)
                    signal.pidfd_send_signal(handle, signal.SIGSTOP)
                yield
            finally:
                for pid, handle in handles.items():
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(handle, signal.SIGCONT)
                    self._stopped.discard(pid)

    # -- power and bits ----------------------------------------------------------------------------

    def _power(self, _: Fault) -> Done:
        self._host.cut(self._house)
        self._house.start()
        return {"cuts": 1}

    def _power_twice(self, fault: Fault) -> Done:
        """The second comes while the server starts after the first."""
        self._host.cut(self._house)
        self._house.start(wait=False)
        rest(2.0 * fault.pick)
        self._host.cut(self._house)
        self._house.start()
        return {"cuts": 2}

    def _flip(self, fault: Fault) -> Done:
        """After a power cut, one bit of a message that waits to be sent."""
        with self._sinks_are("refuse_451"):
            rest(1.0)
            self._host.cut(self._house)
            flipped = flip_one(self._house.data / "everpost.db", pick=fault.pick)
            if flipped is not None:
                self._history.write("flip", id=flipped.id, elements=flipped.elements)
            self._house.start()
        return {"cuts": 1, "flipped": flipped.elements if flipped else ()}

    # -- disk --------------------------------------------------------------------------------------

    def _io(self, calls: Sequence[str], fault: Fault) -> Done:
        pids = self._oldest(("api", "dispatch")[fault.pick < 0.5])[:1]
        delay_us = int(100_000 + 200_000 * fault.pick)
        given = [call.format(delay_us=delay_us) for call in calls]
        for pid in pids:
            try:
                with injecting(pid, *given):
                    rest(fault.length)
            except AssertionError as error:
                if not _dies(pid):
                    raise
                return {"missed": f"{pid}: {error}"}
        return {"traced": pids, "calls": given}

    def _disk_full(self, fault: Fault) -> Done:
        filler = self._house.data.parent / "filler"
        try:
            size = _fill(filler)
            rest(fault.length)
        finally:
            filler.unlink(missing_ok=True)
        return {"bytes": size}

    # -- clock -------------------------------------------------------------------------------------

    def _clock_ahead(self, fault: Fault) -> Done:
        return self._step(2 * _HOUR, fault)

    def _clock_back(self, fault: Fault) -> Done:
        return self._step(-2 * _HOUR, fault)

    def _step(self, seconds: float, fault: Fault) -> Done:
        self._clock.step(seconds)
        try:
            rest(fault.length)
        finally:
            self._clock.step(-seconds)
        return {"step_s": seconds}

    def _clock_strobe(self, fault: Fault) -> Done:
        """Far ahead and far back, in turn, more than once a second."""
        until = time.monotonic() + fault.length
        steps = 0
        while time.monotonic() < until:
            seconds = (2 * _HOUR, -2 * _HOUR)[steps % 2]
            self._clock.step(seconds)
            try:
                rest(0.4)
            finally:
                self._clock.step(-seconds)
            steps += 1
        return {"steps": steps}

    # -- sinks -------------------------------------------------------------------------------------

    def _sink(self, behaviour: str, fault: Fault) -> Done:
        """One of them, or all."""
        chosen = int(fault.pick * (len(self._sinks) + 1))
        sinks = self._sinks[chosen : chosen + 1] or self._sinks
        with self._sinks_are(behaviour, sinks):
            rest(fault.length)
        return {"sinks": [sink.name for sink in sinks]}

    @contextmanager
    def _sinks_are(self, behaviour: str, sinks: Sequence[Sink] = ()) -> Iterator[None]:
        try:
            for sink in sinks or self._sinks:
                sink.behave(behaviour)
            yield
        finally:
            for sink in sinks or self._sinks:
                sink.behave("ok")


@contextmanager
def _handles(pids: Iterable[int]) -> Iterator[dict[int, int]]:
    """Of those that live: a handle never names a later process of the same number."""
    handles: dict[int, int] = {}
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                handles[pid] = os.pidfd_open(pid)
        yield handles
    finally:
        for handle in handles.values():
            os.close(handle)


def _signal(pid: int, number: int) -> bool:
    """Whether it was still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def _dies(pid: int) -> bool:
    """Whether it was killed just now."""

    def gone() -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return True
        return stat.rpartition(")")[2].split()[0] in "ZX"

    try:
        wait_until(gone, seconds=1, what="its end")
    except AssertionError:
        return False
    return True


def _fill(filler: Path) -> int:
    """Take all but `_SPARE` of the disk; how much that was."""
    taken = 0
    with filler.open("wb") as file:
        step = 64 << 20
        while step >= 1 << 12:
            room = os.statvfs(filler)
            free = room.f_bfree * room.f_frsize - _SPARE
            try:
                os.posix_fallocate(file.fileno(), taken, min(step, max(free, 1)))
            except OSError:
                step //= 2
                continue
            if free <= 1 << 12:
                break
            taken += min(step, free)
    return taken
