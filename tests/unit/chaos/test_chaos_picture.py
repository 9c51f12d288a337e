"""A picture that no viewer opens, that leaves a second or a fault out, or that cannot be drawn of
a run that broke off."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.chaos.nemesis import FAULTS
from tests.chaos.picture import draw, picture

SVG = "{http://www.w3.org/2000/svg}"
BEGIN = 1000.0


def a_run(*, seconds: int = 90) -> list[dict[str, Any]]:
    """Each kind of fault once; ten messages acknowledged, one request refused, in each second."""
    events: list[dict[str, Any]] = [{"at": BEGIN, "kind": "invoke", "key": "c0-0"}]
    for n in range(seconds):
        ok = {"at": BEGIN + n + 0.1, "kind": "ok", "key": f"k{n}", "ids": ["x"] * 10}
        events += [ok, {"at": BEGIN + n + 0.2, "kind": "fail", "key": "r", "status": 503}]
    for number, name in enumerate(FAULTS):
        fault = {"kind": "fault", "fault": number, "name": name}
        events.append({**fault, "at": BEGIN + 1 + 3 * number, "phase": "begin", "length": 2.0})
        told = {"killed": [1, 2], "said": "<not & found>"}
        events.append({**fault, "at": BEGIN + 3 + 3 * number, "phase": "end", **told})
    return sorted(events, key=lambda event: float(event["at"]))


def bars(root: ET.Element) -> list[ET.Element]:
    return [rect for rect in root.iter(f"{SVG}rect") if rect.get("class") == "fault"]


def points(root: ET.Element, name: str) -> list[tuple[float, float]]:
    (line,) = (line for line in root.iter(f"{SVG}polyline") if line.get("id") == name)
    pairs = (line.get("points") or "").split()
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in pairs)]


def test_a_second_or_a_fault_is_left_out() -> None:
    taken = [BEGIN + n + 0.5 for n in range(90) for _ in range(8)]
    root = ET.fromstring(picture(a_run(), taken, title="seed <7>"))
    assert sorted(str(bar.get("data-name")) for bar in bars(root)) == sorted(FAULTS)
    named = {text.text for text in root.iter(f"{SVG}text")}
    assert named >= {*FAULTS, "seed <7>"}
    for name in ("acknowledged", "delivered", "refused"):
        assert len(points(root, name)) == 90
    assert "acknowledged: 900 messages" in named
    assert "delivered: 720 messages" in named
    assert "refused: 90 requests" in named
    # More is higher, later is further right, and all of it is within the picture.
    acknowledged, refused = points(root, "acknowledged")[5], points(root, "refused")[5]
    assert acknowledged[1] < refused[1]
    places = [x for x, _ in points(root, "delivered")]
    assert places == sorted(places)
    assert 0 < places[0] < places[-1] < 1200
    for bar in bars(root):
        assert float(str(bar.get("x"))) + float(str(bar.get("width"))) <= 1200


def test_bars_are_where_their_faults_were() -> None:
    root = ET.fromstring(picture(a_run(), [], title=""))
    places = {str(bar.get("data-name")): float(str(bar.get("x"))) for bar in bars(root)}
    assert [name for name, _ in sorted(places.items(), key=lambda each: each[1])] == list(FAULTS)
    rows = [str(bar.get("y")) for bar in bars(root)]
    assert len(set(rows)) == len(FAULTS)


@pytest.mark.parametrize("left", [0, 1, 40])
def test_the_run_broke_off(tmp_path: Path, left: int) -> None:
    """In the middle of a line of a journal, and of a fault."""
    events = a_run()[:left]
    events.append(
        {"at": BEGIN + 30, "kind": "fault", "phase": "begin", "fault": 99, "name": "power"}
    )
    lines = "".join(json.dumps(event) + "\n" for event in events)
    (tmp_path / "history.jsonl").write_text(lines)
    whole = json.dumps({"at": BEGIN + 35.5, "recipients": ["a"]})
    (tmp_path / "sink0.jsonl").write_text(f"{whole}\n{whole[:20]}")
    root = ET.fromstring(draw(tmp_path))
    assert "power" in [bar.get("data-name") for bar in bars(root)]
    assert "delivered: 1 messages" in {text.text for text in root.iter(f"{SVG}text")}
