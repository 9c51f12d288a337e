"""The budget: what is to be reached, in three steps, and what was."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.cases import CASES
from bench.figures import Figures, Round

__all__ = ["BARS", "STEPS", "Bar", "Spread", "Verdict", "ratio", "spread", "verdicts"]

STEPS = ("first house", "full strength", "goal")


@dataclass(frozen=True, slots=True)
class Spread:
    """Over the rounds in which there was a value."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True)
class Bar:
    """`of`: the value of one round, None if the round has none. `steps`: the bars for `STEPS`."""

    label: str
    of: Callable[[Round], float | None]
    steps: tuple[float, float, float]
    more: bool
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reached`: the highest step that the median meets, "" if none."""

    bar: Bar
    measured: Spread
    reached: str


def ratio(row: Round, case: str, against: str) -> float | None:
    """Delivered/s of `case` in times that of `against`, both of this round."""
    ours, theirs = row.get(case), row.get(against)
    if isinstance(ours, Figures) and isinstance(theirs, Figures):
        return ours.delivered_per_s / theirs.delivered_per_s
    return None


def _times(case: str, against: str) -> Callable[[Round], float | None]:
    return lambda row: ratio(row, case, against)


def _figure(case: str, name: str) -> Callable[[Round], float | None]:
    def of(row: Round) -> float | None:
        figures = row.get(case)
        return getattr(figures, name) if isinstance(figures, Figures) else None

    return of


def _delay(case: str) -> Callable[[Round], float | None]:
    """p99 of the urgent mail in times what it may be (I17): twice that of an idle house, or 150 ms
    more."""

    def of(row: Round) -> float | None:
        figures = row.get(case)
        if not isinstance(figures, Figures) or None in (figures.p99_ms, figures.idle_p99_ms):
            return None
        idle = figures.idle_p99_ms or 0.0
        return (figures.p99_ms or 0.0) / max(2 * idle, idle + 150)

    return of


def _kept(case: str) -> Callable[[Round], float | None]:
    """The other mail's rate in times its lone one."""

    def of(row: Round) -> float | None:
        figures = row.get(case)
        if not isinstance(figures, Figures) or not figures.lone_per_s:
            return None
        return figures.delivered_per_s / figures.lone_per_s

    return of


def _microseconds(case: str) -> Callable[[Round], float | None]:
    """CPU time for one."""

    def of(row: Round) -> float | None:
        spent = _figure(case, "cpu_s_per_1000")(row)
        return None if spent is None else spent * 1000

    return of


def _peak(*, large: bool) -> Callable[[Round], float | None]:
    """The highest of all cases of Everpost with messages of this size."""

    def of(row: Round) -> float | None:
        peaks = [
            figures.peak_mb
            for name, figures in row.items()
            if isinstance(figures, Figures)
            and CASES[name].embedded
            and figures.peak_mb
            and (CASES[name].work.size > 2048) == large
        ]
        return max(peaks, default=None)

    return of


BARS = (
    Bar("single posts, x Postfix", _times("single", "postfix"), (2.5, 4, 6), True, " x"),
    Bar(
        "single posts on PostgreSQL, x the embedded store",
        _times("single-postgres", "single"),
        (0.5, 0.6, 0.9),
        True,
        " x",
    ),
    Bar("batches of 100, x Postfix", _times("batch-100", "postfix"), (4, 7, 10), True, " x"),
    Bar(
        "RSA-2048, single posts, x Postfix + OpenDKIM",
        _times("single-rsa", "postfix-dkim"),
        (2.5, 4.5, 6),
        True,
        " x",
    ),
    Bar(
        "CPU s per 1,000, single posts",
        _figure("single", "cpu_s_per_1000"),
        (1.0, 0.60, 0.40),
        False,
        " s",
    ),
    Bar("accept p50 at half the rate", _figure("half-rate", "p50_ms"), (10, 5, 4), False, " ms"),
    Bar("accept p99 at half the rate", _figure("half-rate", "p99_ms"), (50, 25, 15), False, " ms"),
    *(
        bar
        for case, urgent, other in (
            ("beside-broadcast", "transactional mail beside a broadcast", "that broadcast"),
            ("beside-flood", "a project beside another's flood", "that flood"),
        )
        for bar in (
            Bar(f"p99 of {urgent}, x what it may be", _delay(case), (1.0, 0.75, 0.5), False, " x"),
            Bar(f"rate of {other}, x its lone one", _kept(case), (0.8, 0.9, 0.95), True, " x"),
        )
    ),
    Bar("choosing one of 1,000 relays", _microseconds("choose-1000"), (20, 10, 5), False, " µs"),
    Bar("peak memory, 2 KB, highest case", _peak(large=False), (400, 300, 250), False, " MB"),
    Bar("peak memory, 200 KB, highest case", _peak(large=True), (400, 300, 250), False, " MB"),
)


def verdicts(rounds: Sequence[Round]) -> list[Verdict]:
    """Each bar for which there is a value; ratios pair by pair within a round."""
    found: list[Verdict] = []
    for bar in BARS:
        measured = spread([value for row in rounds if (value := bar.of(row)) is not None])
        if measured is None:
            continue
        reached = ""
        for name, step in zip(STEPS, bar.steps, strict=True):
            if measured.median >= step if bar.more else measured.median <= step:
                reached = name
        found.append(Verdict(bar, measured, reached))
    return found
