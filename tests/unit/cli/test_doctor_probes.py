"""The probes: what they find on a real file system, and with a resolver and servers of our own."""

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest
from click.testing import Result

from everpost.cli.doctor import machine, network
from everpost.cli.doctor.network import Target
from everpost.cli.doctor.relays import Relays, relays_in
from everpost.clock import SystemClock
from everpost.net.resolver import Absent, Answer, Found, Resolver, Unresolved

Run = Callable[..., Result]

MOUNTS = """\
21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
22 21 0:20 / /srv rw - xfs /dev/sdb1 rw
23 22 0:21 / /srv/with\\040blank rw shared:1 master:2 - tmpfs tmpfs rw
24 22 0:22 / /srv rw - nfs4 far:/srv rw
nonsense
25 21
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib", "ext4"),
        ("/srvx", "ext4"),
        ("/srv", "nfs4"),
        ("/srv/a", "nfs4"),
        ("/srv/with blank/x", "tmpfs"),
    ],
)
def test_the_deepest_and_last_mount_counts(path: str, kind: str) -> None:
    assert machine.mount_of(Path(path), MOUNTS) == kind
    assert machine.mount_of(Path(path), "") is None


def test_the_disk_is_measured_where_the_data_will_be_and_nothing_is_left(tmp_path: Path) -> None:
    data = tmp_path / "not" / "yet"
    facts = machine.disk(data, SystemClock())
    assert (facts.exists, facts.measured, facts.writable) == (False, str(tmp_path), True)
    assert facts.file_system is not None
    assert facts.free_bytes > 0
    assert facts.syncs_per_s is not None
    assert facts.syncs_per_s > 0
    assert list(tmp_path.iterdir()) == []
    data.mkdir(parents=True)
    data.chmod(0o750)
    facts = machine.disk(data, SystemClock())
    assert (facts.exists, facts.owned, facts.mode) == (True, True, 0o750)
    assert os.listdir(data) == []


def test_this_machine_can_be_asked() -> None:
    program = machine.program()
    assert program.python >= (3, 11)
    assert program.sqlite >= (3, 51, 3)
    assert program.files > 0
    assert machine.clock().synchronised in {True, False, None}


class _Script(Resolver):
    """A resolver that answers from a table; what is not in it does not exist."""

    def __init__(self, answers: Mapping[tuple[str, str], Answer]) -> None:
        super().__init__()
        self._answers = answers

    async def lookup(self, name: str, rdtype: str, *, fresh: bool = False) -> Answer:
        return self._answers.get((name, rdtype), Absent("nxdomain"))


@pytest.mark.parametrize(
    ("answer", "answered", "authenticated"),
    [
        (Found(("a.root.",), 60, authenticated=True), True, True),
        (Found(("a.root.",), 60), True, False),
        (Absent("nodata"), False, False),
        (Unresolved("SERVFAIL"), False, False),
    ],
)
def test_resolver_is_judged_by_the_root(
    answer: Answer, answered: bool, authenticated: bool
) -> None:
    facts = asyncio.run(network.resolver(_Script({(".", "NS"): answer})))
    assert (facts.answered, facts.authenticated) == (answered, authenticated)
    assert bool(facts.reason) != answered


def test_a_probe_host_means_its_mx_unless_it_has_a_port_or_none() -> None:
    ask = _Script(
        {
            ("a.test", "MX"): Found(("20 b.a.test.", "10 a.a.test.", "30 c.a.test."), 60),
            ("null.test", "MX"): Found(("0 .",), 60),
        }
    )
    hosts = [("a.test", None), ("null.test", None), ("none.test", None), ("h.test", 587)]
    found = asyncio.run(network.targets(ask, [*hosts, ("192.0.2.1", None)]))
    assert [(target.host, target.port) for target in found] == [
        ("a.a.test", 25), ("b.a.test", 25), ("null.test", 25), ("none.test", 25),
        ("h.test", 587), ("192.0.2.1", 25),
    ]  # fmt: skip


def test_names_are_followed_both_ways() -> None:
    ask = _Script(
        {
            ("mx.test", "A"): Found(("192.0.2.1",), 60),
            ("mx.test", "AAAA"): Unresolved("SERVFAIL"),
            ("1.2.0.192.in-addr.arpa", "PTR"): Found(("mx.test.",), 60),
            ("7.2.0.192.in-addr.arpa", "PTR"): Found(("other.test.",), 60),
        }
    )
    facts = asyncio.run(network.host_names(ask, "mx.test", ["192.0.2.7"]))
    assert facts.addresses == ("192.0.2.1",)
    assert facts.pointers == {"192.0.2.1": ("mx.test.",), "192.0.2.7": ("other.test.",)}
    assert facts.unknown == ""
    broken = _Script({("mx.test", "A"): Unresolved("SERVFAIL")})
    assert asyncio.run(network.host_names(broken, "mx.test", [])).unknown == "SERVFAIL"


@contextmanager
def _server(said: bytes) -> Iterator[int]:
    """A TCP server that says its piece to one client and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("said", "banner", "error"),
    [
        (b"220 mx.test ESMTP\r\n220 more\r\n", "220 mx.test ESMTP", ""),
        (b"554 go away\r\n", "", "greeted with: 554 go away"),
        (b"", "", "greeted with: nothing"),
        (b"220-" + b"x" * 100_000, "220-" + "x" * 508, ""),
    ],
)
def test_a_mail_server_is_known_by_its_greeting(said: bytes, banner: str, error: str) -> None:
    with _server(said) as port:
        found = asyncio.run(network.egress([Target("127.0.0.1", port)]))
    assert (found[0].banner, found[0].error) == (banner, error)


def test_a_closed_port_is_an_answer_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    found = asyncio.run(network.egress([Target("127.0.0.1", port)]))
    assert found[0].error
    assert found[0].banner == ""


def test_relays_are_read_from_the_store_without_changing_it(tmp_path: Path) -> None:
    store = tmp_path / "everpost.db"
    assert relays_in(store) == Relays()
    store.write_bytes(b"no database" * 100)
    assert relays_in(store) == Relays()
    store.unlink()
    connection = apsw.Connection(str(store))
    connection.execute("CREATE TABLE relays (id, host, port, state, settings)")
    for row in (
        (1, "a.test", 465, "enabled", '{"implicit_tls":true}'),
        (2, "b.test", 25, "disabled", "{}"),
        (3, "c.test", 587, "draining", "{}"),
        (4, "mx", 25, "enabled", '{"kind":"mx","source":["8.8.8.8","10.0.0.1"]}'),
    ):
        connection.execute("INSERT INTO relays VALUES (?,?,?,?,?)", row)
    connection.close()
    assert relays_in(store) == Relays(
        (Target("a.test", 465, implicit_tls=True), Target("c.test", 587)), ("8.8.8.8",)
    )


def test_doctor_offline_prints_a_table_or_json(run: Run, data: Path) -> None:
    data.mkdir(mode=0o700)
    shown = run("doctor", "--offline", "--data", data)
    assert "data directory" in shown.stdout
    result = run("doctor", "--offline", "--data", data, "--json")
    findings = json.loads(result.stdout)["data"]
    failed = any(finding["verdict"] == "fail" for finding in findings)
    assert result.exit_code == shown.exit_code == int(failed)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--probe-host", "a:b:c.d"),
        ("--probe-host", "a:70000"),
        ("--probe-host", "unix:/x"),
        ("--probe-host", ""),
        ("--address", "x"),
    ],
)
def test_doctor_refuses_what_is_no_host(run: Run, wrong: tuple[str, ...]) -> None:
    assert run("doctor", *wrong).exit_code == 2
