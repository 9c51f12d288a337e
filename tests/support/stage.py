"""Scenarios on a shared server: relays for one test, what the record must always say, and time
that passes when the test wants it to."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import apsw

from tests.support.house import Answer, House
from tests.support.waiting import wait_until

__all__ = [
    "FIRST_RETRY_S",
    "FIRST_TURN",
    "RELAY_RETRY_S",
    "RELENTS",
    "attempts_of",
    "check_gap",
    "check_record",
    "check_unavailable",
    "come_due",
    "disable",
    "over",
    "put_off",
    "relays",
    "serving",
    "types",
    "wait_attempts",
]

FIRST_TURN = 100
"""The weight of a relay that gets the next message, beside one of weight 1."""

RELAY_RETRY_S = (10.0, 12.5)
"""When mail comes back after a first fault of its relay: 10 s, jittered by a quarter."""

FIRST_RETRY_S = (60.0, 75.0)
"""When it comes back after a destination's first deferral, or in doubt: the stream's first step."""

RELENTS = {"EVERPOST_DELIVERY_EJECT_S": "0"}
"""A relay that fails is tried again with the next message: for those that soon relent."""

_NOTED_S = 2.0
_TERMINAL = {"delivered", "bounced", "failed", "expired", "cancelled", "suppressed"}


@contextmanager
def serving(
    folder: Path,
    settings: Mapping[str, str] | None = None,
    *,
    processes: int = 1,
    relay: str | None = None,
) -> Iterator[House]:
    """A server that is quick to look at its queue, with so many dispatch processes, a domain that
    needs no keys, and the relay at this URL."""
    quick = {"EVERPOST_DISPATCH_POLL_S": "0.1", **(settings or {})}
    with House(folder / "d", settings=quick, processes=processes) as house:
        house.domain(signing="unsigned")
        if relay is not None:
            house.relay(relay, tls="none")
        yield house


def check_unavailable(answer: Answer) -> None:
    """Refused for now, and when to come again."""
    assert answer.status == 503, answer
    assert answer.json["name"] == "service_unavailable"
    assert int(answer.headers["retry-after"]) >= 1


@contextmanager
def relays(house: House, **fields: str | Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Relays for the length of a block, by name, each a URL or all its fields; their ids. The
    first one gets the next message. Each block's are new ones: of others that had their names
    nothing is remembered."""
    made: dict[str, str] = {}
    try:
        for name, given in fields.items():
            own = {"url": given} if isinstance(given, str) else given
            weight = 1 if made else FIRST_TURN
            house.relay(**{"name": name, "tls": "none", "weight": weight, **own})
            listed = house.get("/relays").json["data"]
            made[name] = next(r["id"] for r in listed if r["name"] == name)
        yield made
    finally:
        for id_ in made.values():
            house.call("DELETE", f"/relays/{id_}")


def disable(house: House, relay: str) -> None:
    """Take a relay, by its id, out of service."""
    answer = house.call("PATCH", f"/relays/{relay}", {"state": "disabled"})
    assert answer.status == 200, answer


def come_due(house: House, id_: str) -> None:
    """The next attempt is due now, as if the time until then had passed."""
    lock = os.open(house.data / "everpost.db.lock", os.O_RDWR)
    try:
        wait_until(
            lambda: _locked(lock),
            seconds=20,
            what=lambda: f"the store's lock\n{Path('/proc/locks').read_text()}{house.tail()}",
        )
        db = apsw.Connection(str(house.data / "everpost.db"))
        db.set_busy_timeout(5_000)
        with db:
            db.execute(
                "UPDATE recipients SET not_before = 0"
                " WHERE message = ? AND state = 'queued' AND due = 0",
                (bytes.fromhex(id_.replace("-", "")),),
            )
            changed = db.changes()
        db.close()
    finally:
        os.close(lock)
    assert changed, "nothing waits for its time"


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def types(house: House, id_: str) -> list[str]:
    return [e["type"] for e in house.events(id_)]


def attempts_of(house: House, id_: str) -> list[dict[str, Any]]:
    """The attempts at the only recipient."""
    (recipient,) = house.recipients(id_)
    found: list[dict[str, Any]] = recipient["attempts"]
    return found


def wait_attempts(house: House, id_: str, count: int) -> None:
    """Wait until so many attempts at each recipient have ended."""
    wait_until(
        lambda: all(len(r["attempts"]) == count for r in house.recipients(id_)),
        seconds=20,
        what=lambda: f"attempt {count}: {house.recipients(id_)}",
    )


def check_gap(recipient: Mapping[str, Any], bounds: tuple[float, float], *, times: int = 1) -> None:
    """From the end of the last attempt to the next one, as the policy has it: `bounds` in seconds,
    doubled with every attempt, `times` in all; and what a busy machine takes to note the end."""
    low, high = (times * bound for bound in bounds)
    assert low <= _gap_s(recipient) <= high + _NOTED_S, recipient


def _gap_s(recipient: Mapping[str, Any]) -> float:
    ended = datetime.fromisoformat(recipient["attempts"][-1]["ended_at"])
    return (datetime.fromisoformat(recipient["next_attempt_at"]) - ended).total_seconds()


def put_off(house: House, id_: str, *, phase: str) -> dict[str, Any]:
    """Wait until the only recipient is deferred, and see that it is for its relay: said so, in this
    phase, bounced nobody, and due again when the policy says. The last attempt's outcome."""
    (recipient,) = house.wait_status(id_, "deferred")
    outcome: dict[str, Any] = recipient["attempts"][-1]["outcome"]
    assert (outcome["type"], outcome["phase"]) == ("deferred", phase), outcome
    assert (outcome["speaker"], outcome["relay_fault"]) == ("relay", True), outcome
    check_gap(recipient, RELAY_RETRY_S, times=2 ** (len(recipient["attempts"]) - 1))
    assert house.get(f"/emails/{id_}").json["last_event"] == "delivery_delayed"
    check_record(house, id_)
    return outcome


def over(house: House, id_: str) -> None:
    """Cancel what waits, so that it does not come to another test's relay."""
    answer = house.post(f"/emails/{id_}/cancel", {})
    assert answer.status == 200, answer


def check_record(house: House, id_: str) -> None:
    """What holds for every message, whatever happened to it: events without gap or repeat (I5);
    one end a recipient, and nothing after it (I2); attempts counted from 1, each with its event;
    as many in-doubt events as in-doubt attempts (I4)."""
    events = house.events(id_)
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1)), events
    for recipient in house.recipients(id_):
        own = [e["type"] for e in events if e["recipient"] == recipient["n"]]
        ends = [i for i, type_ in enumerate(own) if type_ in _TERMINAL]
        assert len(ends) <= 1, own
        if recipient["status"] in _TERMINAL - {"failed"}:
            assert own[-1] == recipient["status"], own
        attempts = recipient["attempts"]
        assert [a["attempt"] for a in attempts] == list(range(1, len(attempts) + 1)), attempts
        assert own.count("in_doubt") == sum(a["outcome"]["type"] == "in_doubt" for a in attempts)
        assert all(a["ended_at"] <= b["started_at"] for a, b in pairwise(attempts)), attempts
