"""Several nodes on one PostgreSQL: they start at once, wake each other, keep limits together, and
take over what one of them has left (F19, F35, F89).

Invariants: I1, I4, I12, I13, I18, I22.
"""

import base64
import json
import os
import secrets
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.counting_sink import CountingSink
from tests.support.faketime import WallClock
from tests.support.house import House
from tests.support.nodes import Cluster, cluster
from tests.support.waiting import wait_until


def _post(house: House, count: int) -> list[str]:
    drafts = [
        {
            "from": "Sender <sender@example.test>",
            "to": [f"r{number}@d{number % 5}.test"],
            "subject": "A test",
            "text": "Hello.\n",
        }
        for number in range(count)
    ]
    answer = house.post("/emails/batch", drafts)
    assert answer.status == 200, answer
    return [each["id"] for each in answer.json["data"]]


def _ready_to_send(house: House, sink: CountingSink, *others: House, **relay: object) -> None:
    """The other nodes know of it, too: a list is read from the database."""
    house.domain()
    house.relay(sink.url, **relay)
    for other in others:
        assert len(other.get("/relays").json["data"]) == 1


def _wait_delivered(house: House, ids: list[str], *, seconds: float = 60) -> None:
    for id_ in ids:
        house.wait_status(id_, "delivered", seconds=seconds)


def _doubts(house: House, ids: list[str]) -> int:
    return sum(event["type"] == "in_doubt" for id_ in ids for event in house.events(id_))


def _nodes(house: House) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in house.get("/nodes").json["data"]}


def _books_are_right(nodes: Cluster, house: House) -> None:
    assert "Nothing is wrong" in nodes.command(house, "verify")


def _make_master_key(nodes: Cluster, *houses: House) -> None:
    text = base64.b64encode(secrets.token_bytes(32)) + b"\n"
    for house in houses:
        path = house.data / "master.key"
        path.write_bytes(text)
        path.chmod(0o600)


# --- the start ------------------------------------------------------------------------------------


