"""Starts the roles as child processes, keeps them alive, and ends them in order.

It holds the listening sockets and hands them down, so that no connection is lost when a child is
replaced. It opens no store and keeps no mail: it must be the last thing that can go wrong.
`watching` decides what is done about a child, `reloading` how a new configuration is read.
"""

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from everpost import telemetry
from everpost.recovery.children import (
    ChildFacts,
    Children,
    Reload,
    ReloadState,
    write_children,
)
from everpost.recovery.reloading import Plan, Reader, Reading, Roll
from everpost.recovery.spawning import DRAINING, LEAVE, Child, Running, spawn
from everpost.recovery.watching import (
    Record,
    Verdict,
    backoff_s,
    ended,
    judge,
    slept,
    steadied,
)

__all__ = ["Report", "Supervisor"]

_LOOK_S = 1.0
_MARGIN_S = 10.0
"""What a child may take beyond the drain to say goodbye to relays and close its store."""


@dataclass(frozen=True, slots=True)
class Report:
    """Where the supervisor says how things are: a file, with the configuration's `origin` (its file
    and the options that win over it), and calls. `lost` once a process is gone that may have had
    mail in hand, `ended` with its label, `closing` when nothing more may come in: all children are
    told to end, and none will take their place."""

    file: Path
    origin: tuple[str | None, dict[str, str | int]]
    now: Callable[[], int]
    ready: Callable[[], None]
    lost: Callable[[], None]
    ended: Callable[[str], None]
    closing: Callable[[], None]


