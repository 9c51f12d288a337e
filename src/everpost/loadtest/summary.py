"""A result on one screen: 80 columns, 24 lines."""

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["WIDTH", "ms", "summary", "wanted"]

WIDTH = 80
_STEPS = 6
_STAGES = 4


def summary(found: dict[str, Any]) -> list[str]:
    """The lines for a terminal."""
    lines = [_head(found), ""]
    lines += _steps(_shown(found), found["steps"])
    lines.append("")
    lines += _latencies(found)
    lines += _errors(found)
    lines += _stages(found)
    lines += _verdict(found)
    for note in found["notes"]:
        lines += _wrapped(f"* {note}")
    return lines


def ms(value: float | None) -> str:
    """Milliseconds in three digits: `0.85 ms`, `12.3 ms`, `1.24 s`, `2 min`."""
    if value is None:
        return "-"
    if value >= 120_000:
        return f"{value / 60_000:.0f} min"
    if value >= 1000:
        return f"{value / 1000:.2f} s" if value < 10_000 else f"{value / 1000:.1f} s"
    if value >= 100:
        return f"{value:.0f} ms"
    return f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


def _head(found: dict[str, Any]) -> str:
    messages = found["messages"]
    words = [f"{found['target']}: {messages['accepted']} of {messages['planned']} accepted"]
    if messages["failed"]:
        words.append(f"{messages['failed']} failed")
    if messages["arrived"] is not None:
        words.append(f"{messages['arrived']} arrived")
    if found["interrupted"]:
        words.append("interrupted")
    return ", ".join(words)


def wanted(objective: dict[str, Any]) -> str:
    """The objective in words."""
    words = [f"at most {objective['errors'] * 100:g} % of the requests fail"]
    if objective["p99_ms"] is not None:
        words.append(f"p99 until accepted within {ms(objective['p99_ms'])}")
    if objective["delivered_p99_ms"] is not None:
        words.append(f"p99 until arrived within {ms(objective['delivered_p99_ms'])}")
    if objective["keep_up"]:
        words.append("delivery keeps up")
    return ", ".join(words)


def _shown(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps that there is room for: the last ones, or those of a search around its answer, by
    their rates."""
    measured = [step for step in found["steps"] if step["measured"]]
    search = found["search"]
    if search is None:
        return measured[-_STEPS:]
    answer = search["rate"] or 0.0
    near = sorted(measured, key=lambda step: abs(float(step["first"]) - answer))[:_STEPS]
    return sorted(near, key=lambda step: float(step["first"]))


def _steps(shown: Sequence[dict[str, Any]], steps: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield _row(("rate", "sent/s", "accepted/s", "arrived/s", "p50", "p99", "errors"))
    for step in shown:
        decided = step["accepted"] + step["failed"]
        share = step["failed"] / decided if decided else 0.0
        yield _row(
            (
                step["label"],
                f"{step['sent_per_s']:.0f}",
                f"{step['accepted_per_s']:.0f}",
                "-" if step["arrived_per_s"] is None else f"{step['arrived_per_s']:.0f}",
                ms(step["latency"]["p50"]),
                ms(step["latency"]["p99"]),
                f"{share:.1%}" if step["failed"] else "0",
            )
        )
    more = sum(step["measured"] for step in steps) - len(shown)
    if more:
        yield f"(and {more} more)"


def _row(cells: Sequence[str]) -> str:
    first, *rest = cells
    return f"{first:<14}" + "".join(f"{cell:>11}" for cell in rest)


def _latencies(found: dict[str, Any]) -> Iterator[str]:
    yield f"{'':<26}" + "".join(f"{name:>10}" for name in ("p50", "p90", "p99", "p99.9", "max"))
    for name, key in (
        ("intended start to accepted", "latency"),
        ("intended start to arrived", "from_start"),
        ("accepted to arrived", "from_accept"),
    ):
        part = found[key]
        if part["count"]:
            cells = (part[q] for q in ("p50", "p90", "p99", "p999", "max"))
            yield f"{name:<26}" + "".join(f"{ms(cell):>10}" for cell in cells)


def _errors(found: dict[str, Any]) -> Iterator[str]:
    if found["errors"]:
        kinds = ", ".join(f"{kind} {count}" for kind, count in found["errors"].items())
        yield from _wrapped(f"errors: {kinds}")


def _stages(found: dict[str, Any]) -> Iterator[str]:
    stages = found["stages"]
    if not stages or found["bottleneck"] is None:
        return
    yield ""
    ran = [stage for stage in stages if stage["count"]]
    slowest = sorted(ran, key=lambda stage: -stage["per_message_ms"])[:_STAGES]
    told = (f"{stage['name']} {ms(stage['per_message_ms'])}" for stage in slowest)
    yield from _wrapped("per message: " + ", ".join(told))
    stage = next(stage for stage in stages if stage["name"] == found["bottleneck"])
    yield from _wrapped(
        f"slowest stage: {stage['name']} ({stage['says']}), "
        f"{ms(stage['mean_ms'])} each, p99 {ms(stage['p99_ms'])}"
    )


def _verdict(found: dict[str, Any]) -> Iterator[str]:
    search = found["search"]
    if search is not None:
        yield ""
        rate, limit = search["rate"], search["failed_at"]
        if rate is None:
            yield "no rate that was tried keeps the objective"
        else:
            beyond = f"; {limit:g}/s does not" if limit else ""
            yield f"highest rate that keeps the objective: {rate:g}/s{beyond}"
        if search["ended"]:
            yield f"the search ended: {search['ended']}"
        reasons = [
            f"{trial['rate']:g}/s: {trial['missed'][0]}"
            for trial in search["trials"]
            if trial["missed"] and trial["rate"] == limit
        ]
        for reason in reasons:
            yield from _wrapped(reason)
    for missed in found["missed"]:
        yield from _wrapped(f"MISSED  {missed}")


def _wrapped(text: str) -> Iterator[str]:
    import textwrap

    yield from textwrap.wrap(text, WIDTH, subsequent_indent="  ")
