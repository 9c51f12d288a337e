"""F35: a process stops in mid-life, be it one that accepts or one that delivers. The supervisor
misses its sign of life and replaces it, upkeep takes over what it had in hand, and meanwhile no
connection is refused.

Invariants: I1, I4, I13.
"""

import os
import signal
from collections.abc import Iterator

import pytest

from everpost.recovery.children import read_children
from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("stopped")
    with House(folder / "d", settings={"EVERPOST_NODE_HUNG_S": "1.5"}, processes=1) as house:
        yield house


def _hung_kills(house: House, name: str) -> int:
    facts = read_children(house.data / "run" / "children.json")
    assert facts is not None
    return next(child.hung_kills for child in facts.children if child.name == name)


def test_a_stopped_process_that_accepts_is_never_replaced(house: House) -> None:
    before = _hung_kills(house, "api")
    os.kill(house.children("api")[0], signal.SIGSTOP)
    assert house.get("/health/live").status == 200  # it waited in the socket: nobody was refused
    assert _hung_kills(house, "api") == before + 1


def test_what_a_stopped_process_had_in_hand_stays_there(house: House) -> None:
    with FarEnd(closed=("data",)) as far:
        house.relay(far.url, tls="none")
        house.domain(signing="unsigned")
        before = _hung_kills(house, "dispatch-1")
        id_ = house.send()
        far.wait_reached("data")
        os.kill(house.children("dispatch")[0], signal.SIGSTOP)
        wait_until(
            lambda: _hung_kills(house, "dispatch-1") == before + 1,
            seconds=20,
            what=lambda: f"the stopped process to be killed\n{house.tail()}",
        )
        far.open("data")
        house.wait_status(id_, "delivered")
        assert len(far.taken) == 1


def test_a_reload_with_an_error_is_half_applied(house: House) -> None:
    """F88: the pids stay; a good one replaces every process and is in force."""
    file = house.data / "everpost.toml"
    file.write_text("[dispatch]\nwindow = -1\n")
    before = house.children()
    done = house.cli("config", "reload")
    assert done.returncode == 2, done
    assert "dispatch.window" in done.stderr
    os.kill(house.pid, signal.SIGHUP)
    wait_until(
        lambda: "config_refused" in house.get("/status").json["alarms"],
        seconds=20,
        what=lambda: f"the alarm\n{house.tail()}",
    )
    assert house.children() == before
    file.write_text("[dispatch]\nwindow = 700\n")
    done = house.cli("config", "reload")
    assert done.returncode == 0, (done, house.tail())
    serving = read_children(house.data / "run" / "children.json")
    assert serving is not None
    assert not {child.pid for child in serving.children} & set(before)
