"""The plots of a report, as SVG to stand in an HTML page. Colours are the page's CSS variables, so
that plots follow its light or dark scheme."""

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from everpost.loadtest.result import histogram_of

__all__ = ["backlog", "errors", "latency", "percentiles", "rates", "search", "stages"]

Point = tuple[float, float | None]

_WIDTH, _HEIGHT = 900, 300
_HALF = (500, 300)
_SCRIPT = re.compile(r"<script.*?</script>|<!--.*?-->", re.DOTALL)
_POINTS = 400
"""More seconds than this are drawn as the worst of each few."""
_COLOURS = {
    "planned": "var(--faint)", "sent": "var(--grey)", "accepted": "var(--blue)",
    "arrived": "var(--green)", "failed": "var(--red)", "p50": "var(--green)",
    "p99": "var(--blue)", "max": "var(--grey)", "work": "var(--blue)", "wait": "var(--amber)",
}  # fmt: skip
_SERVES = {"intended start to accepted": "accepted", "intended start to arrived": "arrived"}


# --- over time ------------------------------------------------------------------------------------


def rates(found: dict[str, Any]) -> str:
    """Messages a second: planned, sent, accepted, arrived."""
    series = found["series"]
    names = ["planned", "sent", "accepted"]
    names += ["arrived"] if found["messages"]["arrived"] is not None else []
    lines = {name: _over_time([second[name] for second in series], _mean) for name in names}
    return _lines(lines, y="messages a second", value=_count)


def latency(found: dict[str, Any]) -> str:
    """From the intended start to accepted, by the second in which it was due."""
    lines = {
        name: _over_time([second["latency_ms"][name] for second in found["series"]], _worst)
        for name in ("p50", "p99", "max")
    }
    return _lines(lines, value=_ms, logarithmic=True)


def backlog(found: dict[str, Any]) -> str:
    """Accepted and not arrived, at the end of each second."""
    grown = (second["accepted"] - second["arrived"] for second in found["series"])
    behind = [float(max(n, 0)) for n in accumulate(grown)]
    lines = {"arrived": _over_time(behind, _worst)}
    return _lines(lines, y="messages", value=_count, fill=True, half=True)


def errors(found: dict[str, Any]) -> str:
    """Failed requests a second."""
    failed = [second["failed"] for second in found["series"]]
    return _lines({"failed": _over_time(failed, _mean)}, y="a second", value=_count, fill=True)


def _over_time(
    values: Sequence[float | None], join: Callable[[Sequence[float]], float]
) -> list[Point]:
    """(second, value), several seconds joined where they are too many to draw."""
    width = max(1, math.ceil(len(values) / _POINTS))
    points: list[Point] = []
    for at in range(0, len(values), width):
        known = [value for value in values[at : at + width] if value is not None]
        points.append((float(at), join(known) if known else None))
    return points


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _worst(values: Sequence[float]) -> float:
    return max(values)


# --- by share and by rate -------------------------------------------------------------------------


