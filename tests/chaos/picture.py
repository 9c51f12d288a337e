"""A run as a picture: what was acknowledged, delivered and refused each second, and beneath it the
faults, a row a kind. `python -m tests.chaos.picture FOLDER` draws a kept run again."""

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

__all__ = ["draw", "picture"]

_WIDTH, _LEFT, _RIGHT = 1200, 150, 20
_TOP, _CHART, _ROW = 64, 260, 16
_FIRST_ROW = _TOP + _CHART + 34
_LEAST_BAR = 3.0
"""A fault of no length is still seen."""
_GRID = 4
_SERIES = {"acknowledged": "#1f77b4", "delivered": "#2ca02c", "refused": "#d62728"}
_FAMILIES = {
    "power": "#b2182b", "flip": "#b2182b", "kill": "#e6550d", "pause": "#8c6bb1",
    "term": "#fd8d3c", "reload": "#fdae6b", "io": "#0868ac", "disk": "#43a2ca",
    "clock": "#636363", "sink": "#238b45",
}  # fmt: skip
_OTHER = "#b35806"
_STYLE = """
text { font: 12px sans-serif; fill: #222 } .small { font-size: 11px } .head { font-size: 15px }
.grid { stroke: #ddd } .row { stroke: #f0f0f0 } .cut { stroke: #b2182b; opacity: .35 }
polyline { fill: none; stroke-width: 1.5 }
"""


@dataclass(frozen=True, slots=True)
class _Bar:
    name: str
    begin: float
    end: float
    told: str


@dataclass(frozen=True, slots=True)
class _Scale:
    """Seconds and rates as places."""

    seconds: int
    top: int

    def x(self, second: float) -> float:
        return round(_LEFT + second / self.seconds * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, rate: float) -> float:
        return round(_TOP + _CHART * (1 - rate / self.top), 1)


def draw(folder: Path, *, title: str = "") -> str:
    """Of a kept run: its history.jsonl, and all other .jsonl files as journals of sinks."""
    history = folder / "history.jsonl"
    taken = [line["at"] for path in sorted(folder.glob("*.jsonl")) if path != history
             for line in _lines(path)]  # fmt: skip
    return picture(list(_lines(history)), taken, title=title or folder.name)


def picture(events: Sequence[Mapping[str, Any]], taken: Iterable[float], *, title: str) -> str:
    """SVG, 1200 wide. `events` are the history's; `taken`: when a sink took a message, in seconds
    of the same clock."""
    begin = min((event["at"] for event in events), default=0.0)
    last = max((event["at"] for event in events), default=begin)
    arrived = [at - begin for at in taken]
    seconds = math.floor(max([last - begin, *arrived])) + 1
    rates = _rates(events, arrived, begin=begin, seconds=seconds)
    bars = _bars(events, begin=begin, last=float(seconds))
    rows = list(dict.fromkeys(bar.name for bar in sorted(bars, key=_family)))
    scale = _Scale(seconds, _round_up(max(max(rate) for rate in rates.values())))
    height = _FIRST_ROW + _ROW * len(rows) + 16
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" height="{height}">',
            f"<style>{_STYLE}</style>",
            f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
            f'<text class="head" x="{_LEFT}" y="22">{escape(title)}</text>',
            *_legend(rates, len(bars)),
            *_axes(scale, height - 16),
            *_cuts(bars, scale),
            *_curves(rates, scale),
            *_faults(bars, rows, scale),
            "</svg>\n",
        ]
    )


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    """A process that was killed may have left half a line at the end."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _rates(
    events: Iterable[Mapping[str, Any]], arrived: Iterable[float], *, begin: float, seconds: int
) -> dict[str, list[int]]:
    counts: dict[str, Counter[int]] = {name: Counter() for name in _SERIES}
    for event in events:
        second = int(event["at"] - begin)
        if event["kind"] == "ok":
            counts["acknowledged"][second] += len(event.get("ids", ()))
        elif event["kind"] == "fail":
            counts["refused"][second] += 1
    counts["delivered"].update(int(at) for at in arrived)
    return {name: [count[n] for n in range(seconds)] for name, count in counts.items()}


def _bars(events: Iterable[Mapping[str, Any]], *, begin: float, last: float) -> list[_Bar]:
    """A fault without an end lasts to the picture's."""
    begun: dict[int, Mapping[str, Any]] = {}
    bars: list[_Bar] = []
    for event in events:
        if event["kind"] != "fault":
            continue
        if event["phase"] == "begin":
            begun[event["fault"]] = event
        else:
            first = begun.pop(event["fault"])
            bars.append(_bar(first, event, event["at"] - begin, begin))
    return bars + [_bar(first, {}, last, begin) for first in begun.values()]


