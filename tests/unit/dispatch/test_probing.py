"""When a relay is probed: never too often, and never while it can only harm."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpost.dispatch import probing
from everpost.dispatch.probing import Seen, may_probe, not_ahead, sender_for
from everpost.ids import IdMaker
from everpost.model.health import CircuitState, Health
from everpost.model.relay import Relay, RelayKind, RelayState
from everpost.store.interface import DomainRow

RELAY = Relay(id=b"r", name="one", host="mx.test")
NOW = 1_800_000_000_000
EVERY, LEAST_MS = 30_000, 5_000
IDS = IdMaker(lambda: NOW)


def next_probe(seen: Seen, *, every_ms: int) -> int | None:
    return probing.next_probe(seen, every_ms=every_ms, least_ms=LEAST_MS)


def _open(**facts: Any) -> Health:
    return Health(relay=b"r", state=CircuitState.OPEN, **{"since": NOW, **facts})


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": RelayKind.MX},
        {"probe": False},
        {"state": RelayState.DRAINING},
        {"state": RelayState.DISABLED},
    ],
)
def test_a_relay_that_must_not_be_probed_is_left_alone(fields: dict[str, Any]) -> None:
    relay = msgspec.structs.replace(RELAY, **fields)
    assert not may_probe(relay)
    assert next_probe(Seen(relay=relay, since=NOW), every_ms=EVERY) is None
    assert next_probe(Seen(relay=relay, health=_open(until=NOW)), every_ms=EVERY) is None


def test_a_relay_whose_connections_are_all_in_use_gets_no_further_one() -> None:
    relay = msgspec.structs.replace(RELAY, connections=1)
    assert next_probe(Seen(relay=relay, sessions=1, since=NOW), every_ms=EVERY) is None
    assert next_probe(Seen(relay=relay, sessions=0, since=NOW), every_ms=EVERY) is not None


@pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
def test_at_the_start_nobody_is_hammered(jitter: float) -> None:
    at = next_probe(Seen(relay=RELAY, since=NOW, jitter=jitter), every_ms=EVERY)
    assert at is not None
    assert NOW + EVERY * 3 // 4 <= at <= NOW + EVERY * 5 // 4


def test_real_mail_puts_a_probe_off() -> None:
    seen = Seen(relay=RELAY, since=NOW - 90_000, probed_at=NOW - 60_000, worked_at=NOW)
    at = next_probe(seen, every_ms=EVERY)
    assert at is not None
    assert at >= NOW + EVERY * 3 // 4


def test_a_probe_that_was_refused_is_soon_repeated_but_not_at_once() -> None:
    seen = Seen(relay=RELAY, since=NOW - 90_000, probed_at=NOW, refused=True)
    at = next_probe(seen, every_ms=EVERY)
    assert at is not None
    assert NOW + LEAST_MS * 3 // 4 <= at <= NOW + LEAST_MS * 5 // 4
    worked = next_probe(msgspec.structs.replace(seen, worked_at=NOW + 1), every_ms=EVERY)
    assert worked is not None
    assert worked > NOW + EVERY // 2


def test_healthy_relays_are_not_probed_where_that_is_switched_off_but_open_ones_are() -> None:
    assert next_probe(Seen(relay=RELAY, since=NOW), every_ms=0) is None
    assert next_probe(Seen(relay=RELAY, health=_open(until=NOW + 5), jitter=0), every_ms=0) == (
        NOW + 5
    )


def test_an_open_circuit_without_an_end_is_probed_at_once() -> None:
    assert next_probe(Seen(relay=RELAY, health=_open()), every_ms=EVERY) == NOW


@given(
    until=st.integers(-10_000, 600_000),
    probed=st.none() | st.integers(-600_000, 0),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_an_open_circuit_is_never_tried_before_its_time_nor_twice_in_an_interval(
    until: int, probed: int | None, jitter: float
) -> None:
    last = None if probed is None else NOW + probed
    seen = Seen(
        relay=RELAY, health=_open(until=NOW + until), probed_at=last, jitter=jitter, since=NOW
    )
    at = next_probe(seen, every_ms=EVERY)
    assert at is not None
    earliest = max(NOW + until, NOW + until if last is None else last + LEAST_MS)
    assert earliest <= at <= earliest + max(until, 0, earliest - (last or NOW)) // 10


def _domain(name: str, status: str = "verified") -> DomainRow:
    return DomainRow(
        id=IDS(), project=1, name=name, status=status, signing="sign", trusted=False, created_at=NOW
    )


def test_a_probe_is_made_in_the_name_of_the_oldest_verified_domain() -> None:
    pending, first, second = _domain("p.test", "pending"), _domain("a.test"), _domain("b.test")
    assert sender_for(RELAY, [second, pending, first]) == "postmaster@a.test"
    assert sender_for(RELAY, [pending]) == ""
    own = msgspec.structs.replace(RELAY, probe_sender="probe@own.test")
    assert sender_for(own, [first]) == "probe@own.test"


def test_a_clock_that_is_set_back_stops_probes() -> None:
    """I22: neither the last probe nor the circuit's return is hours away."""
    ahead = NOW + 7_200_000
    health = _open(since=ahead - 2_000, until=ahead + 3_000)
    out = Seen(relay=RELAY, health=health, since=ahead, worked_at=ahead, probed_at=ahead)
    at = next_probe(not_ahead(out, now=NOW), every_ms=EVERY)
    assert at is not None
    assert at <= NOW + 2 * LEAST_MS
    well = Seen(relay=RELAY, since=ahead, worked_at=ahead, probed_at=ahead)
    at = next_probe(not_ahead(well, now=NOW), every_ms=EVERY)
    assert at is not None
    assert at <= NOW + 2 * EVERY
    assert not_ahead(Seen(relay=RELAY, since=5), now=NOW) == Seen(relay=RELAY, since=5)
