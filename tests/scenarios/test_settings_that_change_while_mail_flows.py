"""Settings of relays, pools and routes change while mail flows: within two seconds, every process
that delivers mail follows, without a restart, and no message is lost or sent twice.

Invariants: I18.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.far_end import FarEnd, Received
from tests.support.house import House
from tests.support.sessions import owners
from tests.support.waiting import wait_until

FOLLOWED_S = 2.0
_MOST = 4_000
"""Messages of one test, at most."""


class Flow:
    """Steady mail, two mail servers, and who delivered what to which of them."""

    def __init__(self, house: House, **ends: FarEnd) -> None:
        self.house = house
        self.ends = ends
        self.pids = house.children("dispatch")
        self.ids: list[str] = []
        self._owners: dict[tuple[str, int], int] = {}
        self._end = threading.Event()

    def feed(self) -> None:
        while not self._end.is_set() and len(self.ids) < _MOST:
            self.ids.append(self.house.send())

    def stop(self) -> None:
        self._end.set()

    def by_process(self) -> dict[int, list[str]]:
        """The names of the servers that each process delivered to, in that order."""
        for name, end in self.ends.items():
            for port, pid in owners(self.pids, port=end.port).items():
                self._owners[name, port] = pid
        came: list[tuple[float, str, Received]] = [
            (each.at, name, each) for name, end in self.ends.items() for each in tuple(end.taken)
        ]
        found: dict[int, list[str]] = {pid: [] for pid in self.pids}
        for _, name, message in sorted(came, key=lambda one: one[0]):
            owner = self._owners.get((name, message.peer))
            if owner is not None:
                found[owner].append(name)
        return found

    def wait(self, name: str, *, of: int, least: int, seconds: float) -> None:
        """Until at least `least` of the last `of` messages of every process went to `name`."""
        wait_until(
            lambda: all(names[-of:].count(name) >= least for names in self.by_process().values()),
            seconds=seconds,
            what=lambda: (
                f"{name}: {[Counter(names[-of:]) for names in self.by_process().values()]}\n"
                f"{self.house.tail()}"
            ),
        )

    def change(self, method: str, path: str, body: Any) -> None:
        answer = self.house.call(method, path, body)
        assert answer.status == 200, answer


@contextmanager
def _flowing(folder: Path) -> Iterator[Flow]:
    """Relays a and b, pools of the same names with one of them each, all mail by a route to a."""
    with FarEnd() as a, FarEnd() as b, House(folder / "d", processes=2) as house:
        house.relay(a.url, name="a", tls="none", probe=False)
        house.relay(b.url, name="b", tls="none", probe=False)
        house.domain(signing="unsigned")
        for name in "ab":
            assert house.post("/pools", {"name": name, "tiers": [[name]]}).status == 200
        assert house.post("/routes", {"name": "all", "pool": "a"}).status == 200
        flow = Flow(house, a=a, b=b)
        assert len(flow.pids) == 2
        feeders = [threading.Thread(target=flow.feed) for _ in range(4)]
        for feeder in feeders:
            feeder.start()
        try:
            flow.wait("a", of=5, least=5, seconds=30)
            yield flow
        finally:
            flow.stop()
            for feeder in feeders:
                feeder.join(timeout=30)
        assert flow.pids == house.children("dispatch")
        for id_ in flow.ids[-50:]:
            house.wait_status(id_, "delivered")
        wait_until(
            lambda: house.get("/status").json["states"].get("delivered") == len(flow.ids),
            seconds=10,
            what=lambda: f"{len(flow.ids)}: {house.get('/status')}\n{house.tail()}",
        )
        taken = [each.message_id.partition("@")[0] for each in (*a.taken, *b.taken)]
        assert sorted(taken) == sorted(flow.ids)


def _id(house: House, noun: str, name: str) -> str:
    rows: list[dict[str, str]] = house.get(f"/{noun}").json["data"]
    return next(row["id"] for row in rows if row["name"] == name)


def _route(flow: Flow, to: str) -> None:
    flow.change("PATCH", f"/routes/{_id(flow.house, 'routes', 'all')}", {"pool": to})


def _pool(flow: Flow, to: str) -> None:
    flow.change("PATCH", f"/pools/{_id(flow.house, 'pools', 'a')}", {"tiers": [[to]]})


def _state(flow: Flow, to: str) -> None:
    """In a pool of two tiers, the second helps while the first is disabled."""
    pool = _id(flow.house, "pools", "a")
    if flow.house.get(f"/pools/{pool}").json["tiers"] == [["a"]]:
        flow.change("PATCH", f"/pools/{pool}", {"tiers": [["a"], ["b"]]})
    state = "disabled" if to == "b" else "enabled"
    flow.change("PATCH", f"/relays/{_id(flow.house, 'relays', 'a')}", {"state": state})


def _document(flow: Flow, to: str) -> None:
    flow.change("POST", "/apply", {"routes": [{"name": "all", "pool": to}]})


@pytest.mark.parametrize("turn", [_route, _pool, _state, _document])
def test_mail_goes_on_to_where_it_went_before(
    tmp_path: Path, turn: Callable[[Flow, str], None]
) -> None:
    with _flowing(tmp_path) as flow:
        for name in ("b", "a"):
            turn(flow, name)
            flow.wait(name, of=5, least=5, seconds=FOLLOWED_S)


def test_mail_is_shared_by_the_weights_of_before(tmp_path: Path) -> None:
    with _flowing(tmp_path) as flow:
        relays = {name: _id(flow.house, "relays", name) for name in "ab"}
        flow.change("PATCH", f"/relays/{relays['a']}", {"weight": 99})
        pool = _id(flow.house, "pools", "a")
        flow.change("PATCH", f"/pools/{pool}", {"tiers": [["a", "b"]]})
        flow.wait("a", of=20, least=16, seconds=FOLLOWED_S)
        weights = [{"name": n, "url": end.url, "tls": "none", "probe": False, "weight": w}
                   for (n, end), w in zip(flow.ends.items(), (1, 99), strict=True)]  # fmt: skip
        flow.change("POST", "/apply", {"relays": weights})
        flow.wait("b", of=20, least=16, seconds=FOLLOWED_S)
