"""How relays do, from what processes noted: nothing is made up, nothing is lost."""

from typing import Any

import msgspec
import pytest

from everpost.ids import text
from everpost.model.health import CircuitState, Health, Standing
from everpost.monitoring.relay_status import (
    Canary,
    Cooldown,
    Latency,
    Probe,
    RelayStatus,
    relay_statuses,
)
from everpost.store.interface import Note, RelayRow

NOW = 1_800_000_000_000
A, B = bytes(15) + b"a", bytes(15) + b"b"


def _row(id_: bytes) -> RelayRow:
    return RelayRow(id_, text(id_), "h.test", 25, "enabled", {}, 0, None, 0)


ROWS = [_row(A), _row(B)]


def _note(kind: str, key: str, data: dict[str, Any], *, ends: int = NOW + 1) -> Note:
    return Note(kind, key, {**data, "by": "somebody"}, ends)


def _report(worker: str, *standings: Standing) -> Note:
    relays = msgspec.to_builtins(standings)
    return _note("report", worker, {"at": NOW, "relays": relays})


def _of_a(*notes: Note) -> RelayStatus:
    return relay_statuses(ROWS, notes, now=NOW)[0]


def test_an_unknown_relay_is_shown_with_zeros() -> None:
    assert relay_statuses(ROWS, [], now=NOW) == [
        RelayStatus(relay=row, health=None, processes=0) for row in ROWS
    ]


def test_what_two_processes_saw_is_not_added_up() -> None:
    notes = [
        _report("1", Standing(relay=A, tried=6, worked=5, faults=1, in_flight=2, sessions=3,
                              latency_ms={"p50": 10.0, "p99": 90.0})),
        _report("2", Standing(relay=A, tried=4, worked=4, sessions=1, in_flight=1,
                              latency_ms={"p50": 20.0, "p95": 70.0, "p99": 80.0}),
                Standing(relay=B, tried=30, worked=0, faults=30)),
    ]  # fmt: skip
    a, b = relay_statuses(ROWS, notes, now=NOW)
    assert (a.processes, a.tried, a.worked, a.faults) == (2, 10, 9, 1)
    assert (a.success_rate, a.share, a.in_flight, a.sessions) == (0.9, 0.25, 3, 4)
    assert a.latency == Latency(p50=20.0, p95=70.0, p99=90.0)
    assert (b.processes, b.success_rate, b.share, b.latency) == (1, 0.0, 0.75, None)
    assert a.health == Health(relay=A, state=CircuitState.CLOSED)


def test_two_sites_see_a_relay_and_the_older_word_is_shown() -> None:
    states = {"north": CircuitState.CLOSED, "south": CircuitState.OPEN}
    for last in ("north", "south"):
        order = sorted(states, key=lambda site: site == last)
        notes = [
            _note("health", f"{text(A)}/{s}", msgspec.to_builtins(Health(relay=A, state=states[s])))
            for s in order
        ]
        status = _of_a(*notes)
        assert status.health is not None
        assert status.health.state is states[last]


def test_an_idle_relay_has_a_success_rate() -> None:
    status = _of_a(_report("1", Standing(relay=A, sessions=1)))
    assert (status.tried, status.success_rate, status.share) == (0, None, None)


def test_a_circuit_a_probe_and_a_canary_are_shown_as_noted() -> None:
    health = Health(
        relay=A, state=CircuitState.OPEN, why="refused the login", phase="auth",
        speaker="relay", since=NOW - 5, until=NOW + 5, ejections=2,
    )  # fmt: skip
    status = _of_a(
        _note("health", text(A), msgspec.to_builtins(health)),
        _note("probe", text(A), {"at": NOW, "ok": False, "refusal": "no", "phase": "connect",
                                 "took_ms": 1.5, "next": NOW + 9}),
        _note("canary", text(A), {"at": NOW, "ok": False, "why": "did not come"}),
        _report("1", Standing(relay=A, tried=1)),
    )  # fmt: skip
    assert status.health == health
    assert status.probe == Probe(NOW, False, "no", "connect", 1.5, NOW + 9)
    assert status.canary == Canary(NOW, False, "did not come")


@pytest.mark.parametrize(("ok", "state"), [(True, CircuitState.CLOSED), (False, None)])
def test_a_probe_alone_says_more_than_it_knows(ok: bool, state: CircuitState | None) -> None:
    status = _of_a(_note("probe", text(A), {"at": NOW, "ok": ok}))
    assert (None if status.health is None else status.health.state) == state


def test_a_cool_down_of_another_relay_or_of_yesterday_is_shown() -> None:
    def cool(relay: bytes, site: str, until: int) -> Note:
        return _note("cooldown", f"{relay.hex()}/{site}", {"until": until, "why": "4.7.0 rate"})

    status = _of_a(
        cool(A, "x.test", NOW + 1), cool(A, "a/b.test", NOW + 2), cool(A, "over.test", NOW),
        cool(B, "other.test", NOW + 9),
    )  # fmt: skip
    assert status.cooldowns == (
        Cooldown("a/b.test", NOW + 2, "4.7.0 rate"), Cooldown("x.test", NOW + 1, "4.7.0 rate"),
    )  # fmt: skip


def test_an_expired_note_is_believed() -> None:
    stale = _report("1", Standing(relay=A, tried=1))
    assert _of_a(msgspec.structs.replace(stale, expires_at=NOW)).processes == 0


@pytest.mark.parametrize(
    "note",
    [
        _note("health", text(A), {"relay": "!", "state": "open"}),
        _note("health", text(A), {"state": "asleep"}),
        _note("report", "1", {"relays": [{"tried": 1}]}),
        _note("report", "1", {}),
        _note("probe", text(A), {"ok": True}),
        _note("canary", text(A), {"at": "now", "ok": True}),
        _note("cooldown", f"{A.hex()}/x", {"until": "later"}),
        _note("cooldown", "no site", {"until": NOW + 5}),
    ],
)
def test_a_note_of_another_release_stops_the_view(note: Note) -> None:
    assert _of_a(note) == RelayStatus(relay=ROWS[0], health=None, processes=0)