@pytest.mark.long
def test_three_nodes_start_at_once_on_an_empty_database(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes, CountingSink() as sink:
        three = [nodes.roles() for _ in range(3)]
        _make_master_key(nodes, *three)
        try:
            for node in three:
                node.start(wait=False)
            for node in three:
                node._await_ready()
            (keys,) = nodes.server.execute("everpost", "SELECT count(*) FROM api_keys")
            (data_keys,) = nodes.server.execute("everpost", "SELECT count(*) FROM data_keys")
            assert (keys, data_keys) == ((1,), (1,))
            _ready_to_send(three[0], sink, *three)
            ids = [node.send() for node in three]
            _wait_delivered(three[2], ids)
            rows = _nodes(three[0])
            assert {row["state"] for row in rows.values()} == {"up"}
            assert Counter(row["leader"] for row in rows.values()) == {False: 2, True: 1}
        finally:
            for node in three:
                node.stop()
        assert nodes.server.execute("everpost", "SELECT name FROM nodes") == []


@pytest.mark.long
def test_the_first_node_starts_while_its_commits_are_cancelled(tmp_path: Path) -> None:
    """Nobody has what it writes, and a wait that somebody cancels is no acknowledgement (F30)."""
    with cluster(tmp_path) as nodes:
        nodes.server.execute("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        nodes.server.execute("postgres", "SELECT pg_reload_conf()")
        late = nodes.house()
        late.start(wait=False)
        try:
            cancelled = 0
            while cancelled < 20:  # a lane tries six times
                assert late._process is not None
                assert late._process.poll() is None, late.tail()
                cancelled += len(
                    nodes.server.execute(
                        "postgres",
                        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                        " WHERE wait_event = 'SyncRep'",
                    )
                )
            nodes.server.execute("postgres", "ALTER SYSTEM RESET synchronous_standby_names")
            nodes.server.execute("postgres", "SELECT pg_reload_conf()")
            late._await_ready()
        finally:
            late.stop()


def test_a_node_with_another_master_key_does_not_start(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes, nodes.roles("api"):
        stranger = nodes.roles("api")
        _make_master_key(nodes, stranger)
        stranger.start(wait=False)
        assert stranger.wait_end(40) == 1
        assert f"copy {stranger.data / 'master.key'}" in stranger.tail()
        bare = nodes.roles("api")
        (bare.data / "master.key").unlink()
        bare.start(wait=False)
        assert bare.wait_end(40) == 1
        assert f"copy {bare.data / 'master.key'}" in bare.tail()


# --- what one has left ----------------------------------------------------------------------------


@pytest.mark.long
def test_a_node_is_killed_while_it_sends(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes, CountingSink(pause_s=0.5) as sink:
        with nodes.roles() as one, nodes.roles() as two:
            _ready_to_send(one, sink, two, connections=4)
            ids = _post(one, 60)
            wait_until(lambda: len(sink.arrived) >= 6, seconds=30, what="mail to arrive")
            os.kill(one.pid, signal.SIGKILL)
            two.wait_alarm("node_gone")
            assert _nodes(two)["n1"]["state"] == "gone"
            _wait_delivered(two, ids)
            doubts = _doubts(two, ids)
            _books_are_right(nodes, two)
            assert two.cli("nodes", "forget", "n1").returncode == 0
            two.wait_alarm("node_gone", stands=False)
        copies = Counter(sink.message_ids())
        assert len(copies) == len(ids)
        assert sum(copies.values()) - len(ids) <= doubts


@pytest.mark.long
def test_a_node_is_paused_beyond_its_terms_and_goes_on(tmp_path: Path) -> None:
    """F35: its claims are taken over when their terms end; what it writes later is refused."""
    with cluster(tmp_path) as nodes, CountingSink(pause_s=0.2) as sink:
        with nodes.roles() as one, nodes.roles() as two:
            _ready_to_send(one, sink, two, connections=4)
            ids = _post(one, 60)
            wait_until(lambda: len(sink.arrived) >= 8, seconds=30, what="mail to arrive")
            os.kill(one.pid, signal.SIGSTOP)
            try:
                _wait_delivered(two, ids)
            finally:
                os.kill(one.pid, signal.SIGCONT)
            wait_until(
                lambda: {row["state"] for row in _nodes(two).values()} == {"up"},
                seconds=20,
                what="the node to be back",
            )
            more = _post(one, 10)
            _wait_delivered(two, more)
            workers = nodes.server.execute("everpost", "SELECT node FROM workers ORDER BY node")
            assert workers == [("n1",), ("n2",)]
            doubts = _doubts(two, ids)
            _books_are_right(nodes, two)
        copies = Counter(sink.message_ids())
        assert len(copies) == len(ids) + len(more)
        assert sum(copies.values()) - len(copies) <= doubts


@pytest.mark.long
def test_the_database_is_restarted_under_load(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes, CountingSink() as sink:
        with nodes.roles() as one, nodes.roles() as two:
            _ready_to_send(one, sink, two)
            accepted: list[str] = []
            stop = threading.Event()

            def post(house: House) -> None:
                while not stop.wait(0.02):
                    answer = house.post("/emails", {
                        "from": "sender@example.test", "to": "to@receiver.test",
                        "subject": "A test", "text": "Hello.\n",
                    })  # fmt: skip
                    assert answer.status == 200, answer  # the journal takes it meanwhile
                    accepted.append(answer.json["id"])

            posting = [threading.Thread(target=post, args=(house,)) for house in (one, two)]
            for thread in posting:
                thread.start()
            wait_until(lambda: len(accepted) >= 20, seconds=20, what="the first")
            nodes.server.restart()
            before = len(accepted)
            wait_until(lambda: len(accepted) >= before + 20, seconds=40, what=one.tail)
            stop.set()
            for thread in posting:
                thread.join(30)
            _wait_delivered(two, accepted)
            for house in (one, two):
                house.wait_ready(200)
            _books_are_right(nodes, one)
        assert set(sink.message_ids()) >= {f"{id_}@example.test" for id_ in accepted}


@pytest.mark.long
def test_the_database_is_away_and_a_node_takes_mail_all_the_same(tmp_path: Path) -> None:
    """It stays in the balancer, since its journal takes what comes."""
    with cluster(tmp_path) as nodes, nodes.roles() as one:
        one.wait_ready(200)
        first = one.send()
        one.wait_status(first, "delivered")
        nodes.server.stop()
        wait_until(lambda: "store_unavailable" in one.tail(), seconds=20, what=one.tail)
        answer = one.post("/emails", {
            "from": "sender@example.test", "to": "to@receiver.test", "subject": "s", "text": "t",
        })  # fmt: skip
        assert (answer.status, answer.json["durability"]) == (200, "journal")
        assert one.get("/health/ready").status == 200
        nodes.server.start()
        one.wait_status(answer.json["id"], "delivered")
        one.wait_ready(200)


@pytest.mark.long
def test_a_node_that_is_told_to_end_hands_on_what_it_has_not_begun(tmp_path: Path) -> None:
    """F16: another takes it at once, though it does not poll; nothing is in doubt or sent twice."""
    quiet = {"EVERPOST_DISPATCH_POLL_S": "60", "EVERPOST_CLUSTER_LEASE_S": "300"}
    with (
        cluster(tmp_path, settings=quiet) as nodes,
        CountingSink(pause_s=0.3) as sink,
        nodes.roles("api", "dispatch", "upkeep") as one,
    ):
        _ready_to_send(one, sink, connections=4)
        ids = _post(one, 100)
        wait_until(lambda: len(sink.arrived) >= 4, seconds=30, what="mail to arrive")
        with nodes.roles() as two:
            assert one.stop() == 0
            assert len(sink.arrived) < 100
            _wait_delivered(two, ids)
            assert _doubts(two, ids) == 0
            assert list(_nodes(two)) == ["n2"]
        assert len(sink.arrived) == len(set(sink.message_ids())) == 100


# --- together -------------------------------------------------------------------------------------


def test_mail_that_one_node_accepts_wakes_another_ones_dispatcher(tmp_path: Path) -> None:
    """Nobody polls: without a notice it would lie for a minute."""
    with (
        cluster(tmp_path, settings={"EVERPOST_DISPATCH_POLL_S": "60"}) as nodes,
        CountingSink() as sink,
        nodes.roles("api") as door,
        nodes.roles("dispatch"),
    ):
        _ready_to_send(door, sink)
        for _ in range(3):
            began = time.monotonic()
            door.wait_status(door.send(), "delivered", seconds=30)
            assert time.monotonic() - began < 20


@pytest.mark.long
def test_limits_hold_over_two_nodes(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes, CountingSink(pause_s=0.02) as sink:
        with nodes.roles() as one, nodes.roles():
            _ready_to_send(one, sink, connections=2, messages_per_second=20)
            ids = _post(one, 80)
            _wait_delivered(one, ids)
        assert sink.most_open <= 2
        for seconds in (1, 2, 3):
            assert sink.most_within(seconds) <= 20 * (seconds + 1)


@pytest.mark.long
def test_a_nodes_clock_is_two_hours_off(tmp_path: Path) -> None:
    """F19: leases, schedules and records go by the database's time; the alarm stands."""
    wall = WallClock(tmp_path)
    wall.step(7200)
    with cluster(tmp_path) as nodes, CountingSink() as sink, nodes.roles() as one:
        _ready_to_send(one, sink)
        odd = nodes.roles(inside=wall.inside, **wall.environment)
        with odd:
            later = odd.send(scheduled_at="in 1 hour")
            ids = [house.send() for house in (one, odd, one, odd)]
            _wait_delivered(one, ids)
            assert one.recipients(later)[0]["status"] == "scheduled"
            odd.wait_alarm("clock_skewed")
            assert "clock_skewed" not in one.alarms()
            skew = {name: row["clock_skew_seconds"] for name, row in _nodes(one).items()}
            assert 7190 < float(str(skew["n2"])) < 7210
            assert abs(float(str(skew["n1"]))) < 1
            shown = json.loads(one.cli("nodes", "list", "--json").stdout)
            assert [row["name"] for row in shown] == ["n1", "n2"]
            assert odd.get("/health/ready").status == 200


@pytest.mark.long
def test_one_command_runs_a_whole_node(tmp_path: Path) -> None:
    """`everpost serve` with a database for many: a supervisor, a role a process."""
    with (
        cluster(tmp_path) as nodes,
        CountingSink() as sink,
        nodes.house(processes=2) as one,
        nodes.house(processes=1) as two,
    ):
        assert "n1, on PostgreSQL" in one.said.decode()
        _ready_to_send(two, sink, one)
        _wait_delivered(two, [one.send(), two.send()])
        rows = _nodes(two)
        assert rows["n1"]["roles"] == ["api", "dispatch", "upkeep"]
        one.kill_role("dispatch")
        _wait_delivered(two, _post(one, 20))
        wait_until(
            lambda: len(two.get("/status").json["dispatchers"]) == 3,
            seconds=20,
            what="the dispatcher to be replaced",
        )
        shown = two.cli("status")
        assert "on n1" in shown.stdout, shown
        assert "timeline" in shown.stdout
        assert "dbname=everpost" in nodes.command(one, "db", "path")
        assert "up to date" in nodes.command(one, "db", "migrate")
        facts = json.loads(nodes.command(one, "db", "info", "--json"))
        assert (facts["answers"], facts["durable"], facts["timeline"]) == ("committed", True, 1)
        checks = json.loads(nodes.command(one, "doctor", "--offline", "--json"))["data"]
        found = {each["check"]: each["verdict"] for each in checks}
        assert (found["postgresql"], found["durability"]) == ("ok", "ok")
        assert one.stop() == 0
        assert list(_nodes(two)) == ["n2"]