class _Slot:
    """A child from life to life. While it is replaced, `successor` starts beside `running`."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.record = Record()
        self.running: Running | None = None
        self.successor: Running | None = None
        self.restarts = self.hung_kills = self.late_kills = 0
        self.last_exit: int | None = None
        self.next_start_at: int | None = None


class Supervisor:
    """`plan` is what runs until a reload brings another."""

    def __init__(self, plan: Plan, *, reader: Reader, report: Report) -> None:
        self._plan = plan
        self._reader = reader
        self._report = report
        self._selector = selectors.DefaultSelector()
        self._slots = {child.name: _Slot(child) for child in plan.children}
        self._leaving: list[Running] = []
        self._stopping = self._hurried = self._announced = self._asked = False
        self._reading: Reading | None = None
        self._roll: Roll | None = None
        self._reload = Reload()
        self._told: Children | None = None
        # The children watch the read end: it closes when this process is gone, however it went.
        self._life_read, self._life_write = os.pipe()

    def run(self) -> int:
        """Until SIGTERM or SIGINT, then drain. The exit code: 0, or 1 when a child was killed."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        signal.signal(LEAVE, signal.SIG_IGN)
        self._selector.register(wake_read, selectors.EVENT_READ, "signal")
        for slot in self._slots.values():
            slot.running = self._spawn(slot.child)
        self._tell()
        while not self._stopping:
            self._turn()
        return self._drain()

    def _turn(self) -> None:
        before, patience = time.monotonic(), self._patience()
        self._take_in(patience)
        now = time.monotonic()
        if slept(asked_s=patience, passed_s=now - before):
            telemetry.event("supervisor.slept", seconds=round(now - before, 1))
            for each in self._processes():
                each.excuse(now)
        self._look_after(now)
        self._start_due(now)
        self._go_on_reloading(now)
        self._tell()

    def _on_signal(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self._asked = True
        else:
            self._hurried = self._stopping
            self._stopping = True

    # -- processes ---------------------------------------------------------------------------------

    def _processes(self) -> Iterator[Running]:
        for slot in self._slots.values():
            yield from (each for each in (slot.running, slot.successor) if each is not None)
        yield from self._leaving

    def _spawn(self, child: Child) -> Running:
        """Raises OSError. Of several that run for one child each has a label of its own: two may
        not write one file of metrics."""
        taken = {each.label for each in self._processes()}
        labels = (child.name, *(f"{child.name}-{letter}" for letter in "bcdefgh"))
        label = next((each for each in labels if each not in taken), None)
        if label is None:
            raise OSError(f"too many processes of {child.name} are still ending")
        running = spawn(child, label, self._life_read)
        self._selector.register(running.pidfd, selectors.EVENT_READ, ("ended", running))
        self._selector.register(running.notify, selectors.EVENT_READ, ("heard", running))
        return running

    def _take_in(self, patience: float) -> None:
        for key, _ in self._selector.select(patience):
            if key.data == "signal":
                os.read(key.fd, 4096)
            elif key.data == "read":
                self._read()
            else:
                what, running = key.data
                if what == "ended":
                    self._ended(running)
                elif running.notify >= 0:
                    self._heard(running)

    def _heard(self, running: Running) -> None:
        was_ready = running.life.ready
        said = running.hear()
        if not said:
            self._hear_no_more(running)
        elif running.life.ready and not was_ready:
            self._ready(running)
        slot = self._slots.get(running.child.name)
        if DRAINING in said and slot is not None and slot.running is running:
            self._replace_leaving(slot, running)

    def _hear_no_more(self, running: Running) -> None:
        if running.notify >= 0:
            self._selector.unregister(running.notify)
            os.close(running.notify)
            running.notify = -1

    def _ready(self, running: Running) -> None:
        if self._stopping:  # it did not listen yet when the others were told
            running.tell_to_leave()
        slot = self._slots.get(running.child.name)
        if slot is not None and slot.successor is running:
            self._succeed(slot, running)
        if not self._announced and all(
            slot.running is not None and slot.running.life.ready for slot in self._slots.values()
        ):
            self._announced = True
            self._report.ready()

    def _replace_leaving(self, slot: _Slot, running: Running) -> None:
        """Somebody told it to end, or it did itself: another starts while it finishes its work."""
        if not self._stopping:
            running.deadline = time.monotonic() + self._plan.drain_s + _MARGIN_S
            self._leaving.append(running)
            slot.running = None
            self._over(slot, running)

    def _over(self, slot: _Slot, running: Running) -> None:
        now = time.monotonic()
        self._schedule(slot, ended(slot.record, running.life, now=now), now)
        slot.restarts += 1

    def _schedule(self, slot: _Slot, record: Record, now: float) -> None:
        slot.record = record
        wait_s = None if record.due is None else max(record.due - now, 0)
        slot.next_start_at = None if wait_s is None else self._report.now() + int(wait_s * 1000)

    def _ended(self, running: Running) -> None:
        code = running.process.wait()
        self._selector.unregister(running.pidfd)
        os.close(running.pidfd)
        self._hear_no_more(running)
        lived = round(time.monotonic() - running.life.started, 1)
        telemetry.event("child.ended", child=running.child.name, code=code, lived_s=lived)
        self._report.ended(running.label)
        if code != 0:
            self._report.lost()
        slot = self._slots.get(running.child.name)
        if running in self._leaving:
            self._leaving.remove(running)
        elif slot is not None and slot.running is running:
            slot.running = None
            self._over(slot, running)
        elif slot is not None and slot.successor is running:
            slot.successor = None
            self._give_up(f"{running.child.name} did not start with it (exit code {code})")
        if slot is not None:
            slot.last_exit = code

    def _look_after(self, now: float) -> None:
        for slot in self._slots.values():
            if slot.running is not None:
                slot.record = steadied(slot.record, slot.running.life)
        for running in self._processes():
            if running.killed:
                continue
            verdict = judge(running.life, self._plan.patience, now=now)
            if verdict is not Verdict.FINE:
                self._put_down(running, verdict, now)
            elif running.deadline is not None and now > running.deadline:
                telemetry.event("child.killed", child=running.child.name)
                running.kill()

    def _put_down(self, running: Running, verdict: Verdict, now: float) -> None:
        slot = self._slots.get(running.child.name)
        life = running.life
        silent = now - (life.started if life.heard is None else life.heard)
        telemetry.event(
            f"child.{verdict.value}",
            child=running.child.name,
            child_pid=running.process.pid,
            silent_s=round(silent, 1),
            state=running.state,
        )
        if slot is not None:
            slot.hung_kills += verdict is Verdict.HUNG
            slot.late_kills += verdict is Verdict.LATE
        running.kill()

    def _patience(self) -> float:
        dues = [s.record.due for s in self._slots.values() if s.record.due is not None]
        if not dues:
            return _LOOK_S
        return min(max(min(dues) - time.monotonic(), 0), _LOOK_S)

    def _start_due(self, now: float) -> None:
        for slot in self._slots.values():
            due = slot.record.due
            if due is None or due > now or self._stopping:
                continue
            try:
                slot.running = self._spawn(slot.child)
            except OSError as error:
                # A machine that cannot fork just now is no reason to give up the other children.
                failures = slot.record.short_lives + 1
                self._schedule(slot, Record(failures, now + backoff_s(failures)), now)
                telemetry.event("child.start_failed", child=slot.child.name, error=str(error))
            else:
                self._schedule(slot, Record(slot.record.short_lives), now)

    def _retire(self, running: Running) -> None:
        running.tell_to_end(time.monotonic() + self._plan.drain_s + _MARGIN_S)
        self._leaving.append(running)

    # -- a new configuration -----------------------------------------------------------------------

    def _go_on_reloading(self, now: float) -> None:
        if self._reading is not None:
            if now > self._reading.deadline:
                self._reading.kill()
        elif self._roll is not None:
            self._go_on_rolling(self._roll)
        elif self._asked and self._announced:
            self._asked = False
            self._begin_to_read()

    def _begin_to_read(self) -> None:
        self._reload = Reload(self._reload.number + 1, ReloadState.READING, at=self._report.now())
        telemetry.event("config.reloading", number=self._reload.number)
        try:
            self._reading = Reading(self._reader)
        except OSError as error:
            self._conclude(ReloadState.REFUSED, (f"the configuration cannot be read: {error}",))
        else:
            self._selector.register(self._reading.pidfd, selectors.EVENT_READ, "read")

    def _read(self) -> None:
        reading, self._reading = self._reading, None
        assert reading is not None
        self._selector.unregister(reading.pidfd)
        found = reading.result()
        if isinstance(found, Plan):
            self._reload = Reload(self._reload.number, ReloadState.ROLLING, at=self._report.now())
            self._roll = Roll(found, list(found.children))
        else:
            self._conclude(ReloadState.REFUSED, found)

    def _go_on_rolling(self, roll: Roll) -> None:
        """Starts the next successor once the last one serves."""
        if any(slot.successor is not None for slot in self._slots.values()):
            return
        if roll.todo:
            child = roll.todo.pop(0)
            slot = self._slots.setdefault(child.name, _Slot(child))
            try:
                slot.successor = self._spawn(child)
            except OSError as error:
                self._give_up(f"{child.name} cannot be started: {error}")
            return
        for name in [name for name in self._slots if name not in roll.names]:
            gone = self._slots.pop(name)
            if gone.running is not None:
                self._retire(gone.running)
        self._plan, self._roll = roll.plan, None
        self._conclude(ReloadState.FAILED if roll.back else ReloadState.APPLIED, roll.why)

    def _succeed(self, slot: _Slot, running: Running) -> None:
        """It serves: the one before it may end."""
        if slot.running is not None:
            self._retire(slot.running)
        slot.child = running.child
        slot.running, slot.successor = running, None
        self._schedule(slot, Record(), time.monotonic())
        slot.restarts += 1
        if self._roll is not None:
            self._roll.done.append(slot.child.name)

    def _give_up(self, why: str) -> None:
        """A successor does not start: back to what was."""
        roll = self._roll
        if roll is None:
            return
        telemetry.event("config.reload_failed", number=self._reload.number, why=why)
        if not roll.back:
            self._roll = roll.turned(self._plan, (why,))
            return
        # Not even the old ones start now. What lives goes on; what ends is started as it was.
        for child in self._plan.children:
            self._slots[child.name].child = child
        roll.todo.clear()
        roll.why = (*roll.why, why)

    def _conclude(self, state: ReloadState, why: tuple[str, ...]) -> None:
        self._reload = Reload(self._reload.number, state, why, self._report.now())
        telemetry.event(f"config.{state.value}", number=self._reload.number, why=why)

    # -- telling, ending ---------------------------------------------------------------------------

    def _tell(self) -> None:
        """Write how things are, if that has changed."""
        file, options = self._report.origin
        children = tuple(_facts(slot) for slot in self._slots.values())
        facts = Children(os.getpid(), children, self._reload, file, options)
        if facts == self._told:
            return
        self._told = facts
        try:
            write_children(self._report.file, facts)
        except OSError as error:
            telemetry.event("supervisor.cannot_tell", error=str(error))

    def _linger(self) -> None:
        """All go on for a while, not ready any more: a load balancer sees it, and sends no more by
        the time that the doors close. A second signal cuts it short."""
        until = time.monotonic() + self._plan.linger_s
        telemetry.event("supervisor.leaving", seconds=self._plan.linger_s)
        for running in self._processes():
            running.tell_to_leave()
        while not self._hurried and (left := until - time.monotonic()) > 0:
            self._take_in(min(left, _LOOK_S))
            self._look_after(time.monotonic())

    def _drain(self) -> int:
        """SIGTERM to all, wait for the deadline, SIGKILL to what is left."""
        if self._reading is not None:
            self._reading.kill()
        if self._plan.linger_s:
            self._linger()
        telemetry.event("supervisor.draining", children=len(list(self._processes())))
        self._report.closing()
        deadline = time.monotonic() + self._plan.drain_s + _MARGIN_S
        for slot in self._slots.values():
            slot.record = Record()
        for running in self._processes():
            running.tell_to_end(deadline)
        killed = False
        while left := list(self._processes()):
            patience = deadline - time.monotonic()
            if patience <= 0 and not killed:
                killed = True
                for running in left:
                    telemetry.event("child.killed", child=running.child.name)
                    running.kill()
            self._take_in(max(patience, 0) if not killed else _LOOK_S)
        return 1 if killed else 0


def _facts(slot: _Slot) -> ChildFacts:
    running = slot.running
    return ChildFacts(
        name=slot.child.name,
        pid=0 if running is None else running.process.pid,
        ready=running is not None and running.life.ready,
        restarts=slot.restarts,
        short_lives=slot.record.short_lives,
        loops=slot.record.loops,
        hung_kills=slot.hung_kills,
        late_kills=slot.late_kills,
        next_start_at=slot.next_start_at,
        last_exit=slot.last_exit,
    )
