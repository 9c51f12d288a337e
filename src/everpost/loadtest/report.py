"""A result as one HTML file that needs nothing else: no script, no network, light and dark."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from everpost.loadtest import charts
from everpost.loadtest.result import QUANTILES
from everpost.loadtest.summary import ms, wanted

__all__ = ["html"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_QUANTILES = ("p50", "p90", "p99", "p99.9", "max")


def html(found: dict[str, Any]) -> str:
    """The page."""
    css = files("everpost.loadtest").joinpath("report.css").read_text(encoding="utf-8")
    return "\n".join(
        (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Load test of {escape(found['target'])}</title>",
            f"<style>{css}</style></head><body><main>",
            *_body(found),
            "</main></body></html>\n",
        )
    )


def _body(found: dict[str, Any]) -> Iterator[str]:
    arrivals = found["messages"]["arrived"] is not None
    yield from _head(found)
    yield from _figures(found)
    if found["notes"]:
        notes = "".join(f"<li>{escape(note)}</li>" for note in found["notes"])
        yield f'<section><h2>What to know</h2><ul class="notes">{notes}</ul></section>'
    if found["search"] is not None:
        yield from _search(found)
    yield _section(
        "Latency",
        "From the moment a request was due to its answer, by the second in which it was due. A "
        "stall of the server is in each request that was due while it lasted.",
        charts.latency(found),
    )
    yield _section(
        "Rate",
        "What was planned, sent, accepted" + (", and what arrived." if arrivals else "."),
        charts.rates(found),
    )
    pair = [
        _section(
            "Distribution",
            "How long the slowest took: each mark to the right is a tenth of the messages.",
            charts.percentiles(found),
        )
    ]
    if arrivals:
        pair.append(
            _section("Backlog", "Accepted, and not arrived at the end of each second.",
                     charts.backlog(found))
        )  # fmt: skip
    yield f'<div class="pair">{"".join(pair)}</div>'
    yield from _stages(found)
    yield _section("Steps", "", _steps(found["steps"], arrivals=arrivals))
    yield _section("Latencies", "", _latencies(found))
    if found["errors"]:
        rows = [(kind, f"{count:,}") for kind, count in found["errors"].items()]
        plot = charts.errors(found)
        yield _section("Errors", "", plot + _table(("what", "requests"), rows))
    yield from _missing(found)
    yield from _foot(found)


def _head(found: dict[str, Any]) -> Iterator[str]:
    plan = found["plan"]
    yield f"<header><h1>Load test of {escape(found['target'])}</h1>"
    words = [
        found["started_at"][:19].replace("T", " ") + " UTC",
        f"{found['seconds']:.0f} s",
        f"{plan['arrivals']} arrivals",
        "mix: " + ", ".join(plan["mix"]),
    ]
    if plan["batch"] > 1:
        words.append(f"{plan['batch']} messages a request")
    yield f'<p class="sub">{escape(" · ".join(words))}</p>'
    kind, text = _verdict(found)
    yield f'<p class="verdict {kind}">{escape(text)}</p></header>'


def _verdict(found: dict[str, Any]) -> tuple[str, str]:
    search, asked = found["search"], wanted(found["objective"])
    if found["interrupted"]:
        return "open", "Interrupted: this is what was measured until then."
    if search is not None:
        if not search["rate"]:
            return "bad", "No rate that was tried keeps the objective."
        limit = f"; {search['failed_at']:g} a second does not" if search["failed_at"] else ""
        return "good", f"{search['rate']:g} messages a second keep the objective{limit}: {asked}."
    if found["missed"]:
        return "bad", "The objective was missed: " + "; ".join(found["missed"])
    if found["messages"]["missing"]:
        gone = f"{found['messages']['missing']:,} accepted messages have not arrived"
        return "open", f"The objective was kept ({asked}), but {gone}."
    return "good", f"The objective was kept: {asked}."


def _figures(found: dict[str, Any]) -> Iterator[str]:
    messages = found["messages"]
    pairs = [(f"{messages['accepted']:,}", f"of {messages['planned']:,} messages accepted")]
    if messages["arrived"] is not None:
        pairs.append((f"{messages['arrived']:,}", f"arrived, {messages['missing']:,} missing"))
    pairs.append((f"{messages['failed']:,}", "failed"))
    pairs.append((ms(found["latency"]["p99"]), "p99 until accepted"))
    if found["from_start"]["count"]:
        pairs.append((ms(found["from_start"]["p99"]), "p99 until arrived"))
    if found["bottleneck"]:
        pairs.append((found["bottleneck"], "slowest stage"))
    cells = (
        f'<div class="figure"><b>{escape(figure)}</b><span>{escape(text)}</span></div>'
        for figure, text in pairs
    )
    yield f'<div class="figures">{"".join(cells)}</div>'


def _search(found: dict[str, Any]) -> Iterator[str]:
    rows = [
        (
            f"{trial['rate']:g}/s",
            "kept" if trial["kept"] else "missed",
            "; ".join(trial["missed"])
            + ("the generator could not keep this rate" if trial["by_generator"] else ""),
        )
        for trial in found["search"]["trials"]
    ]
    table = _table(("rate", "objective", "why"), rows, words=(2,))
    said = f"99th percentiles of each rate that was tried. It ended: {found['search']['ended']}."
    yield _section("Search for the highest rate", said, charts.search(found) + table)


def _stages(found: dict[str, Any]) -> Iterator[str]:
    if not found["stages"] or found["bottleneck"] is None:
        return
    rows = [
        (
            stage["name"],
            f"{stage['count']:,}",
            ms(stage["mean_ms"]),
            ms(stage["p50_ms"]),
            ms(stage["p99_ms"]),
            f"{stage['share']:.0%}",
            ("waits: " if stage["waiting"] else "") + stage["says"],
        )
        for stage in found["stages"]
    ]
    slowest = [
        "slowest" if stage["name"] == found["bottleneck"] else "" for stage in found["stages"]
    ]
    columns = ("stage", "times", "mean", "p50 ≈", "p99 ≈", "share", "what")
    said = (
        f"What each stage of the server adds to the way of one message. Slowest: "
        f"{found['bottleneck']}. Waits grow when a later stage is slow. Percentiles are estimated "
        "from the buckets of the server's metrics."
    )
    table = _table(columns, rows, words=(6,), classes=slowest)
    yield _section("Stages", said, charts.stages(found) + table)


def _steps(steps: Sequence[dict[str, Any]], *, arrivals: bool) -> str:
    columns = ["rate", "seconds", "sent/s", "accepted/s", "arrived/s", "p50", "p90", "p99", "max"]
    columns += ["failed", "generator late, p99"]
    rows, classes = [], []
    for step in steps:
        latency = step["latency"]
        rows.append(
            (
                step["label"] + ("" if step["measured"] else " (warm-up)"),
                f"{step['seconds']:g}",
                f"{step['sent_per_s']:,.0f}",
                f"{step['accepted_per_s']:,.0f}",
                f"{step['arrived_per_s']:,.0f}" if arrivals else "-",
                *(ms(latency[name]) for name in ("p50", "p90", "p99", "max")),
                f"{step['failed']:,}",
                ms(step["lag_p99_ms"]),
            )
        )
        classes.append("missed" if step["missed"] else "")
    return _table(columns, rows, classes=classes)


def _latencies(found: dict[str, Any]) -> str:
    parts = [
        ("intended start to accepted", found["latency"]),
        ("intended start to arrived", found["from_start"]),
        ("accepted to arrived", found["from_accept"]),
        ("the generator's own delay", found["generator"]["lag"]),
    ]
    rows = [
        (name, f"{part['count']:,}", ms(part["mean"]), *(ms(part[q]) for q in (*QUANTILES, "max")))
        for name, part in parts
        if part["count"]
    ]
    return _table(("", "messages", "mean", *_QUANTILES), rows)


def _missing(found: dict[str, Any]) -> Iterator[str]:
    missing = found["missing_messages"]
    if not missing:
        return
    said = (
        f"{found['messages']['missing']:,} accepted messages had not arrived in full when the test "
        "ended. The first of them; `everpost status ID` says what became of each."
    )
    ids = " ".join(f"<code>{escape(each['id'])}</code>" for each in missing)
    ids = f'<p class="ids">{ids}</p>'
    yield _section("Missing", said, ids)


def _foot(found: dict[str, Any]) -> Iterator[str]:
    plan, generator = found["plan"], found["generator"]
    yield (
        f"<footer>Run {escape(found['run'])}, seed {plan['seed']}, up to "
        f"{generator['connections']} of {plan['connections']} connections, time-out "
        f"{plan['timeout_s']:g} s. Made by <code>everpost loadtest</code>.</footer>"
    )


# --- pieces ---------------------------------------------------------------------------------------


def _section(title: str, said: str, content: str) -> str:
    text = f"<p>{escape(said)}</p>" if said else ""
    return f"<section><h2>{escape(title)}</h2>{text}{content}</section>"


def _table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    words: Sequence[int] = (),
    classes: Sequence[str] = (),
) -> str:
    def line(tag: str, cells: Sequence[str], kind: str = "") -> str:
        made = (
            f"<{tag}{' class=words' if n in words else ''}>{escape(cell)}</{tag}>"
            for n, cell in enumerate(cells)
        )
        return f"<tr{f' class={kind}' if kind else ''}>{''.join(made)}</tr>"

    body = (line("td", row, classes[n] if n < len(classes) else "") for n, row in enumerate(rows))
    return f"<table>{line('th', columns)}{''.join(body)}</table>"
