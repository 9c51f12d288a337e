"""Events with fields, counters, gauges and histograms, for every room to emit.

Rooms declare what they count at import and emit to it; nobody imports monitoring to count. Until
`monitoring` attaches a backend, values go nowhere. Logs are events with fields (one JSON object a
line on stderr), never sentences; values of secret fields never reach them.
"""

import atexit
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

__all__ = [
    "METRICS",
    "Alarm",
    "Metric",
    "alarm",
    "counter",
    "event",
    "gauge",
    "histogram",
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


class _Writer:
    """Writes lines in a thread of its own, so that a log nobody reads stops nothing (F86). What
    does not fit the queue is dropped and counted."""

    def __init__(self) -> None:
        self._lines: deque[tuple[TextIO, str]] = deque()
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def put(self, stream: TextIO, line: str) -> None:
        with self._ready:
            if len(self._lines) >= _MOST_LINES:
                self._dropped += 1
                return
            self._lines.append((stream, line))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
                atexit.register(self._flush)
            self._ready.notify()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._lines:
                    self._ready.wait()
                stream, line = self._lines[0]
                dropped, self._dropped = self._dropped, 0
            if dropped:
                line += json.dumps({"event": "log.dropped", "lines": dropped}) + "\n"
            try:
                stream.write(line)
                stream.flush()
            except (OSError, ValueError):
                pass
            with self._ready:
                self._lines.popleft()
                self._ready.notify_all()

    def _flush(self) -> None:
        """At the end of the process: a moment for what is still queued."""
        with self._ready:
            self._ready.wait_for(lambda: not self._lines, timeout=_LAST_MOMENT_S)


_MOST_LINES = 10_000
_LAST_MOMENT_S = 0.5
_writer = _Writer()
_SECRET = frozenset({"password", "secret", "token", "key", "authorization", "api_key"})
_log: TextIO | None = sys.stderr
_context: dict[str, object] = {}


def set_log(stream: TextIO | None, **context: object) -> None:
    """Send events to `stream` (None: nowhere) with `context` fields in each."""
    global _log  # noqa: PLW0603  one process, one log
    _log = stream
    _context.clear()
    _context.update(context)


def event(name: str, **fields: object) -> None:
    """Log one event. A log that cannot be written is dropped, never waited for."""
    if _log is None:
        return
    record: dict[str, Any] = {"at": round(time.time(), 3), "event": name, **_context}
    record.update((k, "[secret]" if k in _SECRET else _plain(v)) for k, v in fields.items())
    _writer.put(_log, json.dumps(record, ensure_ascii=True) + "\n")


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
