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
import struct
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from operator import add
from pathlib import Path
from typing import Any

from everpost import telemetry
from everpost.store.interface import QueueFacts

__all__ = ["Metrics"]

_Labels = tuple[str, ...]
_FILES = ("counter", "histogram", "gauge_livemax", "gauge_livesum")
_OF_THE_HOST = frozenset(
    {
        "everpost_alarm",
        "everpost_clock_skew_seconds",
        "everpost_disk_free_bytes",
        "everpost_ledger_findings",
        "everpost_ledger_last_pass_seconds",
        "everpost_store_durable",
        "everpost_store_standbys",
        "everpost_store_timeline",
        "everpost_store_wal_bytes",
        "everpost_store_wal_live_bytes",
    }
)
"""Gauges that two processes would tell alike, as they do while one takes the other's place: they
are not added up."""
_FILE_BYTES = 512 * 1024
_ENTRY_BYTES = 64
"""More than a value takes in its file beside its key."""
_PROCESS = re.compile(r"[a-z0-9-]+")


class Metrics:
    """This process' end of the metrics. Make one a process, before work begins. A directory that
    cannot be used stops no work: it goes on uncounted until the directory can."""

    def __init__(self, directory: Path, process: str) -> None:
        """Attach to every declared metric. `process` is unique among running processes."""
        if not _PROCESS.fullmatch(process):
            raise ValueError(f"{process!r} is no name for a process' metrics")
        self._directory = directory
        self._process = process
        self._registry: Any = None
        self._cells: list[_Counter | _Gauge | _Histogram] = []
        self._attached: set[str] = set()
        self._flushing = threading.Lock()
        self._off = telemetry.alarm("metrics_off")
        self._troubles: dict[str, str] = {}
        self.attach()

    def attach(self) -> None:
        """Attach to metrics declared since; rooms imported later declare theirs later. Makes the
        files when they are not there, or no more: they begin at 0 then, as after a restart."""
        with self._flushing:
            try:
                self._open()
                for name, metric in tuple(telemetry.METRICS.items()):
                    if name not in self._attached:
                        self._cells.append(_CELLS[metric.kind](metric, self._registry))
                        self._attached.add(name)
            except OSError as error:
                self._note("attach", error)
            else:
                self._note("attach", None)

    def _open(self) -> None:
        """Raises OSError."""
        if self._registry is not None and all(path.exists() for path in self._paths()):
            return
        self._registry = None
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        forget(self._directory, self._process)
        for path in self._paths():
            _allocate(path)
        registry = _registry(self._directory, self._process)
        for cell in self._cells:
            cell.renew(registry)
        self._registry = registry

    def _paths(self) -> Iterator[Path]:
        return (self._directory / f"{kind}_{self._process}.db" for kind in _FILES)

    def flush(self) -> None:
        """Carry what was added since to the shared files; what finds no room there is carried
        later. Any thread may call it."""
        with self._flushing:
            trouble = None
            for cell in self._cells:
                try:
                    cell.flush()
                except OSError as error:
                    trouble = error
            self._note("flush", trouble)

    def _note(self, step: str, trouble: Exception | None) -> None:
        """The alarm stands while any step has trouble."""
        if trouble is None:
            self._troubles.pop(step, None)
        else:
            self._troubles[step] = repr(trouble)
        if self._troubles:
            self._off.raise_(error=next(iter(self._troubles.values())))
        else:
            self._off.clear()

    async def run(self, period: float = 1.0) -> None:
        """Flush for ever; the last flush is on cancellation."""
        try:
            while True:
                await asyncio.sleep(period)
                self.attach()
                self.flush()
        finally:
            self.flush()

    def exposition(
        self, facts: QueueFacts | None = None, restarts: Mapping[str, int] | None = None
    ) -> bytes:
        """All processes' metrics as text (Prometheus exposition format 0.0.4), with the queue's
        facts as gauges and the supervisor's `restarts` by child. Reads files: call it in a
        thread."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        self.attach()
        self.flush()
        registry = CollectorRegistry()
        scraped = _scraped(facts, restarts)
        for each in scraped:
            registry.register(each)
        try:
            MultiProcessCollector(registry, path=str(self._directory))  # type: ignore[no-untyped-call]
            return generate_latest(registry)
        except _UNREADABLE as error:
            telemetry.event("metrics.unreadable", error=repr(error))
            registry = CollectorRegistry()
            for each in scraped:
                registry.register(each)
            return generate_latest(registry)

    def alarms(self) -> tuple[str, ...]:
        """Names of the alarms that stand in any process; of this one, when the files of the others
        cannot be read."""
        from prometheus_client.multiprocess import MultiProcessCollector

        self.attach()
        self.flush()
        files = [str(path) for path in self._directory.glob("gauge_*.db")]
        try:
            merged = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        except _UNREADABLE as error:
            telemetry.event("metrics.unreadable", error=repr(error))
            merged = ()
        elsewhere = {
            sample.labels["name"]
            for family in merged
            if family.name == "everpost_alarm"
            for sample in family.samples
            if sample.value
        }
        return tuple(sorted(elsewhere | set(telemetry.raised())))


_UNREADABLE = (OSError, ValueError, RuntimeError, struct.error)
"""What prometheus_client raises when files or their directory go away, or are torn."""


def _allocate(path: Path) -> None:
    """Make a file with room for its values, or leave one as it was. Files are mapped into memory: a
    page that the disk has no block for would kill the process (SIGBUS) at its first touch. Raises
    OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        try:
            os.posix_fallocate(fd, 0, max(size, _FILE_BYTES))
        except OSError:
            os.ftruncate(fd, size)  # what was allocated of it is missed elsewhere
            if not size:  # a reader would stumble over it
                path.unlink(missing_ok=True)
            raise
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
    from prometheus_client.mmap_dict import MmapedDict

    class Allocated(MmapedDict):
        """Grows by blocks that the disk has given, or raises OSError; the library's own would grow
        by a hole, which kills as `_allocate` says."""

        def _init_value(self, key: str) -> None:
            needed = self._used + 4 * len(key) + _ENTRY_BYTES
            if needed > self._capacity:
                os.posix_fallocate(self._f.fileno(), 0, 2 * self._capacity)
            super()._init_value(key)  # type: ignore[no-untyped-call]

    values.MmapedDict = Allocated  # type: ignore[attr-defined]
    values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]
    return CollectorRegistry()


