"""Telemetry's metrics across processes, in Prometheus' text format.

Emitting adds to plain numbers in this process. `flush`, about once a second, carries them to a file
of this process in a shared directory (prometheus_client's multiprocess mode), and any process can
add the files up. Files are named by role and slot (`dispatch-1`), not by process id: a restarted
process continues its predecessor's counts, and files do not pile up. A process killed with -9 loses
up to one second of counts; never of mail.

Emit from the event loop's thread: counts added by other threads at the same moment may be lost.
"""

import asyncio
import os
import re
import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from everpost import telemetry
from everpost.store.interface import QueueFacts

__all__ = ["Metrics"]

_Labels = tuple[str, ...]
_FILES = ("counter", "histogram", "gauge_livemax", "gauge_livesum")
_FILE_BYTES = 512 * 1024
_PROCESS = re.compile(r"[a-z0-9-]+")


class Metrics:
    """This process' end of the metrics. Make one a process, before work begins."""

    def __init__(self, directory: Path, process: str) -> None:
        """Attach to every declared metric. `process` is unique among running processes."""
        if not _PROCESS.fullmatch(process):
            raise ValueError(f"{process!r} is no name for a process' metrics")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._process = process
        forget(directory, process)
        try:
            _allocate(directory, process)
        except OSError as error:  # no room: work goes on, uncounted
            telemetry.event("metrics.off", error=str(error))
            self._on = False
        else:
            self._on = True
        self._registry = _registry(directory, process)
        self._cells: list[_Counter | _Gauge | _Histogram] = []
        self._attached: set[str] = set()
        self._flushing = threading.Lock()
        self.attach()

    def attach(self) -> None:
        """Attach to metrics declared since; rooms imported later declare theirs later."""
        if not self._on:
            return
        with self._flushing:
            for name, metric in tuple(telemetry.METRICS.items()):
                if name not in self._attached:
                    self._attached.add(name)
                    self._cells.append(_CELLS[metric.kind](metric, self._registry))

    def flush(self) -> None:
        """Carry what was added since to the shared files. Any thread may call it."""
        with self._flushing:
            for cell in self._cells:
                cell.flush()

    async def run(self, period: float = 1.0) -> None:
        """Flush for ever; the last flush is on cancellation."""
        try:
            while True:
                await asyncio.sleep(period)
                try:
                    self.attach()
                    self.flush()
                except OSError as error:  # no descriptor for a file: work goes on, uncounted
                    telemetry.event("metrics.flush_failed", error=str(error))
        finally:
            self.flush()

    def exposition(self, facts: QueueFacts | None = None) -> bytes:
        """All processes' metrics as text (Prometheus exposition format 0.0.4), with the queue's
        facts as gauges. Reads files: call it in a thread."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        self.attach()
        self.flush()
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._directory))  # type: ignore[no-untyped-call]
        if facts is not None:
            registry.register(_Queue(facts))
        return generate_latest(registry)

    def alarms(self) -> tuple[str, ...]:
        """Names of the alarms that stand in any process."""
        from prometheus_client.multiprocess import MultiProcessCollector

        self.flush()
        files = [str(path) for path in self._directory.glob("gauge_*.db")]
        merged = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return tuple(
            sorted(
                sample.labels["name"]
                for family in merged
                if family.name == "everpost_alarm"
                for sample in family.samples
                if sample.value
            )
        )


def _allocate(directory: Path, process: str) -> None:
    """Make the files with room for all their values. They are mapped into memory: a page that the
    disk has no block for would kill the process (SIGBUS) at its first touch. Raises OSError."""
    for kind in _FILES:
        fd = os.open(
            directory / f"{kind}_{process}.db", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            os.posix_fallocate(fd, 0, _FILE_BYTES)
        finally:
            os.close(fd)


def forget(directory: Path, process: str) -> None:
    """Remove the gauges of a process that ended: they say how things are, and it is no more."""
    for path in directory.glob(f"gauge_*_{process}.db"):
        path.unlink(missing_ok=True)


def _registry(directory: Path, process: str) -> Any:
    """A registry whose values live in this process' files (prometheus_client's documentation,
    "Multiprocess mode", names both settings)."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    from prometheus_client import CollectorRegistry, values

    values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]
    return CollectorRegistry()


