"""Events with fields, counters, gauges and histograms, for every room to emit.

Rooms declare what they count at import and emit to it; nobody imports monitoring to count. Until
`monitoring` attaches a backend, values go nowhere. Logs are events with fields (one JSON object a
line on stderr), never sentences; values of secret fields never reach them.
"""

import json
import sys
import time
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
    try:
        _log.write(json.dumps(record, ensure_ascii=True) + "\n")
        _log.flush()
    except (OSError, ValueError):
        pass


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
