"""F19: the wall clock is set by two hours while mail flows. Nothing is sent or expired early,
nothing is lost or doubted; a step that stays is adopted, and mail goes on.

Invariants: I12, I13, I22.
"""

import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.counting_sink import CountingSink
from tests.support.faketime import WallClock
from tests.support.house import House
from tests.support.waiting import wait_until


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def _has(house: House, event: str, count: int = 1) -> bool:
    return house.log.read_text().count(f'"event": "{event}"') >= count


@pytest.mark.parametrize("step", [7_200, -7_200])
def test_a_step_that_is_held_off_and_taken_back(tmp_path: Path, step: int) -> None:
    clock = WallClock(tmp_path)
    with (
        CountingSink() as sink,
        House(
            tmp_path / "d", settings=clock.environment, inside=clock.inside, processes=2
        ) as house,
    ):
        house.relay(sink.url, tls="none")
        house.domain(signing="unsigned")
        later = house.send(scheduled_at=_iso(3_600))
        draft = {"from": "s@example.test", "to": ["a@r.test"], "subject": "x", "text": "y"}
        first = house.post("/emails", draft, **{"Idempotency-Key": "once"})
        clock.step(step)
        wait_until(lambda: _has(house, "clock.step_held_off"), seconds=10, what=house.tail)
        before = time.time()
        ids = [house.send() for _ in range(20)]
        for id_ in ids:
            house.wait_status(id_, "delivered", seconds=30)
        assert house.post("/emails", draft, **{"Idempotency-Key": "once"}).json == first.json
        created = datetime.fromisoformat(house.get(f"/emails/{ids[0]}").json["created_at"])
        assert abs(created.timestamp() - before) < 60
        clock.step(-step)
        wait_until(lambda: _has(house, "clock.step_taken_back"), seconds=10, what=house.tail)
        assert house.recipients(later)[0]["status"] == "scheduled"
        house.wait_status(str(first.json["id"]), "delivered", seconds=30)
        states = house.get("/status").json["states"]
        assert (states["delivered"], states["queued"], states["expired"]) == (21, 1, 0)
        house.stop()
        assert len(set(sink.message_ids())) == len(sink.arrived) == 21
        assert "in_doubt" not in house.log.read_text()


def test_steps_that_stay_are_adopted_and_mail_goes_on(tmp_path: Path) -> None:
    clock = WallClock(tmp_path)
    settings = {**clock.environment, "EVERPOST_NODE_CLOCK_SETTLE_S": "1"}
    with (
        CountingSink() as sink,
        House(tmp_path / "d", settings=settings, inside=clock.inside, processes=2) as house,
    ):
        house.relay(sink.url, tls="none")
        house.domain(signing="unsigned")
        soon = house.send(scheduled_at=_iso(3_600))
        for n, step in enumerate((7_200, -7_200), 1):
            clock.step(step)
            wait_until(
                lambda n=n: _has(house, "clock.step_adopted", 3 * n),  # type: ignore[misc]
                seconds=30, what=house.tail,
            )  # fmt: skip
            house.wait_status(house.send(), "delivered", seconds=30)
            house.wait_status(soon, "delivered", seconds=30)
        states = house.get("/status").json["states"]
        assert (states["delivered"], states["queued"], states["claimed"]) == (3, 0, 0)
