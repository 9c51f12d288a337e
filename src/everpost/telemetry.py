"""Events with fields, counters, gauges and histograms, for every room to emit.

Rooms declare what they count at import and emit to it; nobody imports monitoring to count. Until
`monitoring` attaches a backend, values go nowhere. Logs are events with fields (one JSON object a
line on stderr), never sentences; values of secret fields never reach them.
"""

import atexit
import json
import math
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

__all__ = [
    "METRICS",
    "Alarm",
    "Metric",
    "alarm",
    "counter",
    "event",
    "gauge",
    "histogram",
    "raised",
    "set_log",
]

STAGE_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""Seconds; from a fraction of a commit to a slow final dot."""


class Metric:
    """One named metric. `add`, `set` and `observe` take label values in the declared order."""

    __slots__ = ("add", "buckets", "help", "kind", "labels", "name", "observe", "set")

    def __init__(
        self, name: str, kind: str, help_: str, labels: Sequence[str], buckets: Sequence[float] = ()
    ) -> None:
        self.name = name
        self.kind = kind
        self.help = help_
        self.labels = tuple(labels)
        self.buckets = tuple(buckets)
        self.add: Callable[..., None] = _nowhere
        self.set: Callable[..., None] = _nowhere
        self.observe: Callable[..., None] = _nowhere


def _nowhere(*_: object) -> None:
    """Where values go while no backend is attached."""


METRICS: dict[str, Metric] = {}
"""Every declared metric by name; monitoring attaches to these."""


def _declare(metric: Metric) -> Metric:
    if metric.name in METRICS:
        raise ValueError(f"metric {metric.name} is declared twice")
    METRICS[metric.name] = metric
    return metric


def counter(name: str, help_: str, labels: Sequence[str] = ()) -> Metric:
    """A count that only grows: `.add(n, *label_values)`. Name ends in `_total`."""
    return _declare(Metric(name, "counter", help_, labels))


def gauge(name: str, help_: str, labels: Sequence[str] = ()) -> Metric:
    """A value that goes up and down: `.set(value, *label_values)`, `.add(n, *label_values)`."""
    return _declare(Metric(name, "gauge", help_, labels))


def histogram(
    name: str, help_: str, labels: Sequence[str] = (), buckets: Sequence[float] = STAGE_BUCKETS
) -> Metric:
    """A distribution in seconds: `.observe(seconds, *label_values)`."""
    return _declare(Metric(name, "histogram", help_, labels, buckets))


_ALARM = gauge("everpost_alarm", "1 while the named condition stands", ("name",))


class Alarm:
    """A named condition that an operator must know of, until it is cleared."""

    __slots__ = ("name", "raised")

    def __init__(self, name: str) -> None:
        self.name = name
        self.raised = False

    def raise_(self, **fields: object) -> None:
        """Set the gauge; log once per change, not once per time it is seen."""
        _ALARM.set(1, self.name)
        if not self.raised:
            self.raised = True
            event("alarm.raised", alarm=self.name, **fields)

    def clear(self) -> None:
        _ALARM.set(0, self.name)
        if self.raised:
            self.raised = False
            event("alarm.cleared", alarm=self.name)


_ALARMS: dict[str, Alarm] = {}


def alarm(name: str) -> Alarm:
    """The one alarm of this name in this process."""
    return _ALARMS.setdefault(name, Alarm(name))


def raised() -> tuple[str, ...]:
    """Names of the alarms that stand in this process."""
    return tuple(each.name for each in tuple(_ALARMS.values()) if each.raised)


class _Target(Protocol):
    """Where lines go. `write` raises OSError or ValueError; then the line counts as dropped."""

    def write(self, line: str) -> None: ...


class _Stream:
    """A stream that somebody else opened. Where it has a descriptor, lines are written past its
    buffer: what a full disk refused would stay in there, and half a line come out later."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._out = _Descriptor(-1)

    def write(self, line: str) -> None:
        try:
            self._out.fd = self._stream.fileno()  # asked each time: its owner may have closed it
        except OSError:  # in memory
            self._stream.write(line)
            self._stream.flush()
        else:
            self._out.write(line)