def _bar(first: Mapping[str, Any], end: Mapping[str, Any], at: float, begin: float) -> _Bar:
    hidden = {"at", "kind", "phase", "fault", "name"}
    told = ", ".join(f"{k} {v}" for k, v in end.items() if k not in hidden)
    start = first["at"] - begin
    return _Bar(first["name"], start, at, f"{first['name']} {start:.1f} to {at:.1f} s: {told}")


def _family(bar: _Bar) -> tuple[int, str]:
    """Those of no family of ours come last."""
    family = bar.name.partition("_")[0]
    return (list(_FAMILIES).index(family) if family in _FAMILIES else len(_FAMILIES)), bar.name


def _round_up(value: float) -> int:
    """To 1, 2, 4, 6 or 8 times a power of ten."""
    size = 10 ** math.floor(math.log10(max(value, 10)))
    return int(next(n * size for n in (1, 2, 4, 6, 8, 10) if n * size >= value))


# -- what is drawn ---------------------------------------------------------------------------------


def _legend(rates: Mapping[str, Sequence[int]], faults: int) -> list[str]:
    drawn = []
    for n, (name, colour) in enumerate(_SERIES.items()):
        x = _LEFT + 210 * n
        unit = "requests" if name == "refused" else "messages"
        drawn.append(f'<rect x="{x}" y="36" width="14" height="4" fill="{colour}"/>')
        drawn.append(f'<text x="{x + 20}" y="42">{name}: {sum(rates[name]):,} {unit}</text>')
    drawn.append(f'<text x="{_LEFT + 640}" y="42">{faults} faults; red lines: power cuts</text>')
    return drawn


def _axes(scale: _Scale, bottom: float) -> list[str]:
    drawn = [f'<text class="small" x="{_LEFT - 100}" y="{_TOP - 8}">a second</text>']
    for n in range(_GRID + 1):
        rate = scale.top * n / _GRID
        y = scale.y(rate)
        drawn.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        drawn.append(
            f'<text class="small" text-anchor="end" x="{_LEFT - 6}" y="{y + 4}">{rate:g}</text>'
        )
    step = next(s for s in (1, 2, 5, 10, 30, 60, 120, 300, 600, 3600) if scale.seconds / s <= 12)
    for second in range(0, scale.seconds + 1, step):
        x = scale.x(second)
        drawn.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{bottom}"/>')
        drawn.append(
            f'<text class="small" text-anchor="middle" x="{x}" y="{_TOP + _CHART + 16}">'
            f"{second} s</text>"
        )
    return drawn


def _cuts(bars: Iterable[_Bar], scale: _Scale) -> list[str]:
    return [
        f'<line class="cut" x1="{scale.x(bar.begin)}" x2="{scale.x(bar.begin)}" '
        f'y1="{_TOP}" y2="{_TOP + _CHART}"/>'
        for bar in bars
        if bar.name.startswith(("power", "flip"))
    ]


def _curves(rates: Mapping[str, Sequence[int]], scale: _Scale) -> list[str]:
    drawn = []
    for name, rate in rates.items():
        points = " ".join(f"{scale.x(n + 0.5)},{scale.y(value)}" for n, value in enumerate(rate))
        drawn.append(f'<polyline id="{name}" stroke="{_SERIES[name]}" points="{points}"/>')
    return drawn


def _faults(bars: Iterable[_Bar], rows: Sequence[str], scale: _Scale) -> list[str]:
    drawn = []
    for n, name in enumerate(rows):
        y = _FIRST_ROW + _ROW * n
        drawn.append(
            f'<line class="row" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y + 6}" y2="{y + 6}"/>'
        )
        drawn.append(
            f'<text class="small" text-anchor="end" x="{_LEFT - 6}" y="{y + 10}">{name}</text>'
        )
    for bar in bars:
        x = scale.x(bar.begin)
        width = max(round(scale.x(bar.end) - x, 1), _LEAST_BAR)
        colour = _FAMILIES.get(bar.name.partition("_")[0], _OTHER)
        y = _FIRST_ROW + _ROW * rows.index(bar.name) + 1
        drawn.append(
            f'<rect class="fault" data-name={quoteattr(bar.name)} x="{x}" y="{y}" '
            f'width="{width}" height="11" rx="2" fill="{colour}">'
            f"<title>{escape(bar.told)}</title></rect>"
        )
    return drawn


if __name__ == "__main__":
    kept = Path(sys.argv[1])
    (kept / "picture.svg").write_text(draw(kept), encoding="utf-8")
