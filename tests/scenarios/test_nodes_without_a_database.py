"""F19, F23, F27: two whole nodes whose database goes away. They go on accepting, leave each other
copies, and one that is lost then has lost nothing; one key on both of them leads to one mail.

Invariants: I1, I4, I7, I8.
"""

import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.support.counting_sink import CountingSink
from tests.support.house import House
from tests.support.mail_hosts import free_port
from tests.support.nodes import Cluster, cluster
from tests.support.waiting import wait_until

_EMAIL = {
    "from": "Sender <sender@example.test>",
    "to": ["someone@one.test"],
    "subject": "A test",
    "text": "Hello.\n",
}


@contextmanager
def _two(folder: Path) -> Iterator[tuple[Cluster, House, House, CountingSink]]:
    """Both know each other's address, and the relay."""
    secret = folder / "secret"
    secret.write_text(secrets.token_hex(32))
    secret.chmod(0o600)
    settings = {"EVERPOST_CLUSTER_SECRET_FILE": str(secret)}
    with cluster(folder, settings=settings) as nodes, CountingSink() as sink, _node(nodes) as one:
        one.domain()
        one.relay(sink.url)
        with _node(nodes) as two:
            assert len(two.get("/relays").json["data"]) == 1
            wait_until(lambda: _peers(one) == _peers(two) == 1, seconds=20, what="peers")
            yield nodes, one, two, sink


def _node(nodes: Cluster) -> House:
    return nodes.roles(EVERPOST_CLUSTER_LISTEN=f"127.0.0.1:{free_port()}")


def _peers(node: House) -> int:
    db = apsw.Connection(str(node.data / "journal.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        (count,) = db.execute("SELECT count(*) FROM nodes").fetchall()[0]
        return int(str(count))
    finally:
        db.close()


def _post(node: House, *, key: str | None = None, **fields: object) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return node.post("/emails", {**_EMAIL, **fields}, **headers)


@pytest.mark.long
def test_a_node_is_lost_while_the_database_is_away(tmp_path: Path) -> None:
    with _two(tmp_path) as (nodes, one, two, sink):
        nodes.server.kill()
        ids = []
        longest = 0.0
        for _ in range(30):
            began = time.monotonic()
            answer = _post(one)
            longest = max(longest, time.monotonic() - began)
            assert (answer.status, answer.json["durability"]) == (200, "journal+peer")
            assert answer.headers["everpost-durability"] == "journal+peer"
            ids.append(answer.json["id"])
        assert longest < 3.0
        for node in (one, two):
            assert node.get(f"/emails/{ids[0]}").json["status"] == "queued"
            assert node.post(f"/emails/{ids[0]}/cancel", {}).status == 503
        assert _post(one, durability="committed").status == 503
        os.kill(one.pid, signal.SIGKILL)
        nodes.server.start()
        for id_ in ids:
            two.wait_status(id_, "delivered", seconds=40)
        assert two.get(f"/emails/{ids[0]}").json["durability"] == "journal+peer"
        assert sorted(Counter(sink.message_ids()).values()) == [1] * 30


@pytest.mark.long
def test_a_node_is_stopped_while_the_database_is_away(tmp_path: Path) -> None:
    """It ends in order, and what no other node had it leaves with one that delivers it, while it is
    down itself."""
    with _two(tmp_path) as (nodes, one, two, sink):
        nodes.server.kill()
        os.kill(two.pid, signal.SIGSTOP)
        answers = [_post(one).json for _ in range(5)]
        os.kill(two.pid, signal.SIGCONT)
        assert {answer["durability"] for answer in answers} == {"journal"}
        assert one.stop() == 0
        nodes.server.start()
        for answer in answers:
            two.wait_status(answer["id"], "delivered", seconds=40)
        assert len(sink.arrived) == 5


@pytest.mark.long
def test_one_key_on_two_nodes_that_do_not_see_each_other(tmp_path: Path) -> None:
    """The peers' listener of one is stopped with its host; both accept; one mail goes out."""
    with _two(tmp_path) as (nodes, one, two, sink):
        nodes.server.kill()
        os.kill(two.pid, signal.SIGSTOP)
        first = _post(one, key="k")
        assert first.json["durability"] == "journal"
        os.kill(one.pid, signal.SIGSTOP)
        os.kill(two.pid, signal.SIGCONT)
        second = _post(two, key="k")
        os.kill(one.pid, signal.SIGCONT)
        assert _post(one, key="k").json["id"] == first.json["id"]
        nodes.server.start()
        names = {answer.json["id"] for answer in (first, second)}
        for id_ in names:
            for node in (one, two):
                node.wait_status(id_, "delivered", seconds=40)
        assert len(sink.arrived) == 1


@pytest.mark.long
def test_accepting_goes_on_through_the_whole_time(tmp_path: Path) -> None:
    """Nobody is refused, from before the failure until after the recovery."""
    with _two(tmp_path) as (nodes, one, two, sink):
        seen: Counter[str] = Counter()
        ids: list[str] = []

        def post() -> None:
            answer = _post((one, two)[len(ids) % 2])
            assert answer.status == 200, answer
            seen[answer.json.get("durability", "committed")] += 1
            ids.append(answer.json["id"])

        while seen["committed"] < 20:
            post()
        nodes.server.stop()
        while seen["journal+peer"] < 20:
            post()
        assert one.get("/health/ready").status == 200
        nodes.server.start()
        before = seen["committed"]
        while seen["committed"] < before + 20:
            post()
        for id_ in ids:
            one.wait_status(id_, "delivered", seconds=40)
        assert len(sink.arrived) == len(ids)
