"""F64: the first of several mail hosts is dead, or one address family leads nowhere. The mail gets
through in the same attempt, and other destinations do not wait for it.

Invariants: I17.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.hosting import hosted
from tests.support.house import House
from tests.support.mail_hosts import delivering, free_port, mx, theirs
from tests.support.stage import attempts_of, check_record, over, relays
from tests.support.tiny_smtp import ScriptedServer, Silence

ZONE = """
two MX 10 first
two MX 20 second
first A 127.0.0.2
second A 127.0.0.1
mixed MX 10 both
both AAAA ::1
both A 127.0.0.1
silent MX 10 mute
mute A 127.0.0.2
quick MX 10 second
dead MX 10 nobody
nobody A 127.0.0.3
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with delivering(tmp_path_factory.mktemp("house"), {"there.test": ZONE}) as (house, _):
        yield house


@contextmanager
def black_hole(host: str, port: int) -> Iterator[None]:
    """A listener whose queue is full: connections to it wait for ever."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket(family))
        full.bind((host, port))
        full.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket(family))
            client.setblocking(False)
            # Past the guard that lets tests in this process connect to 127.0.0.1 and ::1 only.
            socket.SocketType.connect_ex(client, (host, port))
        yield


def _arrives(house: House, to: str, host: str) -> None:
    id_ = house.send(to=to)
    house.wait_status(id_, "delivered")
    (attempt,) = attempts_of(house, id_)
    assert attempt["host"] == host
    check_record(house, id_)


def test_dead_first_host_holds_up_the_mail(house: House) -> None:
    with hosted(ScriptedServer()) as far, relays(house, mx=mx(far.port)):
        _arrives(house, "you@two.there.test", "second.there.test")


def test_first_host_that_swallows_connections_holds_up_the_mail(house: House) -> None:
    with (
        hosted(ScriptedServer()) as far,
        relays(house, mx=mx(far.port)),
        black_hole("127.0.0.2", far.port),
    ):
        _arrives(house, "you@two.there.test", "second.there.test")


def test_first_host_that_never_speaks_holds_up_the_mail(house: House) -> None:
    mute = ScriptedServer({"BANNER": Silence()})
    with (
        hosted(ScriptedServer()) as far,
        relays(house, mx=mx(far.port)),
        hosted(mute, "127.0.0.2", far.port),
    ):
        _arrives(house, "you@two.there.test", "second.there.test")
        assert mute.connections == 1


def test_ipv6_that_refuses_takes_ipv4_along(house: House) -> None:
    with hosted(ScriptedServer()) as far, relays(house, mx=mx(far.port)):
        _arrives(house, "you@mixed.there.test", "both.there.test")


def test_ipv6_that_leads_nowhere_takes_ipv4_along(house: House) -> None:
    with hosted(ScriptedServer()) as far, relays(house, mx=mx(far.port)):
        with black_hole("::1", far.port):
            for _ in range(3):
                _arrives(house, "you@mixed.there.test", "both.there.test")
        assert len(far.mail) == 3


def test_destination_that_hangs_holds_up_the_others(house: House) -> None:
    """F51 without a relay: thirty messages hang at one destination; another's goes at once."""
    mute = ScriptedServer({"MAIL": Silence()})
    with hosted(ScriptedServer()) as far:
        own = mx(far.port, connections=8, destination_connections=3)
        with relays(house, mx=own):
            with hosted(mute, "127.0.0.2", far.port):
                stuck = [house.send(to=f"u{n}@silent.there.test") for n in range(30)]
                for _ in range(5):
                    _arrives(house, "you@quick.there.test", "second.there.test")
                assert mute.connections == 3
            for id_ in stuck:  # it hung up
                house.wait_status(id_, "deferred")
                over(house, id_)


def test_every_message_for_a_dead_destination_tries_anew(house: House) -> None:
    with relays(house, mx=mx(free_port())):
        first = house.send(to="you@dead.there.test")
        house.wait_status(first, "deferred")
        (attempt,) = attempts_of(house, first)
        theirs(attempt["outcome"], phase="connect")
        assert attempt["host"] == "nobody.there.test"
        second = house.send(to="me@dead.there.test")
        house.wait_status(second, "deferred")
        (attempt,) = attempts_of(house, second)
        assert "a moment ago" in attempt["outcome"]["reason"]
        assert attempt["host"] is None
        for id_ in (first, second):
            check_record(house, id_)
            over(house, id_)
