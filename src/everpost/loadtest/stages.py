"""How long each stage of the server took, from two readings of its metrics (Prometheus' text
format): which stage did the most work, and where mail waited."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["STAGES", "Reading", "Stage", "StageTime", "bottleneck", "compare", "longest_wait"]


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage and its histogram. A stage of `waiting` grows when a later one is slow: it is a
    symptom, and never named as the bottleneck. What is `shared` by many messages, as a session is,
    counts for each with its part."""

    name: str
    metric: str
    labels: tuple[tuple[str, str], ...] = ()
    waiting: bool = False
    shared: bool = False
    says: str = ""


STAGES = (
    Stage("parse", "everpost_http_parse_seconds", says="JSON to fields"),
    Stage("auth", "everpost_http_auth_seconds", says="the API key"),
    Stage("prepare", "everpost_intake_prepare_seconds", says="checks, sealing"),
    Stage(
        "intake wait", "everpost_store_wait_seconds", (("verb", "accept"),), waiting=True,
        says="for the writer and its lock",
    ),
    Stage("commit", "everpost_store_write_seconds", (("verb", "accept"),), says="made durable"),
    Stage(
        "claim wait", "everpost_claim_wait_seconds", waiting=True,
        says="in the queue, until dispatch takes it",
    ),
    Stage(
        "slot wait", "everpost_slot_wait_seconds", waiting=True,
        says="for a free session to a relay",
    ),
    Stage("compose", "everpost_compose_seconds", says="content to bytes"),
    Stage("sign", "everpost_sign_seconds", says="DKIM"),
    Stage(
        "connect", "everpost_relay_connect_seconds", shared=True, says="TCP, greeting, TLS, login"
    ),
    Stage("session", "everpost_relay_session_seconds", says="MAIL to the final answer"),
    Stage("settle", "everpost_settle_seconds", says="the outcome is written"),
)  # fmt: skip
"""In the order in which a message passes them."""

_PER_MESSAGE = "everpost_relay_session_seconds"


@dataclass(slots=True)
class _Cells:
    """A histogram: upper bounds in seconds with cumulative counts, and the sum of all values."""

    counts: dict[float, float] = field(default_factory=dict)
    total: float = 0.0


class Reading:
    """The metrics at one moment."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for what is not Prometheus' format."""
        from prometheus_client.parser import text_string_to_metric_families

        self._histograms: dict[str, dict[tuple[tuple[str, str], ...], _Cells]] = {}
        self._values: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._take(family.type, family.name, sample)

    def _take(self, kind: str, name: str, sample: Any) -> None:
        if kind != "histogram":
            key = sample.name + "".join(f",{k}={v}" for k, v in sorted(sample.labels.items()))
            self._values[key] = float(sample.value)
            return
        labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        cells = self._histograms.setdefault(name, {}).setdefault(labels, _Cells())
        if sample.name.endswith("_bucket"):
            cells.counts[float(sample.labels["le"])] = float(sample.value)
        elif sample.name.endswith("_sum"):
            cells.total = float(sample.value)

    def value(self, name: str) -> float | None:
        """A counter or gauge; labels as in `name,label=value`."""
        return self._values.get(name)

    def cells(self, stage: Stage) -> _Cells:
        """The stage's histogram, added up over the labels that it does not name."""
        added = _Cells()
        for labels, cells in self._histograms.get(stage.metric, {}).items():
            if set(stage.labels) <= set(labels):
                added.total += cells.total
                for bound, count in cells.counts.items():
                    added.counts[bound] = added.counts.get(bound, 0.0) + count
        return added


@dataclass(frozen=True, slots=True)
class StageTime:
    """What a stage took between two readings. Seconds; quantiles are estimated from buckets, None
    where the stage never ran. `per_message`: what it added to the way of one message."""

    stage: Stage
    count: int
    total: float
    p50: float | None
    p99: float | None
    per_message: float = 0.0

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None


def compare(before: Reading, after: Reading) -> list[StageTime]:
    """What each stage took in between."""
    times = [_stage_time(stage, before.cells(stage), after.cells(stage)) for stage in STAGES]
    messages = max((t.count for t in times if t.stage.metric == _PER_MESSAGE), default=0)
    return [
        replace(t, per_message=t.total / max(messages, 1) if t.stage.shared else t.mean or 0.0)
        for t in times
    ]


def _stage_time(stage: Stage, before: _Cells, after: _Cells) -> StageTime:
    counts = {
        bound: max(count - before.counts.get(bound, 0.0), 0.0)
        for bound, count in after.counts.items()
    }
    count = int(max(counts.values(), default=0.0))
    total = max(after.total - before.total, 0.0)
    if not count:
        return StageTime(stage, 0, 0.0, None, None)
    return StageTime(stage, count, total, quantile(counts, 0.5), quantile(counts, 0.99))


def quantile(counts: Mapping[float, float], share: float) -> float | None:
    """The value that `share` of the values do not exceed, by cumulative counts per upper bound: in
    a straight line within its bucket; the last finite bound for what lies beyond that."""
    bounds = sorted(counts)
    if not bounds or counts[bounds[-1]] <= 0:
        return None
    wanted = share * counts[bounds[-1]]
    below, lower = 0.0, 0.0
    for bound in bounds:
        if counts[bound] >= wanted and counts[bound] > below:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (wanted - below) / (counts[bound] - below)
        below, lower = counts[bound], bound if bound != float("inf") else lower
    return lower


def bottleneck(times: Sequence[StageTime]) -> StageTime | None:
    """The stage whose work took most of a message's way; None when none worked."""
    return max(_busy(times, waiting=False), key=lambda time: time.per_message, default=None)


def longest_wait(times: Sequence[StageTime]) -> StageTime | None:
    """Where mail waited longest."""
    return max(_busy(times, waiting=True), key=lambda time: time.per_message, default=None)


def _busy(times: Sequence[StageTime], *, waiting: bool) -> Iterator[StageTime]:
    return (time for time in times if time.stage.waiting is waiting and time.count)