class _Counter:
    def __init__(self, metric: telemetry.Metric, registry: Any) -> None:
        self._metric = metric
        self._pending: dict[_Labels, float] = {}
        self.renew(registry)
        metric.add = self._add

    def renew(self, registry: Any) -> None:
        """Count in new files from now on."""
        from prometheus_client import Counter

        metric = self._metric
        self._counter = Counter(metric.name, metric.help, metric.labels, registry=registry)

    def _add(self, amount: float, *labels: str) -> None:
        pending = self._pending
        try:
            pending[labels] += amount
        except KeyError:
            pending[labels] = amount

    def flush(self) -> None:
        pending, self._pending = self._pending, {}
        try:
            while pending:
                labels, amount = pending.popitem()
                (self._counter.labels(*labels) if labels else self._counter).inc(amount)
        finally:  # a series without room is given up, the others keep their counts
            for labels, amount in pending.items():
                self._add(amount, *labels)


class _Gauge:
    def __init__(self, metric: telemetry.Metric, registry: Any) -> None:
        self._metric = metric
        self._values: dict[_Labels, float] = {}
        self._changed: set[_Labels] = set()
        self.renew(registry)
        metric.set = self._set
        metric.add = self._add

    def renew(self, registry: Any) -> None:
        from prometheus_client import Gauge

        metric = self._metric
        # An alarm stands if it stands anywhere; other gauges add up over the live processes.
        mode: Any = "livemax" if metric.name in _OF_THE_HOST else "livesum"
        self._gauge = Gauge(
            metric.name, metric.help, metric.labels, registry=registry, multiprocess_mode=mode
        )
        self._changed.update(self._values)

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
        self._metric = metric
        self._bounds = metric.buckets
        self._pending: dict[_Labels, list[float]] = {}
        self.renew(registry)
        metric.observe = self._observe

    def renew(self, registry: Any) -> None:
        from prometheus_client import Histogram

        metric = self._metric
        self._histogram = Histogram(
            metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets
        )

    def _observe(self, seconds: float, *labels: str) -> None:
        """Counts a bucket, the sum last."""
        cell = self._pending.get(labels)
        if cell is None:
            cell = self._pending[labels] = [0.0] * (len(self._bounds) + 2)
        cell[bisect_left(self._bounds, seconds)] += 1
        cell[-1] += seconds

    def flush(self) -> None:
        pending, self._pending = self._pending, {}
        try:
            while pending:
                self._carry(*pending.popitem())
        finally:
            for labels, cell in pending.items():
                now = self._pending.get(labels)
                self._pending[labels] = cell if now is None else list(map(add, now, cell))

    def _carry(self, labels: _Labels, cell: list[float]) -> None:
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


RESTARTS_HELP = "Child processes started anew since the server's start, as the supervisor counts"


class _Restarts:
    """What the supervisor has counted: it has no metrics of its own."""

    def __init__(self, restarts: Mapping[str, int]) -> None:
        self._restarts = restarts

    def collect(self) -> Sequence[Any]:
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily("everpost_restarts", RESTARTS_HELP, labels=["name"])
        for name, count in self._restarts.items():
            family.add_metric([name], count)
        return (family,)


def _scraped(facts: QueueFacts | None, restarts: Mapping[str, int] | None) -> Sequence[Any]:
    """What is asked for at a scrape, beside the processes' files."""
    return (
        *(() if facts is None else (_Queue(facts),)),
        *((_Restarts(restarts),) if restarts else ()),
    )