class _Counter:
    def __init__(self, metric: telemetry.Metric, registry: Any) -> None:
        from prometheus_client import Counter

        self._counter = Counter(metric.name, metric.help, metric.labels, registry=registry)
        self._pending: dict[_Labels, float] = {}
        metric.add = self._add

    def _add(self, amount: float, *labels: str) -> None:
        pending = self._pending
        try:
            pending[labels] += amount
        except KeyError:
            pending[labels] = amount

    def flush(self) -> None:
        pending, self._pending = self._pending, {}
        for labels, amount in tuple(pending.items()):  # an emitter may hold it still
            (self._counter.labels(*labels) if labels else self._counter).inc(amount)


class _Gauge:
    def __init__(self, metric: telemetry.Metric, registry: Any) -> None:
        from prometheus_client import Gauge

        # An alarm stands if it stands anywhere; other gauges add up over the live processes.
        mode: Any = "livemax" if metric.name == "everpost_alarm" else "livesum"
        self._gauge = Gauge(
            metric.name, metric.help, metric.labels, registry=registry, multiprocess_mode=mode
        )
        self._values: dict[_Labels, float] = {}
        self._changed: set[_Labels] = set()
        metric.set = self._set
        metric.add = self._add

    def _set(self, value: float, *labels: str) -> None:
        if self._values.get(labels) != value:
            self._values[labels] = value
            self._changed.add(labels)

    def _add(self, amount: float, *labels: str) -> None:
        self._set(self._values.get(labels, 0.0) + amount, *labels)

    def flush(self) -> None:
        for labels in tuple(self._changed):
            child = self._gauge.labels(*labels) if labels else self._gauge
            self._changed.discard(labels)
            child.set(self._values[labels])


class _Histogram:
    def __init__(self, metric: telemetry.Metric, registry: Any) -> None:
        from prometheus_client import Histogram

        self._histogram = Histogram(
            metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets
        )
        self._bounds = metric.buckets
        self._pending: dict[_Labels, list[float]] = {}
        metric.observe = self._observe

    def _observe(self, seconds: float, *labels: str) -> None:
        """Counts a bucket, the sum last."""
        cell = self._pending.get(labels)
        if cell is None:
            cell = self._pending[labels] = [0.0] * (len(self._bounds) + 2)
        cell[bisect_left(self._bounds, seconds)] += 1
        cell[-1] += seconds

    def flush(self) -> None:
        pending, self._pending = self._pending, {}
        for labels, cell in tuple(pending.items()):
            child = self._histogram.labels(*labels) if labels else self._histogram
            # The library can only observe one value at a time; these are its own two fields.
            for bucket, count in zip(child._buckets, cell, strict=False):
                if count:
                    bucket.inc(count)
            child._sum.inc(cell[-1])


_CELLS: Mapping[str, Any] = {"counter": _Counter, "gauge": _Gauge, "histogram": _Histogram}


class _Queue:
    """The queue's facts, as they are when somebody asks."""

    def __init__(self, facts: QueueFacts) -> None:
        self._facts = facts

    def collect(self) -> Sequence[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        facts = self._facts
        states = GaugeMetricFamily(
            "everpost_recipients", "Recipients by stored state", labels=["state"]
        )
        for state, count in sorted(facts.states.items()):
            states.add_metric([state], count)
        return (
            states,
            GaugeMetricFamily("everpost_due", "Recipients that wait to be sent now", facts.due),
            GaugeMetricFamily(
                "everpost_oldest_due_seconds",
                "Age of the oldest recipient that waits to be sent now",
                facts.oldest_due_ms / 1000,
            ),
            CounterMetricFamily(
                "everpost_recipients_accepted", "Recipients ever accepted", facts.accepted
            ),
        )
