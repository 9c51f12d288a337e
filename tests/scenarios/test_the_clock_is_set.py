"""F19: the wall clock is set by two hours while mail flows. Nothing is sent or expired early,
nothing is lost or doubted; a step that stays is adopted, and mail goes on.

Invariants: I12, I13, I22.
"""

import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.faketime import WallClock
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.journal import wait_logged
from tests.support.stage import attempts_of, wait_attempts

LATER = {"later": "450 4.2.0 Greylisted, try again in 1 hour"}
STEPS = ((1, 7_200), (2, -7_200))


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


@pytest.mark.long
@pytest.mark.parametrize("step", [7_200, pytest.param(-7_200, marks=pytest.mark.long)])
def test_a_step_that_is_held_off_and_taken_back(tmp_path: Path, step: int) -> None:
    clock = WallClock(tmp_path)
    with (
        FarEnd(refuse=LATER) as far,
        House(
            tmp_path / "d", settings=clock.environment, inside=clock.inside, processes=1
        ) as house,
    ):
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        scheduled = house.send(scheduled_at=_iso(3_600))
        deferred = house.send(to="later@r.test")
        house.wait_status(deferred, "deferred")
        draft = {"from": "s@example.test", "to": ["a@r.test"], "subject": "x", "text": "y"}
        first = house.post("/emails", draft, **{"Idempotency-Key": "once"})
        clock.step(step)
        wait_logged(house, "clock.step_held_off", count=2)
        before = time.time()
        ids = [house.send() for _ in range(10)]
        for id_ in ids:
            house.wait_status(id_, "delivered")
        assert house.post("/emails", draft, **{"Idempotency-Key": "once"}).json == first.json
        created = datetime.fromisoformat(house.get(f"/emails/{ids[0]}").json["created_at"])
        assert abs(created.timestamp() - before) < 60
        clock.step(-step)
        wait_logged(house, "clock.step_taken_back", count=2)
        assert house.recipients(scheduled)[0]["status"] == "scheduled"
        assert len(attempts_of(house, deferred)) == 1  # its retry did not come early
        house.wait_status(str(first.json["id"]), "delivered")
        states = house.get("/status").json["states"]
        assert (states["delivered"], states["queued"], states["expired"]) == (11, 2, 0)
        house.stop()
        assert len({received.message_id for received in far.complete}) == len(far.complete) == 11
        assert "in_doubt" not in house.log.read_text()


@pytest.mark.long
def test_steps_that_stay_are_adopted_and_mail_goes_on(tmp_path: Path) -> None:
    clock = WallClock(tmp_path)
    settings = {**clock.environment, "EVERPOST_NODE_CLOCK_SETTLE_S": "1"}
    with (
        FarEnd(refuse=LATER) as far,
        House(tmp_path / "d", settings=settings, inside=clock.inside, processes=2) as house,
    ):
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        scheduled = house.send(scheduled_at=_iso(3_600))
        deferred = house.send(to="later@r.test")
        house.wait_status(deferred, "deferred")
        for n, step in STEPS:
            clock.step(step)
            wait_logged(house, "clock.step_adopted", count=3 * n, seconds=30)
            house.wait_status(house.send(), "delivered")
            house.wait_status(scheduled, "delivered")
            wait_attempts(house, deferred, 2)
        states = house.get("/status").json["states"]
        assert (states["delivered"], states["queued"], states["claimed"]) == (3, 1, 0)
