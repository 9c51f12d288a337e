"""F38: three processes have more mail than a relay allows, and one of them is killed in the middle.
The relay never sees more connections or messages than it allows, in whatever process they began,
and the rest of the mail goes out as the limit lets it.

Invariants: I1, I4, I18, I19.
"""

from pathlib import Path

import pytest

from tests.support.counting_sink import CountingSink
from tests.support.house import House
from tests.support.waiting import wait_until

PROCESSES = {
    "EVERPOST_NODE_PROCESSES": "3",
    "EVERPOST_DELIVERY_IDLE_S": "3",
}


def _submit(house: House, count: int) -> list[str]:
    batch = [
        {
            "from": "Sender <sender@example.test>",
            "to": [f"r{i}@d{i % 7}.test"],
            "subject": "A test",
            "text": "Hello.\n",
        }
        for i in range(count)
    ]
    ids: list[str] = []
    for start in range(0, count, 100):
        answer = house.post("/emails/batch", batch[start : start + 100])
        assert answer.status == 200, answer
        ids += [each["id"] for each in answer.json["data"]]
    return ids


def _wait_arrived(sink: CountingSink, count: int, house: House, seconds: float) -> None:
    wait_until(
        lambda: len(set(sink.message_ids())) >= count,
        seconds=seconds,
        what=lambda: f"{count} messages: {len(sink.arrived)} came\n{house.tail()}",
    )


@pytest.mark.long
@pytest.mark.parametrize("cap", [1, 3])
def test_connections_never_exceed_the_cap_though_a_process_dies(tmp_path: Path, cap: int) -> None:
    with (
        CountingSink(pause_s=0.01) as sink,
        House(tmp_path / "data", settings=PROCESSES) as house,
    ):
        house.domain()
        house.relay(sink.url, connections=cap)
        ids = _submit(house, 200)
        _wait_arrived(sink, 40, house, 20)
        house.kill_role("dispatch")
        _wait_arrived(sink, 200, house, 60)
        for id_ in (ids[0], ids[-1]):
            house.wait_status(id_, "delivered")
        assert sink.most_open == cap
        # What the dead process had in hand at its dot may come twice, nothing else.
        assert len(sink.arrived) <= 200 + cap


def test_a_rate_holds_over_all_processes_though_one_dies(tmp_path: Path) -> None:
    with CountingSink() as sink, House(tmp_path / "data", settings=PROCESSES) as house:
        house.domain()
        house.relay(sink.url, connections=6, messages_per_second=20)
        _submit(house, 100)
        _wait_arrived(sink, 30, house, 20)
        house.kill_role("dispatch")
        _wait_arrived(sink, 100, house, 30)
        # A window is a second of the clock, so any n seconds touch n + 1 of them.
        for seconds in (1, 2, 3):
            assert sink.most_within(seconds) <= 20 * (seconds + 1)
        first, last = sink.arrived[0][0], sink.arrived[-1][0]
        assert last - first < 100 / 20 * 2  # and the limit is used


def test_a_spent_budget_defers_what_is_left_without_an_attempt(tmp_path: Path) -> None:
    with CountingSink() as sink, House(tmp_path / "data", settings=PROCESSES) as house:
        house.domain()
        house.relay(sink.url, name="frugal", messages_per_day=50)
        ids = _submit(house, 70)
        _wait_arrived(sink, 48, house, 20)  # a few may be in the hands of another process

        def deferred() -> list[str]:
            return [i for i in ids if house.events(i)[-1]["type"] == "deferred"]

        wait_until(
            lambda: len(deferred()) + len(sink.arrived) >= 70,
            seconds=20,
            what=lambda: f"{len(sink.arrived)} came, {len(deferred())} wait\n{house.tail()}",
        )
        assert len(sink.arrived) <= 50
        event = house.events(deferred()[0])[-1]
        assert event["type"] == "deferred"
        reason = event["data"]["reason"]
        assert "frugal: has sent its 50 of this day, next at " in reason
        assert reason.endswith("T00:00:00Z")
        assert event["data"]["attempts"] == 0