class _File:
    """A file by its path, opened when there is something to write, and anew when it has been
    renamed or removed (as logrotate does), both seen within a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._out: _Descriptor | None = None
        self._looked = -math.inf

    def write(self, line: str) -> None:
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            self._look()
        if self._out is None:
            raise FileNotFoundError(self._path)
        self._out.write(line)

    def _look(self) -> None:
        if self._out is not None:
            here = os.fstat(self._out.fd)
            try:
                there = os.stat(self._path)
            except OSError:
                there = None
            if there is not None and os.path.samestat(here, there):
                return
            os.close(self._out.fd)
            self._out = None
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._out = _Descriptor(os.open(self._path, flags, 0o644))


class _Descriptor:
    """Writes whole lines: one that was torn by a full disk is ended before the next."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._torn = False

    def write(self, line: str) -> None:
        data = ("\n" + line if self._torn else line).encode()
        done = 0
        while done < len(data):
            try:
                done += os.write(self.fd, data[done:])
            except BlockingIOError:  # somebody who has it, too, made it non-blocking
                poll = select.poll()
                poll.register(self.fd, select.POLLOUT)
                poll.poll(_LOOK_S * 1000)
            except OSError:
                self._torn = self._torn or done > 0
                raise
        self._torn = False


class _Writer:
    """Writes lines in a thread of its own, so that a log nobody reads, or whose disk is full, stops
    nothing (F86). What does not fit the queue and what cannot be written is dropped and counted,
    and the next line that gets through is followed by one that says how many."""

    def __init__(self) -> None:
        self._lines: deque[tuple[_Target, str]] = deque()
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def put(self, target: _Target, line: str) -> None:
        with self._ready:
            fits = len(self._lines) < _MOST_LINES
            if fits:
                self._lines.append((target, line))
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                    self._thread.start()
                    atexit.register(self._flush)
                self._ready.notify()
        if not fits:
            self._drop()

    def _drop(self) -> None:
        with self._ready:
            self._dropped += 1
        _DROPPED.add(1)
        alarm(_ALARM_NAME).raise_()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._lines:
                    self._ready.wait()
                target, line = self._lines[0]
            try:
                target.write(line)
            except (OSError, ValueError):
                self._drop()
            else:
                self._say_dropped(target)
            with self._ready:
                self._lines.popleft()
                self._ready.notify_all()

    def _say_dropped(self, target: _Target) -> None:
        """A line got through: say how many before it did not. The alarm ends when all of those
        have been told of, and the queue is not about to overflow again."""
        dropped = self._dropped
        if dropped:
            try:
                target.write(_line("log.dropped", {"lines": dropped}))
            except (OSError, ValueError):
                return
        with self._ready:
            self._dropped -= dropped
            caught_up = not self._dropped and len(self._lines) <= _MOST_LINES // 2
        if caught_up and alarm(_ALARM_NAME).raised:
            alarm(_ALARM_NAME).clear()

    def _flush(self) -> None:
        """At the end of the process: a moment for what is still queued."""
        with self._ready:
            self._ready.wait_for(lambda: not self._lines, timeout=_LAST_MOMENT_S)


_MOST_LINES = 10_000
_LAST_MOMENT_S = 0.5
_LOOK_S = 1.0
_ALARM_NAME = "log_dropped"
_DROPPED = counter("everpost_log_dropped_total", "Lines of the log that could not be written")
_writer = _Writer()
_SECRET = frozenset({"password", "secret", "token", "key", "authorization", "api_key"})


def _target(to: TextIO | Path | None) -> _Target | None:
    if to is None:
        return None
    return _File(to) if isinstance(to, Path) else _Stream(to)


_log: _Target | None = _target(sys.stderr)
_context: dict[str, object] = {}


def set_log(to: TextIO | Path | None, **context: object) -> None:
    """Send events to a stream or a file (None: nowhere) with `context` fields in each. A file that
    is renamed or removed is made anew, its directory is not."""
    global _log  # noqa: PLW0603  one process, one log
    _log = _target(to)
    _context.clear()
    _context.update(context)


def event(name: str, **fields: object) -> None:
    """Log one event. A log that cannot be written is dropped, never waited for."""
    if _log is not None:
        _writer.put(_log, _line(name, fields))


def _line(name: str, fields: Mapping[str, object]) -> str:
    record: dict[str, Any] = {"at": round(time.time(), 3), "event": name, **_context}
    record.update((k, "[secret]" if k in _SECRET else _plain(v)) for k, v in fields.items())
    return json.dumps(record, ensure_ascii=True) + "\n"


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value)
