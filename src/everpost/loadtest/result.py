"""A load test's result as JSON: what the summary and the report are made from, and what is kept to
compare runs. Durations in it are milliseconds, `null` where nothing was measured."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from everpost.loadtest.histogram import Histogram
from everpost.loadtest.measure import StepTally
from everpost.loadtest.objective import Objective, Search, generator_fell_behind, judge
from everpost.loadtest.plan import Step
from everpost.loadtest.run import Outcome, Setup
from everpost.loadtest.stages import Reading, StageTime, bottleneck, compare, longest_wait

__all__ = ["QUANTILES", "VERSION", "histogram_of", "kept", "result"]

VERSION = 1
"""Of this form; raised when a field changes its meaning."""

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


def result(setup: Setup, outcome: Outcome, *, target: str, seed: int) -> dict[str, Any]:
    """Everything that is known of a run."""
    measure, objective = outcome.measure, setup.objective
    tallies = measure.measured()
    missing, named = measure.missing()
    times = _times(outcome)
    found: dict[str, Any] = {
        "everpost_loadtest": VERSION,
        "run": setup.run,
        "target": target,
        "started_at": datetime.fromtimestamp(outcome.started / 1000, UTC).isoformat(),
        "seconds": round(outcome.seconds, 3),
        "interrupted": outcome.interrupted,
        "plan": _plan(setup, seed),
        "messages": {
            "planned": measure.planned,
            "sent": measure.sent,
            "accepted": measure.accepted,
            "failed": measure.failed,
            "arrived": measure.arrived if measure.arrivals else None,
            "missing": missing if measure.arrivals else None,
            "duplicates": measure.duplicates,
            "unacknowledged": measure.unacknowledged,
            "foreign": measure.foreign,
        },
        "errors": dict(sum((t.errors for t in measure.steps), Counter[str]()).most_common()),
        "retry_after": dict(measure.retry_after.most_common(10)),
        "latency": _merged(t.latency for t in tallies),
        "from_start": _merged(t.from_start for t in tallies),
        "from_accept": _merged(t.from_accept for t in tallies),
        "generator": {
            "lag": _merged(t.lag for t in tallies),
            "queued": _merged(t.queued for t in tallies),
            "kept_rate": not any(map(generator_fell_behind, tallies)),
            "connections": outcome.most_connections,
            "most_waiting": outcome.most_waiting,
        },
        "objective": _objective(objective),
        "steps": [_step(t, objective, arrivals=measure.arrivals) for t in measure.steps],
        "search": None if setup.search is None else _search(setup.search),
        "series": [second.as_json() for second in measure.seconds],
        "stages": None if times is None else [_stage(t, times) for t in times],
        "bottleneck": _name(bottleneck(times or ())),
        "longest_wait": _name(longest_wait(times or ())),
        "queue": _queue(outcome.before, outcome.after),
        "missing_messages": [
            {"number": m.number, "id": m.id, "recipients_left": m.recipients} for m in named
        ],
    }
    found["missed"] = _missed(setup, tallies, missing)
    found["notes"] = [*outcome.notes, *_notes(setup, outcome, missing)]
    return found


def kept(found: dict[str, Any]) -> bool:
    """Whether the run was what was asked for: its objective kept, or a rate found."""
    if found["search"] is not None:
        return bool(found["search"]["rate"])
    return not found["missed"]


# --- parts ----------------------------------------------------------------------------------------


def _plan(setup: Setup, seed: int) -> dict[str, Any]:
    target = setup.target
    return {
        "arrivals": setup.arrivals.value,
        "seed": seed,
        "batch": target.batch,
        "connections": target.connections,
        "timeout_s": target.timeout,
        "drain_s": setup.drain_s,
        "mix": [kind.name for kind in setup.kinds],
        "steps": [_planned(step) for step in setup.steps],
    }


def _planned(step: Step) -> dict[str, Any]:
    return {
        "label": step.label,
        "first": step.first,
        "last": step.last,
        "seconds": step.seconds,
        "measured": step.measured,
    }


def _step(tally: StepTally, objective: Objective, *, arrivals: bool) -> dict[str, Any]:
    return {
        **_planned(tally.step),
        "planned": tally.planned,
        "sent": tally.sent,
        "accepted": tally.accepted,
        "failed": tally.failed,
        "arrived": tally.arrived if arrivals else None,
        "sent_per_s": round(tally.per_second(tally.sent, tally.last_sent), 2),
        "accepted_per_s": round(tally.per_second(tally.accepted, tally.last_accepted), 2),
        "arrived_per_s": (
            round(tally.per_second(tally.arrived, tally.last_arrived), 2) if arrivals else None
        ),
        "errors": dict(tally.errors.most_common()),
        "latency": _merged([tally.latency]),
        "from_start": _merged([tally.from_start]),
        "from_accept": _merged([tally.from_accept]),
        "lag_p99_ms": _ms(tally.lag.at(0.99)),
        "missed": judge(tally, objective) if tally.step.measured else [],
    }


def _merged(histograms: Iterable[Histogram]) -> dict[str, Any]:
    whole = Histogram()
    for histogram in histograms:
        whole.merge(histogram)
    quantiles = map(_ms, whole.all_at(tuple(QUANTILES.values())))
    return {
        "count": whole.count,
        "mean": _ms(whole.mean),
        **dict(zip(QUANTILES, quantiles, strict=True)),
        "max": _ms(whole.at(1.0)),
        "histogram": whole.as_json(),
    }


def _objective(objective: Objective) -> dict[str, Any]:
    return {
        "p99_ms": _ms(objective.p99),
        "delivered_p99_ms": _ms(objective.delivered_p99),
        "errors": objective.errors,
        "keep_up": objective.keep_up,
    }


def _search(search: Search) -> dict[str, Any]:
    return {
        "rate": search.kept or None,
        "failed_at": search.failed,
        "ended": search.ended,
        "trials": [
            {"rate": t.rate, "kept": t.kept, "missed": t.missed, "by_generator": t.by_generator}
            for t in search.trials
        ],
    }


def _times(outcome: Outcome) -> list[StageTime] | None:
    if outcome.before is None or outcome.after is None:
        return None
    return compare(outcome.before, outcome.after)


def _stage(time: StageTime, times: Sequence[StageTime]) -> dict[str, Any]:
    whole = sum(each.per_message for each in times)
    return {
        "name": time.stage.name,
        "says": time.stage.says,
        "waiting": time.stage.waiting,
        "metric": time.stage.metric,
        "count": time.count,
        "mean_ms": _ms(time.mean),
        "p50_ms": _ms(time.p50),
        "p99_ms": _ms(time.p99),
        "per_message_ms": _ms(time.per_message),
        "share": round(time.per_message / whole, 4) if whole else 0.0,
    }


def _queue(before: Reading | None, after: Reading | None) -> dict[str, Any] | None:
    if before is None or after is None:
        return None
    return {
        "due_before": before.value("everpost_due"),
        "due_after": after.value("everpost_due"),
    }


def _missed(setup: Setup, tallies: Sequence[StepTally], missing: int) -> list[str]:
    """What the whole run missed; a search misses by design."""
    if setup.search is not None:
        return []
    found = [
        f"{tally.step.label}: {missed}"
        for tally in tallies
        for missed in judge(tally, setup.objective)
    ]
    if missing and setup.objective.keep_up:
        found.append(f"{missing} accepted messages had not arrived {setup.drain_s:g} s later")
    return found


def _notes(setup: Setup, outcome: Outcome, missing: int) -> list[str]:
    """What a reader must know to read the figures rightly."""
    measure, target = outcome.measure, setup.target
    notes = []
    slow = [tally for tally in measure.measured() if generator_fell_behind(tally)]
    if slow:
        worst = max(tally.lag.at(0.95) or 0.0 for tally in slow)
        notes.append(
            f"The generator could not keep the rate ({', '.join(t.step.label for t in slow)}): it "
            f"started requests up to {worst * 1000:.0f} ms late (p95). Those figures are its own "
            "limit as much as the server's."
        )
    if outcome.most_connections >= target.connections and outcome.most_waiting:
        notes.append(
            f"All {target.connections} connections were busy, and up to {outcome.most_waiting} "
            "requests waited for one. That wait is in the latencies; --connections raises it."
        )
    if measure.arrivals and measure.accepted and not measure.arrived:
        notes.append(
            "Nothing arrived at the sink. Does a relay of the server lead to it? See "
            "`everpost relays list`."
        )
    elif missing:
        notes.append(
            f"{missing} accepted messages had not arrived in full after {setup.drain_s:g} s; "
            "`everpost status ID` says what became of one."
        )
    if measure.arrivals and not outcome.same_clock:
        notes.append(
            "The sink runs on another machine: times of delivery compare two wall clocks and are as"
            " good as these agree."
        )
    if measure.duplicates:
        notes.append(f"{measure.duplicates} messages arrived more often than they were sent.")
    if measure.unacknowledged:
        notes.append(f"{measure.unacknowledged} messages arrived though their requests had failed.")
    if setup.search is not None and setup.sink is None:
        notes.append("Without a sink, whether delivery keeps up with the rate was not looked at.")
    return notes


def _name(time: StageTime | None) -> str | None:
    return None if time is None else time.stage.name


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def histogram_of(part: dict[str, Any]) -> Histogram:
    """The histogram of `latency`, `from_start` and the like in a result."""
    return Histogram.from_json(part["histogram"])