def percentiles(found: dict[str, Any]) -> str:
    """The whole distribution; each mark of the axis stands for a tenth of the messages before."""
    lines: dict[str, list[Point]] = {}
    longest = 1.0
    for label, key in zip(_SERVES, ("latency", "from_start"), strict=True):
        histogram = histogram_of(found[key])
        if not histogram.count:
            continue
        points = [
            (-math.log10(max(1 - share, 1 / (2 * histogram.count))), seconds * 1000)
            for share, seconds in histogram.percentiles()
        ]
        lines[_SERVES[label]] = [(0.0, points[0][1]), *_thinned(points)]
        longest = max(longest, points[-1][0])
    ticks = [(math.log10(2), "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %")]
    ticks += [(4.0, "99.99 %"), (5.0, "99.999 %")]
    shown = [tick for tick in ticks if tick[0] <= longest + 0.1]
    return _lines(lines, value=_ms, logarithmic=True, ticks=shown, half=True)


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Points far enough apart to be told apart; the last one always."""
    kept = [points[0]]
    for point, following in pairwise(points):
        if following[0] - kept[-1][0] > 0.01:
            kept.append(point)
    return [*kept, points[-1]]


def search(found: dict[str, Any]) -> str:
    """The 99th percentiles of each rate that was tried."""
    steps = sorted(
        (step for step in found["steps"] if step["measured"]), key=lambda step: step["first"]
    )
    lines: dict[str, list[Point]] = {
        "accepted": [(step["first"], step["latency"]["p99"]) for step in steps]
    }
    if found["messages"]["arrived"] is not None:
        lines["arrived"] = [(step["first"], step["from_start"]["p99"]) for step in steps]
    return _lines(lines, x="messages a second", value=_ms, logarithmic=True, dots=True)


# --- stages ---------------------------------------------------------------------------------------


def stages(found: dict[str, Any]) -> str:
    """What each stage adds to the way of one message."""
    ran = [stage for stage in found["stages"] if stage["count"]][::-1]
    chart = _pygal().HorizontalStackedBar(
        **_config(["work", "wait"], size=(_WIDTH, 70 + 26 * len(ran))),
        value_formatter=lambda value: _ms(value) if value else "",
        truncate_label=-1,
        show_y_guides=True,
    )
    chart.x_labels = [f"{stage['name']}  {_ms(stage['per_message_ms'])}" for stage in ran]
    for name, waiting in (("work", False), ("wait", True)):
        values = [s["per_message_ms"] if s["waiting"] is waiting else None for s in ran]
        chart.add(name, values)
    return _svg(chart)


# --- drawing --------------------------------------------------------------------------------------


def _lines(
    lines: Mapping[str, Sequence[Point]],
    *,
    value: Callable[[float], str],
    y: str | None = None,
    x: str = "seconds",
    logarithmic: bool = False,
    fill: bool = False,
    dots: bool = False,
    half: bool = False,
    ticks: Sequence[tuple[float, str]] = (),
) -> str:
    """Lines over numbers. With `logarithmic` the upright axis is, and what is not above zero is
    left out (pygal's own setting would bend both axes)."""
    chart = _pygal().XY(
        **_config(list(lines), size=_HALF if half else (_WIDTH, _HEIGHT), fill=fill),
        show_dots=dots,
        dots_size=3,
        fill=fill,
        stroke_style={"width": 2, "linejoin": "round"},
        x_title=None if ticks else x,
        y_title=y,
        show_legend=len(lines) > 1,
        value_formatter=value,
        x_value_formatter=lambda at: f"{at:g}",
        show_x_guides=False,
        show_y_guides=True,
    )
    shown = {
        name: [(at, v) for at, v in line if v is not None and (v > 0 or not logarithmic)]
        for name, line in lines.items()
    }
    values = [v for line in shown.values() for _, v in line]
    if values and logarithmic:
        marks = _powers(min(values), max(values))
        chart.y_labels = [{"value": _log(mark), "label": value(mark)} for mark in marks]
        chart.range = (_log(marks[0]), _log(marks[-1]))
    elif values:
        chart.range = (0, max(*values, 1.0) * 1.05)
    if ticks and values:
        chart.x_labels = [{"value": at, "label": label} for at, label in ticks]
        furthest = max(at for line in shown.values() for at, _ in line)
        chart.xrange = (0.0, furthest + 0.2)
    for name, line in shown.items():
        chart.add(name, [(at, _log(v) if logarithmic else v) for at, v in line])
    return _svg(chart)


def _log(value: float) -> float:
    """Never 0, where pygal would draw an axis."""
    return 10 + math.log10(value)


def _powers(least: float, most: float) -> list[float]:
    """Round numbers around these two, for a logarithmic axis."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    steps = (1, 2, 5) if high - low <= 3 else (1,)
    marks = [step * 10.0**exponent for exponent in range(low, high + 1) for step in steps]
    first = max((mark for mark in marks if mark <= least), default=marks[0])
    last = min((mark for mark in marks if mark >= most), default=marks[-1])
    return [mark for mark in marks if first <= mark <= max(last, first * 10)]


def _pygal() -> Any:
    """The library, without the import hook for plug-ins that it installs: of a kind that Python
    gave up, and every later import would meet it."""
    import pygal

    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]
    return pygal


def _config(names: Sequence[str], *, size: tuple[int, int], fill: bool = False) -> dict[str, Any]:
    style = _pygal().style.Style(
        background="transparent",
        plot_background="transparent",
        foreground="var(--text)",
        foreground_strong="var(--text)",
        foreground_subtle="var(--line)",
        guide_stroke_color="var(--line)",
        major_guide_stroke_color="var(--line)",
        guide_stroke_dasharray="2,3",
        major_guide_stroke_dasharray="2,3",
        opacity=".25" if fill else ".9",
        opacity_hover="1",
        transition="none",
        font_family="inherit",
        label_font_size=12,
        major_label_font_size=12,
        value_font_size=11,
        title_font_size=13,
        legend_font_size=12,
        colors=tuple(_COLOURS[name] for name in names),
    )
    return {
        "style": style,
        "width": size[0],
        "height": size[1],
        "js": [],
        "explicit_size": False,
        "disable_xml_declaration": True,
        "legend_at_bottom": True,
        "legend_at_bottom_columns": max(len(names), 1),
        "legend_box_size": 10,
        "margin": 8,
        "max_scale": 8,
        "spacing": 8,
        "tooltip_border_radius": 4,
        "no_data_text": "nothing was measured",
    }


def _svg(chart: Any) -> str:
    """Without the script that pygal adds for tooltips, and its remarks: a report runs nothing."""
    return _SCRIPT.sub("", str(chart.render(is_unicode=True)))


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _ms(value: float) -> str:
    return f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.3g} ms"
