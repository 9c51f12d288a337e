"""The table as text, as Markdown and as JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from bench.bars import STEPS, Bar, Spread, Verdict, ratio, spread
from bench.cases import CASES
from bench.figures import Failure, Figures, Round

__all__ = ["as_json", "as_markdown", "as_text"]

Facts = Mapping[str, str]
_FIGURES = (
    "accepted_per_s", "delivered_per_s", "p50_ms", "p99_ms", "cpu_s_per_1000", "peak_mb",
    "generator_cpu_s_per_1000", "sink_cpu_s_per_1000", "idle_p99_ms", "lone_per_s",
)  # fmt: skip
_HEADS = (
    "case", "accepted/s", "delivered/s", "x Postfix", "p50 ms", "p99 ms", "CPU s/1,000", "peak MB",
    "load CPU", "sink CPU", "idle p99 ms", "lone/s",
)  # fmt: skip
_BAR_HEADS = ("budget", "measured", "lowest-highest", *STEPS, "reached")
_NOTE = (
    "Medians over the rounds, lowest and highest in brackets. `x Postfix` is delivered/s in times "
    "those of Postfix at the same work (signed: Postfix + OpenDKIM; Ed25519: unsigned Postfix) in "
    "the same round. CPU and memory are of all processes of the one measured, load generator and "
    "sink apart; memory is the highest sum of proportional set sizes."
)


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}".removesuffix(".0")
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _cell(found: Spread | None, *, brackets: bool = True) -> str:
    if found is None:
        return ""
    text = _number(found.median)
    if brackets and found.rounds > 1:
        text += f" ({_number(found.low)}-{_number(found.high)})"
    return text


def _figures(rounds: Sequence[Round], name: str) -> list[Figures]:
    return [row for r in rounds if isinstance(row := r.get(name), Figures)]


def _column(rounds: Sequence[Round], name: str, figure: str) -> Spread | None:
    values = [getattr(row, figure) for row in _figures(rounds, name)]
    return spread([value for value in values if value is not None])


def _ratio(rounds: Sequence[Round], name: str) -> Spread | None:
    yardstick = CASES[name].yardstick
    return spread([v for row in rounds if (v := ratio(row, name, yardstick)) is not None])


def _names(rounds: Sequence[Round]) -> list[str]:
    return [name for name in CASES if any(name in row for row in rounds)]


def _failures(rounds: Sequence[Round]) -> list[tuple[int, str, str]]:
    return [
        (number, name, row.reason)
        for number, found in enumerate(rounds, 1)
        for name, row in found.items()
        if isinstance(row, Failure)
    ]


def _rows(rounds: Sequence[Round], label: Callable[[str], str]) -> list[list[str]]:
    rows: list[list[str]] = []
    for name in _names(rounds):
        cells = [label(name)]
        if not _figures(rounds, name):
            rows.append([*cells, "failed", *[""] * (len(_HEADS) - 2)])
            continue
        for figure in _FIGURES:
            # brackets where budgets and ratios are read from, medians alone elsewhere
            plain = figure in {"accepted_per_s", "peak_mb"} or figure.startswith(("gen", "sink"))
            cells.append(_cell(_column(rounds, name, figure), brackets=not plain))
            if figure == "delivered_per_s":
                cells.append(_cell(_ratio(rounds, name)))
        rows.append(cells)
    return rows


def _bar_rows(verdicts: Sequence[Verdict]) -> list[list[str]]:
    return [
        [
            verdict.bar.label,
            f"{_number(verdict.measured.median)}{verdict.bar.unit}",
            f"{_number(verdict.measured.low)}-{_number(verdict.measured.high)}",
            *(_wanted(verdict.bar, step) for step in verdict.bar.steps),
            verdict.reached or "NONE",
        ]
        for verdict in verdicts
    ]


def _wanted(bar: Bar, step: float) -> str:
    return f"{'≥' if bar.more else '≤'} {step:g}"


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[n]) for row in [heads, *rows]) for n in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [heads, *rows]
    )


def as_text(facts: Facts, rounds: Sequence[Round], verdicts: Sequence[Verdict]) -> str:
    parts = ["\n".join(f"{name}: {words}" for name, words in facts.items())]
    parts.append(_aligned(_HEADS, _rows(rounds, str)))
    if verdicts:
        parts.append(_aligned(_BAR_HEADS, _bar_rows(verdicts)))
    failures = [f"round {n}: {name} failed: {why}" for n, name, why in _failures(rounds)]
    if failures:
        parts.append("\n".join(failures))
    return "\n\n".join(parts)


def as_markdown(facts: Facts, rounds: Sequence[Round], verdicts: Sequence[Verdict]) -> str:
    """To be pasted into docs/performance.md."""
    lines = [f"* {name}: {words}" for name, words in facts.items()]
    lines += ["", _NOTE, ""]
    lines += _markdown(_HEADS, _rows(rounds, _title))
    lines += ["", *_markdown(_BAR_HEADS, _bar_rows(verdicts))]
    lines += ["", *[f"* Round {n}: `{name}` failed: {why}" for n, name, why in _failures(rounds)]]
    return "\n".join(lines).rstrip() + "\n"


def _title(name: str) -> str:
    case = CASES[name]
    return f"**{case.title}**" if case.ours else case.title


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def as_json(facts: Facts, rounds: Sequence[Round], verdicts: Sequence[Verdict]) -> str:
    """`rounds` as measured, `cases` and `bars` as the table has them."""
    cases: dict[str, object] = {}
    for name in _names(rounds):
        columns = {figure: _column(rounds, name, figure) for figure in _FIGURES}
        against = _ratio(rounds, name)
        cases[name] = {
            "title": CASES[name].title,
            "work": asdict(CASES[name].work),
            "figures": {figure: asdict(found) for figure, found in columns.items() if found},
            "yardstick": CASES[name].yardstick,
            "ratio": asdict(against) if against else None,
        }
    document = {
        "facts": dict(facts),
        "rounds": [{name: asdict(row) for name, row in found.items()} for found in rounds],
        "cases": cases,
        "bars": [
            {
                "bar": verdict.bar.label,
                **asdict(verdict.measured),
                **dict(zip(STEPS, verdict.bar.steps, strict=True)),
                "more_is_better": verdict.bar.more,
                "reached": verdict.reached,
            }
            for verdict in verdicts
        ],
    }
    return json.dumps(document, indent=1) + "\n"
